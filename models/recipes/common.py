"""What both recipes share: reading the data folder, reproducible chance, batches and checkpoints."""

import functools
import gzip
import json
import math
import random
import re
import resource
import time
import zlib
from pathlib import Path

import numpy as np
import torch

RECIPES = Path(__file__).resolve().parent


def read_jsonl(path):
    """The records of a `.jsonl` or `.jsonl.gz` file."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_json(path, value):
    Path(path).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def normalised(text):
    """A text without case and punctuation: two texts with the same key count as the same text."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def held_out(text, share):
    """Whether a text of a set without official splits belongs to our validation part."""
    return zlib.crc32(normalised(text).encode()) % 1000 < 1000 * share


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def half_precision():
    """Products in bfloat16 where the processor is faster at them, which not every one is that knows them."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster())


@functools.cache
def bfloat16_is_faster():
    """Tried out: processors differ by factors, from ten times slower to four times faster."""
    left, right = torch.ones(1024, 256), torch.ones(256, 704)
    return best_time(left.bfloat16(), right.bfloat16()) < best_time(left, right)


def best_time(left, right, tries=20):
    times = []
    for _ in range(tries):
        since = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - since)
    return min(times)


def progress(step, steps, seconds, minutes):
    """How much of a run is done, from 0 to 1: by steps, or by time where `minutes` are given and are used up sooner."""
    return max(step / steps, seconds / (60 * minutes) if minutes else 0.0)


def warm_up_then_cosine(step, warm_up, done, floor=0.05):
    """The factor on the learning rate at a step, when `done` is the progress of the run."""
    rise = min(1.0, (step + 1) / warm_up)
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class AdamW:
    """AdamW that decays matrices and leaves norms and biases alone."""

    def __init__(self, model, learning_rate, weight_decay):
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.inner = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-8)
        self.state_dict, self.load_state_dict = self.inner.state_dict, self.inner.load_state_dict

    def step(self, learning_rate):
        """Take a step with the gradients, and clear them."""
        for group in self.inner.param_groups:
            group["lr"] = learning_rate
        self.inner.step()
        self.inner.zero_grad()


class LengthBatches:
    """An endless stream of batches of about equal token counts, texts of about equal length together.

    A shuffled pool of examples is cut into windows; each window is sorted by length and cut into batches, so padding is
    small while the order stays random. `refresh(rng)` makes the examples of the next pass, which is where augmentation lives.
    """

    def __init__(self, refresh, length, tokens_per_batch, rng, window=2048):
        self.refresh, self.length, self.tokens, self.rng, self.window = refresh, length, tokens_per_batch, rng, window
        self.pending, self.passes = [], 0

    def next(self):
        if not self.pending:
            self.pending = self.one_pass()
            self.passes += 1
        return self.pending.pop()

    def one_pass(self):
        examples = self.refresh(self.rng)
        self.rng.shuffle(examples)
        batches = []
        for start in range(0, len(examples), self.window):
            batch, widest = [], 0
            for example in sorted(examples[start : start + self.window], key=self.length):
                widest = max(widest, self.length(example))
                if batch and widest * (len(batch) + 1) > self.tokens:
                    batches.append(batch)
                    batch, widest = [], self.length(example)
                batch.append(example)
            batches.append(batch)
        self.rng.shuffle(batches)
        return batches


class Checkpoint:
    """Model, optimizer, step and trained seconds in one file, replaced atomically so that a killed run can go on."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def save(self, step, seconds, model, optimizer):
        state = {"step": step, "seconds": seconds, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        temporary = self.path.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def load(self, model, optimizer=None):
        """The step to go on from and the seconds trained so far; (0, 0.0) when there is no checkpoint yet."""
        if not self.path.exists():
            return 0, 0.0
        state = torch.load(self.path, weights_only=True)
        model.load_state_dict(state["model"])
        if optimizer:
            optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["seconds"]


class Log:
    """Running means of named losses, printed every `every` steps with the speed (what `count` counted, a second) and the most memory so far."""

    def __init__(self, every):
        self.every, self.sums, self.counts = every, {}, {}
        self.count, self.since = 0, time.time()

    def add(self, name, loss, count):
        self.sums[name] = self.sums.get(name, 0.0) + loss
        self.counts[name] = self.counts.get(name, 0) + 1
        self.count += count

    def print_at(self, step, steps):
        if step % self.every:
            return
        means = " ".join(f"{name} {self.sums[name] / self.counts[name]:.3f}" for name in sorted(self.sums))
        speed = self.count / (time.time() - self.since)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts KiB
        print(f"step {step}/{steps}: {means} ({speed:.0f}/s, {memory:.1f} GB)", flush=True)
        self.__init__(self.every)
