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
class Batch:
    """Padded ids, the mask of real tokens, flat positions of the words' first pieces; what the data and the teachers say of them."""

    ids: torch.Tensor
    mask: torch.Tensor
    words: torch.Tensor
    target: torch.Tensor = None  # of each text, or of each word
    taught: dict = None


def teacher_side(batch):
    """Examples as the teacher's tokenizer sees them."""
    rows = [e.teacher_ids for e in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    words = torch.tensor([i * width + at for i, e in enumerate(batch) for at in e.teacher_words], dtype=torch.long)
    known = [target for e in batch for target in (e.target if isinstance(e.target, list) else [e.target])]
    return Batch(ids, mask, words, torch.tensor(known) if known[0] is not None else None)


class Student(nn.Module):
    """The analyst and the maps that compare its vectors with a wider teacher's; only the analyst is kept."""

    def __init__(self, network, width, teacher_width):
        super().__init__()
        self.network = network
        self.to_sequence, self.to_word, self.to_entry = (nn.Linear(width, teacher_width) for _ in range(3))


def forward(network, view):
    """(vectors, word vectors, logits of the three heads), after dropout where the network is in training."""
    hidden = network.hidden(view.ids, view.mask)
    vectors, words = network.sequence(hidden, view.mask), hidden.flatten(0, 1)[view.words]
    logits = {task: network.logits(task, vectors).float() for task in ("intent", "sentiment")}
    return vectors.float(), words.float(), logits | {"tags": network.logits("entities", words).float()}


def label_loss(task, logits, target):
    """Cross-entropy with the labels of the data; outliers are pulled towards the uniform distribution (outlier exposure)."""
    if task == "entities":
        weights = torch.ones(logits["tags"].shape[-1])
        weights[0] = OUTSIDE_WEIGHT
        return F.cross_entropy(logits["tags"], target, weights, ignore_index=IGNORED)
    log_p = F.log_softmax(logits[task], -1)
    loss = F.nll_loss(log_p, target.clamp(min=0), reduction="none")
    return torch.where(target < 0, -OUTLIER_WEIGHT * log_p.mean(-1), loss).mean()


def likeness_loss(student, vectors, words, taught):
    """One minus the cosine between the student's mapped vectors and the teacher's, of whole texts and of words."""
    texts = 1 - F.cosine_similarity(student.to_sequence(vectors), taught["vectors"]).mean()
    if not len(words):
        return texts
    return texts + 1 - F.cosine_similarity(student.to_word(words), taught["word_vectors"]).mean()


def imitation_loss(logits, taught):
    """The divergence from the teacher's softened probabilities (Hinton et al. 2015), summed over the three heads."""
    total = 0.0
    for name, mine in logits.items():
        if len(mine):
            soft = F.softmax(taught[name] / TEMPERATURE, -1)
            total = total + F.kl_div(F.log_softmax(mine / TEMPERATURE, -1), soft, reduction="batchmean") * TEMPERATURE**2
    return total
