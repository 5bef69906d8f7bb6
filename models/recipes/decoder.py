"""A Llama-family decoder in plain PyTorch, with the Hugging Face names of `LlamaForCausalLM` in its `state_dict()`.

RMSNorm, rotary positions (rotate-half), grouped-query attention, SwiGLU, tied input and output embeddings, no biases.
"""

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, self.width = config["hidden_size"], config["head_dim"]
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * self.width, bias=False)
        self.k_proj = nn.Linear(hidden, self.groups * self.width, bias=False)
        self.v_proj = nn.Linear(hidden, self.groups * self.width, bias=False)
        self.o_proj = nn.Linear(self.heads * self.width, hidden, bias=False)

    def forward(self, x, cos, sin, mix, cache):
        batch, length, _ = x.shape
        split = lambda t, heads: t.view(batch, length, heads, self.width).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.heads), cos, sin)
        k = rotate(split(self.k_proj(x), self.groups), cos, sin)
        v = split(self.v_proj(x), self.groups)
        if cache is not None:
            k, v = cache[:] = [torch.cat([past, new], dim=2) for past, new in zip(cache, (k, v))] if cache else [k, v]
        # Query head h reads key/value head h / (heads / groups).
        k, v = (t.repeat_interleave(self.heads // self.groups, dim=1) for t in (k, v))
        mixed = mix(q * self.width**-0.5, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp = Mlp(config)

    def forward(self, x, cos, sin, mix, cache):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mix, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])


class Responder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = Trunk(config)
        self.theta, self.width = config["rope_theta"], config["head_dim"]
        # The residual stream grows with depth; its writers start smaller for it.
        scale = (2 * config["num_hidden_layers"]) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                written = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.04 * (scale if written else 1.0))

    def hidden(self, ids, start=0, caches=None, positions=None, mix=None):
        """The normalised last hidden states. Rows padded on the right need no mask: attention only looks back.

        With `caches` (one list a layer, empty at first), `ids` go on from position `start`: all of a prompt first, then one by one.
        Rows in which continuations of one prompt stand side by side bring the `positions` of their tokens and the attention that
        `mix`es their values.
        """
        length = ids.shape[1]
        cos, sin = (table[start:] for table in rotary_table(start + length, self.width, self.theta))
        if positions is not None:
            cos, sin = (table[positions].unsqueeze(1) for table in (cos, sin))
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mix or look_back, caches[i] if caches else None)
        return self.model.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)


def look_back(q, k, v):
    """Causal attention; one query sees all keys. Spelled out: on CPUs, the gradient of the fused attention takes longer than all of this."""
    scores = q @ k.transpose(-1, -2)
    if q.shape[2] > 1:
        scores = scores + causal_mask(q.shape[2]).to(scores.dtype)
    return scores.softmax(-1).to(v.dtype) @ v


def causal_mask(length):
    """What is added to scores: nothing for positions up to one's own, minus infinity for later ones."""
    return torch.full((length, length), float("-inf")).triu(1)


def rotary_table(length, width, theta):
    rates = theta ** (-torch.arange(0, width, 2).float() / width)
    angles = torch.arange(length).float()[:, None] * rates
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Rotary positions in the rotate-half convention: element i pairs with element i + width / 2."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def is_matrix(name):
    """Whether a tensor is one of the big matrices that are stored as Q8_0."""
    return "norm" not in name


@torch.no_grad()
def greedy(model, prompt, end_id, limit):
    """The greedy continuation of a prompt (both lists of ids) without the end token, and whether it ended by itself."""
    caches, new, out = [[] for _ in model.model.layers], prompt, []
    for _ in range(limit):
        hidden = model.hidden(torch.tensor([new]), len(prompt) + len(out) - len(new), caches)
        token = model.logits(hidden[0, -1]).argmax().item()
        if token == end_id:
            return out, True
        out.append(token)
        new = [token]
    return out, False
