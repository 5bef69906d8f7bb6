"""Requests made from the service's own description, valid ones and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from .service import Service

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_the_description_names_every_path(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/process",
        "/intent",
        "/sentiment",
        "/generate-response",
        "/summarize",
        "/api/ai/process-message",
        "/api/ai/intent",
        "/api/ai/sentiment",
        "/api/ai/generate-response",
        "/api/ai/summarize",
        "/models",
        "/api/ai/models",
        "/health",
        "/ready",
        "/metrics",
        "/v1/chat/completions",
        "/v1/models",
    }


def test_no_request_is_a_server_error_and_every_answer_is_as_described(service: Service, tmp_path: Path) -> None:
    config, schema = Path(__file__).with_name("schemathesis.toml"), f"{service.url}/openapi.json"
    command = [str(SCHEMATHESIS), "--config-file", str(config), "run", schema, "--seed", "1", "--max-examples", "20"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "17 selected" in run.stdout
    assert not any("Traceback" in line for line in service.log)
