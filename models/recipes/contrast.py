"""Which answer belongs to which question: the losses of several answers to each of several questions.

All answers stand side by side behind a question's prompt in one row. Each sees the prompt and itself, at the positions that it
would have alone, so the prompt is computed once.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

FIRST_PART = 0.2  # of a run
# How sure a difference of one in the mean loss of a token makes the choice: the less it does, the wider apart the losses are driven.
FIRST_SHARPNESS, SHARPNESS = 6.0, 0.7


@dataclass
class Placed:
    """Rows of a prompt with candidate answers, and for each token of an answer where it is predicted."""

    ids: torch.Tensor  # [questions, width]
    positions: torch.Tensor  # [questions, width]
    mask: torch.Tensor  # [questions, 1, width, width], additive
    rows: torch.Tensor  # of each answer token: its row,
    sources: torch.Tensor  # the place whose output predicts it,
    targets: torch.Tensor  # its id,
    owners: torch.Tensor  # and question * answers + answer
    lengths: torch.Tensor  # tokens of each answer


def place_side_by_side(prompts, answers):
    """Every answer behind every prompt; prompts and answers are lists of ids."""
    return place(prompts, [answers] * len(prompts))


def place(prompts, candidates):
    """`candidates[i]` behind `prompts[i]`; all questions have equally many."""
    width = max(len(prompt) + sum(map(len, answers)) for prompt, answers in zip(prompts, candidates))
    ids, positions, segments = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(3))
    rows, sources, targets, owners = [], [], [], []
    for row, (prompt, answers) in enumerate(zip(prompts, candidates)):
        at = len(prompt)
        ids[row, :at] = torch.tensor(prompt)
        positions[row, :at] = torch.arange(at)
        segments[row, at:] = -1
        for j, answer in enumerate(answers):
            end = at + len(answer)
            ids[row, at:end] = torch.tensor(answer)
            positions[row, at:end] = torch.arange(len(prompt), len(prompt) + len(answer))
            segments[row, at:end] = j + 1
            rows += [row] * len(answer)
            sources += [len(prompt) - 1, *range(at, end - 1)]
            targets += answer
            owners += [row * len(answers) + j] * len(answer)
            at = end
    own, other = segments[:, :, None], segments[:, None, :]
    seen = ((other == 0) | (other == own)) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf")).unsqueeze(1)
    lengths = torch.tensor([[len(answer) for answer in answers] for answers in candidates])
    return Placed(ids, positions, mask, *map(torch.tensor, (rows, sources, targets, owners)), lengths)


def candidate_losses(model, placed):
    """[questions, answers]: the mean loss of an answer's tokens behind that question."""
    hidden = model.hidden(placed.ids, positions=placed.positions, mask=placed.mask)
    losses = F.cross_entropy(model.logits(hidden[placed.rows, placed.sources]).float(), placed.targets, reduction="none")
    sums = torch.zeros(placed.lengths.numel()).index_add(0, placed.owners, losses)
    return sums.view(placed.lengths.shape) / placed.lengths


def contrast_loss(losses, done):
    """InfoNCE both ways, for answers whose questions stand in the same order: the question of an answer, the answer of a question.

    Some answers are likelier than others behind any question, which is no matter of the question: each answer's mean over the
    questions is taken off.
    """
    sharpness = FIRST_SHARPNESS if done < FIRST_PART else SHARPNESS
    own, answers = torch.arange(len(losses)), losses - losses.mean(0).detach()
    return (F.cross_entropy(-sharpness * losses.T, own) + F.cross_entropy(-sharpness * answers, own)) / (2 * sharpness)
