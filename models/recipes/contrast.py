"""Which answer belongs to which question: the losses of several answers to each of several questions.

All answers stand side by side behind a question's prompt in one row. Each sees the prompt and itself, at the positions that it
would have alone, so the prompt is computed once.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from decoder import causal_mask

FIRST_PART = 0.2  # of a run
# How sure a difference of one in the mean loss of a token makes the choice: the less it does, the wider apart the losses are driven.
FIRST_SHARPNESS, SHARPNESS = 6.0, 0.7


@dataclass
class Placed:
    """Rows of a prompt with candidate answers, and for each token of an answer where it is predicted."""

    ids: torch.Tensor  # [questions, prompt + answers * answer], both padded on the right
    positions: torch.Tensor  # of the same shape
    unseen: torch.Tensor  # [questions, 1, 1, prompt], additive: padding of a prompt
    prompt: int  # tokens of the longest prompt,
    answer: int  # and of the longest answer
    rows: torch.Tensor  # of each answer token: its row,
    sources: torch.Tensor  # the place whose output predicts it,
    targets: torch.Tensor  # its id,
    owners: torch.Tensor  # and question * answers + answer
    lengths: torch.Tensor  # tokens of each answer

    def mix(self, q, k, v):
        """Attention of prompts to themselves, and of each answer to its prompt and itself; [questions, heads, width, head]."""
        apart = lambda t: t[:, :, self.prompt :].unflatten(2, (-1, self.answer))
        keys, values = k[:, :, : self.prompt], v[:, :, : self.prompt]
        prompts = (q[:, :, : self.prompt] @ keys.transpose(-1, -2) + causal_mask(self.prompt)).softmax(-1) @ values
        to_prompt = (q[:, :, self.prompt :] @ keys.transpose(-1, -2) + self.unseen).unflatten(2, (-1, self.answer))
        to_itself = apart(q) @ apart(k).transpose(-1, -2) + causal_mask(self.answer)
        weights = torch.cat([to_prompt, to_itself], -1).softmax(-1).to(v.dtype)
        answers = weights[..., : self.prompt].flatten(2, 3) @ values + (weights[..., self.prompt :] @ apart(v)).flatten(2, 3)
        return torch.cat([prompts.to(v.dtype), answers], 2)


def place_side_by_side(prompts, answers):
    """Every answer behind every prompt; prompts and answers are lists of ids."""
    return place(prompts, [answers] * len(prompts))


def place(prompts, candidates):
    """`candidates[i]` behind `prompts[i]`; all questions have equally many."""
    prompt, answer = max(map(len, prompts)), max(len(answer) for answers in candidates for answer in answers)
    width = prompt + len(candidates[0]) * answer
    ids, positions = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(2))
    unseen = torch.zeros(len(prompts), 1, 1, prompt)
    rows, sources, targets, owners = [], [], [], []
    for row, (question, answers) in enumerate(zip(prompts, candidates)):
        ids[row, : len(question)] = torch.tensor(question)
        positions[row, : len(question)] = torch.arange(len(question))
        unseen[row, ..., len(question) :] = float("-inf")
        for j, ids_of_answer in enumerate(answers):
            at, length = prompt + j * answer, len(ids_of_answer)
            ids[row, at : at + length] = torch.tensor(ids_of_answer)
            positions[row, at : at + length] = torch.arange(len(question), len(question) + length)
            rows += [row] * length
            sources += [len(question) - 1, *range(at, at + length - 1)]
            targets += ids_of_answer
            owners += [row * len(answers) + j] * length
    lengths = torch.tensor([[len(answer) for answer in answers] for answers in candidates])
    return Placed(ids, positions, unseen, prompt, answer, *map(torch.tensor, (rows, sources, targets, owners)), lengths)


def candidate_losses(model, placed):
    """[questions, answers]: the mean loss of an answer's tokens behind that question."""
    hidden = model.hidden(placed.ids, positions=placed.positions, mix=placed.mix)
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
