"""Starts the AI service for a measurement, on a port that the system chooses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "python" / "examples"


@contextmanager
def service(**environment: str) -> Iterator[tuple[str, int]]:
    """Its address and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ai_service"],
        cwd=EXAMPLES,
        env={**os.environ, "PORT": "0", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"running on http://(\S+)", line):
                # A log that nobody reads would stop the service when the pipe is full.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found.group(1), process.pid
                return
        raise SystemExit("the service did not start:\n" + "".join(log))
    finally:
        process.terminate()
        process.wait()


def rss_bytes(pid: int) -> int:
    """Memory that a process holds (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)]


def table(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>12}")
