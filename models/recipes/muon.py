"""The optimizer of both models: Muon for the matrices of the layers, AdamW for embeddings, heads and norms."""

import torch

from common import half_precision

MUON_FACTOR = 2.5  # on the learning rate, over AdamW's
MOMENTUM = 0.95
# Of the iteration that makes all singular values about one: https://kellerjordan.github.io/posts/muon/
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


class MuonAndAdamW:
    """Both as one. Muon's steps are scaled to the size of AdamW's, so one learning rate (and one factor) serves both."""

    def __init__(self, model, learning_rate, weight_decay):
        inner = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layer" in name]
        outer = [p for name, p in model.named_parameters() if p.dim() > 1 and ".layer" not in name]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": outer, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.parts = [
            Muon(inner, learning_rate, weight_decay),
            torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-8),
        ]

    def step(self, learning_rate, map=map):
        """Take a step with the gradients, and clear them; a `map` of threads shares the matrices out."""
        muon, adamw = self.parts
        for part, factor in ((muon, MUON_FACTOR), (adamw, 1.0)):
            for group in part.param_groups:
                group["lr"] = learning_rate * factor
        muon.step(map)
        adamw.step()
        for part in self.parts:
            part.zero_grad()

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024, with steps of the size that AdamW's have (Liu et al. 2025, arXiv 2502.16982).

    PyTorch has it as well, but computes in bfloat16 on every processor; where there is nothing for that, a step of the optimizer takes
    longer than the gradients.
    """

    def __init__(self, matrices, lr, weight_decay):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, map=map):
        for group in self.param_groups:
            matrices, rate = group["params"], group["lr"]
            updates = map(orthogonal, [self.smoothed(matrix) for matrix in matrices])
            for matrix, update in zip(matrices, updates):
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.sub_(update, alpha=0.2 * max(matrix.shape) ** 0.5 * rate)

    def smoothed(self, matrix):
        """The gradient with those before it (Nesterov's momentum)."""
        state = self.state[matrix]
        if not state:
            state["mean"] = torch.zeros_like(matrix)
        state["mean"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(state["mean"], MOMENTUM)


@torch.no_grad()
def orthogonal(matrix):
    """The nearest matrix whose singular values are all one, about."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    with half_precision():
        for _ in range(ITERATIONS):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)
