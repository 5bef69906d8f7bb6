"""What one step of training computes: batches of two tokenizers, and the losses of the three stages."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from analyst_data import UNDECIDED

OUTLIER_WEIGHT = 0.5
OUTSIDE_WEIGHT = 0.5  # of the tag O, which nine words in ten have: without it the head finds few names
TEMPERATURE = 2.0  # softens the teacher's logits, so that its second and third choices are learned, too
LIMIT = 128  # tokens of a training text
IGNORED = -100


@dataclass
class Example:
    """A text as token ids, with the position of each word's first piece, once for each tokenizer; and what is known of it."""

    task: str  # "intent", "sentiment", "entities" or "general"
    ids: list
    words: list
    teacher_ids: list
    teacher_words: list
    target: object  # a label's index (-1: an outlier), a tag's index for each word, or None


def encode(tokenizer, text):
    """(ids, positions of first pieces, offsets of those pieces)."""
    encoding = tokenizer.encode(text)
    ids, firsts, previous = encoding.ids[:LIMIT], [], None
    for at, word in enumerate(encoding.word_ids[:LIMIT]):
        if word is not None and word != previous:
            firsts.append(at)
        previous = word
    return ids, firsts, [encoding.offsets[at][0] for at in firsts]


def make_example(task, text, target, student_tokenizer, teacher_tokenizer):
    """An example; for entities `target` gives the tag of the word that starts at an offset of the text."""
    ids, words, starts = encode(student_tokenizer, text)
    teacher_ids, teacher_words, _ = encode(teacher_tokenizer, text)
    # Both split at the same white space and punctuation, so word i is word i; a rare text where they differ lends no words.
    both = min(len(words), len(teacher_words))
    if task == "entities":
        target = [target(start) for start in starts]
    elif len(words) != len(teacher_words) and max(len(ids), len(teacher_ids)) < LIMIT:
        both = 0
    return Example(task, ids, words[:both], teacher_ids, teacher_words[:both], target[:both] if task == "entities" else target)


def tag_at(tokens, tags, index):
    """The tag of the word at an offset of the joined tokens; a token of several words goes on inside its name."""
    starts, at = {}, 0
    for token, tag in zip(tokens, tags):
        for offset in range(len(token)):
            starts[at + offset] = tag if offset == 0 else tag.replace("B-", "I-")
        at += len(token) + 1

    def lookup(start):
        tag = starts.get(start, "O")
        return IGNORED if tag == UNDECIDED else index[tag]

    return lookup


@dataclass
class Side:
    """One tokenizer's view of a batch: padded ids, the mask of real tokens, flat positions of the words' first pieces."""

    ids: torch.Tensor
    mask: torch.Tensor
    words: torch.Tensor


def side(rows, words):
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), True
    return Side(ids, mask, torch.tensor([i * width + at for i, firsts in enumerate(words) for at in firsts]))


def student_side(batch):
    return side([e.ids for e in batch], [e.words for e in batch])


def teacher_side(batch):
    return side([e.teacher_ids for e in batch], [e.teacher_words for e in batch])


class Student(nn.Module):
    """The analyst and the two maps that compare its vectors with a wider teacher's; only the analyst is kept."""

    def __init__(self, network, width, teacher_width):
        super().__init__()
        self.network = network
        self.to_sequence = nn.Linear(width, teacher_width)
        self.to_word = nn.Linear(width, teacher_width)


def forward(network, view):
    """(vectors, word vectors, logits of the three heads), after dropout where the network is in training."""
    hidden = network.hidden(view.ids, view.mask)
    vectors, words = network.sequence(hidden, view.mask), hidden.flatten(0, 1)[view.words]
    logits = {task: network.logits(task, vectors).float() for task in ("intent", "sentiment")}
    return vectors.float(), words.float(), logits | {"tags": network.logits("entities", words).float()}


def label_loss(task, logits, batch):
    """Cross-entropy with the labels of the data; outliers are pulled towards the uniform distribution (outlier exposure)."""
    if task == "entities":
        weights = torch.ones(logits["tags"].shape[-1])
        weights[0] = OUTSIDE_WEIGHT
        return F.cross_entropy(logits["tags"], torch.tensor([t for e in batch for t in e.target]), weights, ignore_index=IGNORED)
    targets = torch.tensor([e.target for e in batch])
    log_p = F.log_softmax(logits[task], -1)
    loss = F.nll_loss(log_p, targets.clamp(min=0), reduction="none")
    return torch.where(targets < 0, -OUTLIER_WEIGHT * log_p.mean(-1), loss).mean()


def likeness_loss(student, vectors, words, teacher):
    """One minus the cosine between the student's mapped vectors and the teacher's, of whole texts and of words."""
    texts = 1 - F.cosine_similarity(student.to_sequence(vectors), teacher["vectors"]).mean()
    if not len(words):
        return texts
    return texts + 1 - F.cosine_similarity(student.to_word(words), teacher["words"]).mean()


def imitation_loss(logits, teacher):
    """The divergence from the teacher's softened probabilities (Hinton et al. 2015), summed over the three heads."""
    total = 0.0
    for name, mine in logits.items():
        if len(mine):
            soft = F.softmax(teacher[name] / TEMPERATURE, -1)
            total = total + F.kl_div(F.log_softmax(mine / TEMPERATURE, -1), soft, reduction="batchmean") * TEMPERATURE**2
    return total
