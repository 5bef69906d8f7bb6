"""What the teachers say of each text, asked once: the analyst then learns from memory, and a step costs what the analyst costs."""

import time

import torch

from common import LengthBatches
from distillation import Batch, teacher_side

ASKED_AT_ONCE = 4096  # tokens


class Lessons:
    """A pool of examples of one task in flat tensors, with the teachers' outputs for each text and each of its words."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.id_starts = starts(tensors["id_counts"])
        self.word_starts = starts(tensors["word_counts"])
        self.lengths = tensors["id_counts"].tolist()

    @classmethod
    def ask(cls, examples, original=None, tuned=None, known=None, sort=True):
        """Ask the public encoder as it comes (`original`), the fine-tuned one (`tuned`), or both; what is `known` of the same examples is kept."""
        if sort:
            examples = sorted(examples, key=lambda e: len(e.teacher_ids))
        parts, since = {}, time.time()
        keep = lambda name, tensor: parts.setdefault(name, []).append(tensor.half())
        for batch in in_turn(examples):
            view = teacher_side(batch)
            if original:
                said = original.outputs(view.ids, view.mask, view.words)
                keep("vectors", said["vectors"])
                keep("word_vectors", said["words"])
            if tuned:
                said = tuned.outputs(view.ids, view.mask, view.words)
                for name in ("intent", "sentiment", "tags"):
                    keep(name, said[name])
        flat = lambda rows, kind: torch.tensor([value for row in rows for value in row], dtype=kind)
        tensors = (known.tensors if known else {}) | {name: torch.cat(tensors) for name, tensors in parts.items()}
        tensors |= {
            "ids": flat((e.ids for e in examples), torch.int32),
            "id_counts": torch.tensor([len(e.ids) for e in examples]),
            "words": flat((e.words for e in examples), torch.int16),
            "word_counts": torch.tensor([len(e.words) for e in examples]),
        }
        if isinstance(examples[0].target, list):
            tensors["target"] = flat((e.target for e in examples), torch.int64)
        elif examples[0].target is not None:
            tensors["target"] = torch.tensor([e.target for e in examples])
        print(f"{examples[0].task}: {len(examples)} texts asked in {time.time() - since:.0f} s", flush=True)
        return cls(tensors)

    def mix(self, polarity):
        """Where the public encoder's own vectors are known: the mean of the fine-tuned one's sentiment and that of another head on them."""
        if "vectors" in self.tensors:
            own, other = self.tensors["sentiment"].float(), polarity(self.tensors["vectors"].float())
            self.tensors["sentiment"] = (own.softmax(-1) + other.softmax(-1)).div(2).log().half()
        return self

    def batches(self, tokens_per_batch, rng):
        """An endless stream of batches, as `LengthBatches` makes them."""
        return LengthBatches(lambda _: list(range(len(self.lengths))), self.lengths.__getitem__, tokens_per_batch, rng)

    def batch(self, chosen):
        """The texts of these numbers, padded, with all that is known of them."""
        t, rows = self.tensors, torch.tensor(chosen)
        counts, word_counts = t["id_counts"][rows], t["word_counts"][rows]
        mask = torch.arange(int(counts.max())) < counts[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = t["ids"][ranges(self.id_starts[rows], counts)].long()
        words = ranges(self.word_starts[rows], word_counts)
        row_of_word = torch.repeat_interleave(torch.arange(len(rows)), word_counts)
        of_texts = {name: t[name][rows].float() for name in ("vectors", "intent", "sentiment") if name in t}
        of_words = {name: t[name][words].float() for name in ("word_vectors", "tags") if name in t}
        target = t.get("target")
        if target is not None:
            target = target[rows if len(target) == len(self.lengths) else words]
        return Batch(ids, mask, row_of_word * mask.shape[1] + t["words"][words].long(), target, of_texts | of_words)


def starts(counts):
    return counts.cumsum(0) - counts


def ranges(firsts, counts):
    """The numbers firsts[i] … firsts[i] + counts[i] - 1 for each i, in one row."""
    offsets = torch.arange(int(counts.sum())) - torch.repeat_interleave(starts(counts), counts)
    return torch.repeat_interleave(firsts, counts) + offsets


def in_turn(examples):
    """Examples in their order, cut into batches."""
    batch, widest = [], 0
    for example in examples:
        widest = max(widest, len(example.teacher_ids))
        if batch and widest * (len(batch) + 1) > ASKED_AT_ONCE:
            yield batch
            batch, widest = [], len(example.teacher_ids)
        batch.append(example)
    yield batch
