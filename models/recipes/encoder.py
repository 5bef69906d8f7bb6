"""A BERT-family encoder with two sequence heads and a token head, in plain PyTorch.

Module names are chosen so that `state_dict()` has the Hugging Face names of `BertModel` (without a prefix); the heads are
`heads.intent`, `heads.sentiment` and `heads.entities`. Post-LayerNorm, erf GELU, learned positions, no pooler.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Embeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], hidden)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], hidden)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])
        # The token type is always 0: one text at a time, never a pair.
        total = self.word_embeddings(ids) + self.position_embeddings(positions) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(total))


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, x, keep):
        batch, length, hidden = x.shape
        split = lambda t: t.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)
        q, k, v = (split(project(x)) for project in (self.query, self.key, self.value))
        # Spelled out: on CPUs, the fused attention takes several times as long on texts this short.
        scores = (q * (hidden // self.heads) ** -0.5) @ k.transpose(-1, -2)
        mixed = scores.masked_fill(~keep, float("-inf")).softmax(-1).to(v.dtype) @ v
        return mixed.transpose(1, 2).reshape(batch, length, hidden)


class AddAndNorm(nn.Module):
    """Project, drop out, add to the residual, normalise: the output half of both blocks of a layer."""

    def __init__(self, width, config):
        super().__init__()
        self.dense = nn.Linear(width, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])

    def forward(self, x, residual):
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": AddAndNorm(hidden, config)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, inner)})
        self.output = AddAndNorm(inner, config)

    def forward(self, x, keep):
        x = self.attention["output"](self.attention["self"](x, keep), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Analyst(nn.Module):
    """The encoder and its heads. `labels` maps a head's name to its number of labels."""

    def __init__(self, config, labels):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))})
        self.heads = nn.ModuleDict({name: nn.Linear(config["hidden_size"], count) for name, count in labels.items()})
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.apply(initialise)
        with torch.no_grad():
            # Few texts are long: a position that training hardly sees keeps a vector that still says where it is.
            self.embeddings.position_embeddings.weight.copy_(sinusoids(config["max_position_embeddings"], config["hidden_size"]))

    def hidden(self, ids, mask):
        """The last hidden state of every token; `mask` is True on real tokens."""
        x = self.embeddings(ids)
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None, :])
        return x

    def sequence(self, hidden, mask):
        """The mean of the last hidden states over the real tokens, [CLS] and [SEP] included."""
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def logits(self, head, x):
        return self.heads[head](self.dropout(x))


def initialise(module):
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def sinusoids(count, width, scale=0.04):
    position = torch.arange(count)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(count, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table * scale


def is_matrix(name):
    """Whether a tensor is one of the big matrices that are stored as Q8_0."""
    big = name == "embeddings.word_embeddings.weight" or name.startswith("encoder.")
    return big and name.endswith("weight") and "LayerNorm" not in name


def is_of_layer(name):
    """Whether its rows have one scale each: the engine multiplies them as whole numbers from end to end."""
    return name.startswith("encoder.")
