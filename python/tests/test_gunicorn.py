"""A real pre-forking server: the application is imported once, its workers are forked from there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("gunicorn")

APPLICATION = """
import antiphon

inherited = antiphon.Engine(threads=1, responder=None)
own = None

def application(environ, start_response):
    global own
    if environ["PATH_INFO"] == "/inherited":
        try:
            answer = inherited.analyze("Hello").intent.label
        except antiphon.ForkedError:
            answer = "forked"
    else:
        own = own or antiphon.Engine(threads=1, responder=None)
        answer = own.analyze("Hello").intent.label
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server and its address."""
    (tmp_path / "application.py").write_text(APPLICATION)
    command = ["-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "application"]
    process = subprocess.Popen([sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            log += line
            if found := re.search(r"Listening at: (\S+)", line):
                yield process, found.group(1)
                return
        pytest.fail(log)
    finally:
        process.kill()
        process.communicate()


def test_faults_66_gunicorn_preloads_and_each_worker_opens_its_own(server: tuple[subprocess.Popen[str], str]) -> None:
    process, address = server

    def get(path: str) -> str:
        with urlopen(address + path, timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    assert {get("/own") for _ in range(20)} == {"greeting"}
    assert {get("/inherited") for _ in range(20)} == {"forked"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
