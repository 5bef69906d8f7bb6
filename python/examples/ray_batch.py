"""Analyses a file line by line on a Ray cluster: each actor holds an engine of its own.

    python ray_batch.py messages.txt analyses.jsonl --actors 2

The output has a line for every line of the input, in the same order: its analysis, or `{"error": …}` where a line cannot
be analysed. It appears under its name when it is whole. An actor whose process is killed is started anew, and what it was
working on is done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ray
from antiphon import AntiphonError, Engine

# A killed process is seldom the fault of its batch, so the batch is tried again: not for ever, as it may be. An
# exception is not tried again.
RESTARTS = {"max_restarts": -1, "max_task_retries": 3}

# Batches that an actor has ready while it works: it never waits for the driver, and memory stays bounded.
AHEAD = 2


class Analyst:
    """An engine in a process of Ray's. One thread each: the actors are the parallelism."""

    def __init__(self) -> None:
        self.engine = Engine(threads=1, responder=None)

    def analyze(self, lines: list[str]) -> list[str]:
        """A line of JSON for each line."""
        try:
            return [dump(analysis.to_dict()) for analysis in self.engine.analyze_batch(lines)]
        except ValueError:
            # One bad line fails the batch, so its lines are asked one by one.
            return [self.analyze_one(line) for line in lines]

    def analyze_one(self, line: str) -> str:
        try:
            return dump(self.engine.analyze(line).to_dict())
        except ValueError as error:
            if not isinstance(error, AntiphonError):
                raise
            return dump({"error": {"kind": error.kind, "message": error.message}})


def dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def batches(file: BinaryIO, size: int) -> Iterator[list[str]]:
    # Only "\n" ends a line: Python knows others, which can be inside a message.
    lines = (line.decode(errors="replace").rstrip("\r\n") for line in file)
    while batch := list(itertools.islice(lines, size)):
        yield batch


def analyses(source: BinaryIO, actors: int, size: int) -> Iterator[list[str]]:
    """The results of batch after batch. The oldest is waited for while the others are worked on."""
    remote: Any = ray.remote(Analyst).options(num_cpus=1, **RESTARTS)
    workers: Iterator[Any] = itertools.cycle([remote.remote() for _ in range(actors)])
    running: deque[ray.ObjectRef[list[str]]] = deque()
    for batch in batches(source, size):
        running.append(next(workers).analyze.remote(batch))
        if len(running) >= actors * AHEAD:
            yield ray.get(running.popleft())
    while running:
        yield ray.get(running.popleft())


class Progress:
    """A bar on stderr, by bytes: nobody has to count the lines first."""

    def __init__(self, total_bytes: int) -> None:
        self.total = total_bytes
        self.started = time.monotonic()
        self.lines = 0

    def show(self, lines: int, position: int) -> None:
        self.lines += lines
        share = min(position / self.total, 1) if self.total else 1
        speed = self.lines / (time.monotonic() - self.started)
        bar = "#" * int(share * 40)
        sys.stderr.write(f"\r[{bar:<40}] {share:4.0%}  {self.lines} lines  {speed:.0f} lines/s")
        sys.stderr.flush()

    def finish(self) -> None:
        self.show(0, self.total)
        sys.stderr.write("\n")


def run(source: Path, target: Path, actors: int, size: int) -> None:
    progress = Progress(source.stat().st_size)
    partial = target.with_name(target.name + ".partial")
    with source.open("rb") as lines, partial.open("w", encoding="utf-8") as out:
        for batch in analyses(lines, actors, size):
            out.writelines(line + "\n" for line in batch)
            progress.show(len(batch), lines.tell())
    os.replace(partial, target)
    progress.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a text file, UTF-8, one message a line")
    parser.add_argument("target", type=Path, help="where the analyses go, JSON lines")
    parser.add_argument("--actors", type=int, default=os.cpu_count() or 1, help="engines that work at once")
    parser.add_argument("--batch", type=int, default=256, help="lines that an actor gets at once")
    parser.add_argument("--address", help="a cluster that runs, such as `auto`; by default one is started here")
    arguments = parser.parse_args()
    if arguments.address:
        ray.init(address=arguments.address, log_to_driver=False)
    else:
        ray.init(num_cpus=arguments.actors, include_dashboard=False, log_to_driver=False)
    run(arguments.source, arguments.target, arguments.actors, arguments.batch)


if __name__ == "__main__":
    main()
