"""What a platform asks about the service."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .service import HANG_SECONDS, running, until


def test_the_models_are_listed_with_their_cards(client: httpx.Client) -> None:
    models = client.get("/models").json()
    assert {model["model_name"]: model["task"] for model in models} == {
        "analyst": "analysis",
        "responder": "generation",
    }
    assert all(model["status"] == "available" and model["bytes"] > 0 for model in models)
    assert client.get("/api/ai/models").json() == models


def test_a_service_that_runs_is_healthy_and_ready(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["ready"], health["diagnostics"]) == ("healthy", True, [])
    assert client.get("/ready").json() == {"ready": True}


def test_a_degraded_service_answers() -> None:
    with running(ENGINE_CONFIG='{"responder": null}') as service, service.client() as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        reply = client.post("/process", json={"message": "Hello"}).json()
        assert reply["metadata"]["response_generation"]["degraded"] == "template"


def test_requests_are_counted_by_path_and_by_how_they_ended() -> None:
    with running() as service, service.client() as client:
        client.post("/process", json={"message": "Hello"})
        client.post("/process", json={"message": ""})
        client.post("/api/ai/intent", json={"message": "Hello"})
        client.get("/nothing/4711")
        counted = {
            ("/process", "success"),
            ("/process", "invalid_text"),
            ("/api/ai/intent", "success"),
            ("unmatched", "invalid_argument"),
        }
        for endpoint, status in counted:
            until(lambda: service.metric("ai_requests_total", endpoint=endpoint, status=status) == 1)
        assert service.metric("ai_request_duration_seconds_count", endpoint="/process") == 2
        assert 0.9 < service.metric("ai_model_accuracy", model_name="analyst") < 1
        assert service.metric("antiphon_tokens_total", kind="completion") > 0


def test_prometheus_gets_the_format_that_it_asks_for(client: httpx.Client) -> None:
    client.post("/process", json={"message": "Hello"})
    plain = client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    newer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.headers["Content-Type"].startswith("application/openmetrics-text")
    # The parser refuses a family that comes twice.
    families = text_string_to_metric_families(newer.text)  # type: ignore[no-untyped-call]
    names = [family.name for family in families]
    own = names.index("ai_requests")
    assert own < names.index("antiphon_cache_hits")
    assert "ai_request_duration_seconds" in names
    assert "ai_model_accuracy" in names


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_requests_take_no_threads() -> None:
    async def crowd(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
            asked = [client.post("/process", json={"message": f"Where is order {n}?"}) for n in range(50)]
            refused = [client.post("/process", json={"message": ""}) for _ in range(50)]
            answers = await asyncio.gather(*asked, *refused)
        assert [answer.status_code for answer in answers] == [200] * 50 + [400] * 50

    with running() as service, service.client() as client:
        client.post("/process", json={"message": "Hello"})
        threads = Path(f"/proc/{service.process.pid}/task")
        before = len(list(threads.iterdir()))
        asyncio.run(crowd(service.url))
        assert len(list(threads.iterdir())) == before


def test_a_service_that_is_told_to_stop_ends_well() -> None:
    with running() as service, service.client() as client:
        assert client.post("/process", json={"message": "Hello"}).status_code == 200
        service.stop()
        assert service.process.returncode in (0, -15)
        assert not any("Traceback" in line for line in service.log)
