"""The batch over Ray, with a worker that is killed in the middle of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from antiphon import Engine

pytest.importorskip("ray")

EXAMPLE = Path(__file__).parents[1] / "ray_batch.py"

# Far longer than anything here takes: only a hang gets there.
HANG_SECONDS = 300


def analyst_at_work(driver: subprocess.Popen[bytes]) -> psutil.Process:
    """A process of an actor; Ray puts into its title what it works on."""
    give_up = time.monotonic() + HANG_SECONDS
    while driver.poll() is None and time.monotonic() < give_up:
        for process in psutil.Process(driver.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] == ["ray::Analyst.analyze"]:
                    return process
            except psutil.Error:
                continue
    raise AssertionError("no actor was seen at work")


def test_every_line_is_analysed_in_its_place_though_a_worker_is_killed(tmp_path: Path) -> None:
    texts = ["Where is order 4711?", "Thank you!", "", "x" * 4001, "I forgot my password", "Grüße aus Köln 🎉"]
    with Engine(threads=1, responder=None) as engine:
        expected = [engine.analyze(text).to_dict() if 0 < len(text) <= 4000 else None for text in texts]
    source, target = tmp_path / "messages.txt", tmp_path / "analyses.jsonl"
    source.write_text("".join(text + "\n" for text in texts * 1000), encoding="utf-8")

    command = [sys.executable, str(EXAMPLE), str(source), str(target), "--actors", "2", "--batch", "60"]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    analyst_at_work(driver).kill()
    assert driver.poll() is None
    _, log = driver.communicate(timeout=HANG_SECONDS)
    assert driver.returncode == 0, log.decode()

    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(texts) * 1000
    for index, line in enumerate(lines):
        wanted = expected[index % len(texts)]
        if wanted is not None:
            assert line == wanted
    assert lines[2]["error"]["kind"] == "invalid_text"
    assert lines[3]["error"]["kind"] == "input_too_long"
    assert b"100%" in log
    assert list(tmp_path.glob("*.partial")) == []
