"""Contestants in processes of their own, measured in turns on a quiet machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import workshop

TICK = 1 / os.sysconf("SC_CLK_TCK")
# What other processes may take, in cores, and how long it is watched.
QUIET = 0.1
WATCHED_SECONDS = 0.6
# A number of threads with which an engine is so many times slower than with another is left out after the warm-up.
HOPELESS = 1.33

Task = dict[str, Any]


@dataclass
class Run:
    task: Task
    result: dict[str, Any]
    # Cores that other processes used meanwhile, what the hypervisor took included.
    others: float
    # Whether they let the machine be before.
    was_quiet: bool
    # False for a warm-up.
    counts: bool = True

    @property
    def seconds(self) -> float:
        return float(self.result["seconds"])

    @property
    def speed(self) -> float:
        """Tokens, texts or models a second."""
        if self.task["do"] == "decode":
            return float(self.task["streams"] * self.result["steps"] / self.seconds)
        if self.task["do"] == "prompt":
            return float(self.task["tokens"] / self.seconds)
        return float(self.task.get("texts", 1) / self.seconds)

    @property
    def disturbed(self) -> bool:
        return not self.was_quiet or self.others > QUIET


@dataclass(frozen=True)
class Side:
    """Who is measured: an engine with so many threads."""

    engine: str
    threads: int

    def __str__(self) -> str:
        return f"{self.engine}, {self.threads} thread{'s' if self.threads > 1 else ''}"


# What most rows are about.
OURS = Side("antiphon", 2)


@dataclass
class Settings:
    rounds: int
    patience_seconds: float


class Contestant:
    """A process that has a model open and answers tasks."""

    def __init__(self, side: Side, model: Path, streams: int = 1) -> None:
        words, environment = workshop.command(side.engine, model, side.threads, streams)
        self.side = side
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, task: Task) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.side} ended in {task}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measured(self, task: Task, settings: Settings, beside: subprocess.Popen[bytes] | None = None) -> Run:
        """Asks on a quiet machine; what is run `beside` on purpose is no disturbance."""
        was_quiet = beside is not None or wait_until_quiet(settings.patience_seconds)
        ours = [os.getpid(), self.process.pid, *([beside.pid] if beside else [])]
        begun, busy, own = time.monotonic(), busy_seconds(), sum(map(used_seconds, ours))
        result = self.ask(task)
        passed = time.monotonic() - begun
        others = busy_seconds() - busy - (sum(map(used_seconds, ours)) - own)
        return Run(task, result, max(0.0, others / passed), was_quiet)


@dataclass
class Figures:
    # Every run of every side, by the work.
    runs: dict[str, dict[Side, list[Run]]] = field(default_factory=dict)
    # What is measured once or twice, or does not depend on the moment.
    single: dict[str, float] = field(default_factory=dict)

    def add(self, work: str, side: Side, run: Run) -> None:
        self.runs.setdefault(work, {}).setdefault(side, []).append(run)

    def keep_best(self, name: str, value: float | None) -> None:
        self.single[name] = max(value or 0.0, self.single.get(name, 0.0))

    def counted(self, work: str, side: Side) -> list[Run]:
        return [run for run in self.runs[work][side] if run.counts]


def compete(
    figures: Figures, work: str, task: Task, contestants: list[Contestant], settings: Settings, all_threads: bool = False
) -> None:
    """A warm-up of all, then rounds in which each has a turn. Peers that are hopeless with one of their numbers of threads
    have no more than the warm-up with it, unless all numbers are shown in rows of their own."""
    said(work)
    for contestant in contestants:
        run = contestant.measured(task, settings)
        run.counts = False
        figures.add(work, contestant.side, run)
    warm = {contestant.side: figures.runs[work][contestant.side][0].speed for contestant in contestants}

    def goes_on(side: Side) -> bool:
        best = max(speed for other, speed in warm.items() if other.engine == side.engine)
        return all_threads or side == OURS or warm[side] * HOPELESS > best

    going_on = [contestant for contestant in contestants if goes_on(contestant.side)]
    for _ in range(settings.rounds):
        for contestant in going_on:
            figures.add(work, contestant.side, contestant.measured(task, settings))


def said(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def wait_until_quiet(patience_seconds: float) -> bool:
    """Whether other processes let the machine be before patience ended. Contestants count as others: they have to be idle."""
    give_up = time.monotonic() + patience_seconds
    while True:
        busy, own = busy_seconds(), used_seconds(os.getpid())
        time.sleep(WATCHED_SECONDS)
        others = busy_seconds() - busy - (used_seconds(os.getpid()) - own)
        if others / WATCHED_SECONDS <= QUIET:
            return True
        if time.monotonic() > give_up:
            return False


def busy_seconds() -> float:
    """Seconds that all cores together were not idle, what the hypervisor took for others included."""
    fields = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = fields
    return (user + nice + system + interrupts + soft_interrupts + stolen) * TICK


def used_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK
