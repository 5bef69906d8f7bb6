"""The optimizer of both models: Muon for the matrices of the layers, AdamW for embeddings, heads and norms."""

import torch

MUON_FACTOR = 2.5  # on the learning rate, over AdamW's


class MuonAndAdamW:
    """Both as one. Muon's steps are scaled to the size of AdamW's, so one learning rate (and one factor) serves both."""

    def __init__(self, model, learning_rate, weight_decay):
        inner = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layer" in name]
        outer = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layer" not in name]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": outer, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.parts = [
            torch.optim.Muon(inner, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-8),
        ]

    def step(self, learning_rate):
        """Take a step with the gradients, and clear them."""
        for part, factor in zip(self.parts, (MUON_FACTOR, 1.0)):
            for group in part.param_groups:
                group["lr"] = learning_rate * factor
            part.step()
            part.zero_grad()

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)
