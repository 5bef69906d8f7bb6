"""Close the way by which wrong answers lose their likelihood.

The contrast lowers what is said of wrong answers, and what they lose is not spread: it goes to tokens that are seldom or never written,
whose rows share a direction with the hidden states of wrong answers. Where an answer breaks down, such a token would be written,
and again and again. So that direction is taken out of these rows; another token takes its place if only its row is set to nothing.
"""

import random
from collections import Counter

import torch
from torch.nn import functional as F

PASSES = 4  # of examples, in which tokens are counted
SELDOM = 25  # times a pass in answers
PROBES, SUNK = 40, 0.3  # contrasts that are looked at; where so much of the likelihood is with tokens that are seldom written, an answer has broken down


def count_tokens(data, tokenizer, seed):
    """How often examples have each id: in all, and in answers."""
    seen, written = Counter(), Counter()
    for number in range(PASSES):
        for messages, _ in data.training(random.Random(f"{seed} seen {number}")):
            for message in messages:
                ids = tokenizer.encode(message["content"]).ids
                seen.update(ids)
                if message["role"] == "assistant":
                    written.update(ids)
    return [torch.tensor([counter[id] for id in range(tokenizer.get_vocab_size())]) for counter in (seen, written)]


@torch.no_grad()
def close_sink(model, seen, written, first, draw):
    """Of the ids from `first` on, rows that nothing was learned of become nothing, and those of ids that are seldom written lose what they share
    with the states of wrong answers. `draw()` gives questions that are alike, with their answers, as ids. Returns how many rows of each."""
    rows, ids = model.model.embed_tokens.weight, torch.arange(len(seen))
    never, seldom = (ids >= first) & (seen == 0), (ids >= first) & (written <= SELDOM * PASSES)
    rows[never] = 0
    states = torch.cat([wrong_states(model, draw()) for _ in range(PROBES)])
    sunk = states[model.logits(states).softmax(-1)[:, seldom].sum(1) > SUNK]
    if len(sunk):  # after a short run there may be none
        direction = F.normalize(sunk.mean(0), dim=0)
        rows[seldom] -= (rows[seldom] @ direction).clamp(min=0)[:, None] * direction
    return int(never.sum()), int(seldom.sum())


def wrong_states(model, pairs):
    """The hidden states that predict each question's tokens of an answer to another."""
    states = []
    for number, (question, _) in enumerate(pairs):
        answer = pairs[(number + 1) % len(pairs)][1]
        states.append(model.hidden(torch.tensor([question + answer]))[0, len(question) - 1 : -1])
    return torch.cat(states)
