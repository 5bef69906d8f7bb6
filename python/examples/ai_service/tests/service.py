"""Starts the service, and other programs that it needs, on free ports."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

EXAMPLES = Path(__file__).parents[2]

# Far longer than anything here takes: only a hang gets there.
HANG_SECONDS = 60


class Service:
    """A service that runs, and what it wrote to its log."""

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self.log: list[str] = []
        self._address = ""
        self._is_up = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=EXAMPLES,
            env={**os.environ, "PORT": "0", **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._is_up.wait(HANG_SECONDS) or not self._address:
            self.process.kill()
            self.stop()
            raise RuntimeError("the service did not start:\n" + "".join(self.log))

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._address.rpartition(":")
        return host, int(port)

    @property
    def url(self) -> str:
        return f"http://{self._address}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self._address}/ws/ai-chat"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=HANG_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 where there is none yet."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                # The server names the port that the system chose.
                if found := re.search(r"running on http://(\S+)", line):
                    self._address = found.group(1)
                    self._is_up.set()
        self._is_up.set()


@contextmanager
def running(module: str = "ai_service", **environment: str) -> Iterator[Service]:
    service = Service(module, environment)
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def redis() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A Redis of our own: its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: ask_redis(port, "PING") == "+PONG")
        yield port, process
    finally:
        process.kill()
        process.wait()


def ask_redis(port: int, command: str) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1024).decode().strip()
    except ConnectionError:
        return ""


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that happens soon."""
    give_up = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)
