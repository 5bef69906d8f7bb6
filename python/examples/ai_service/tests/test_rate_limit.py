"""Answers per tenant and user, counted by the engine when it is switched on."""

from __future__ import annotations

import httpx
import pytest

from .service import running


def test_the_eleventh_answer_of_a_user_is_refused_and_nobody_elses() -> None:
    with running(RATE_LIMIT="on") as service, service.client() as client:

        def ask(user: str, tenant: str = "acme") -> httpx.Response:
            request = {"message": "Hello", "user_id": user}
            return client.post("/process", json=request, headers={"X-Tenant-ID": tenant})

        assert [ask("anna").status_code for _ in range(11)] == [200] * 10 + [429]
        refused = ask("anna")
        error = refused.json()["error"]
        assert (error["code"], error["kind"], error["type"]) == (-109, "quota_exceeded", "RATE_LIMIT")
        assert error["retryable"] is True
        assert 0 < error["retry_after_ms"] <= 60_000
        assert refused.headers["Retry-After"] == str(-(-error["retry_after_ms"] // 1000))
        assert ask("bert").status_code == 200
        assert ask("anna", tenant="other").status_code == 200
        # OpenAI's requests are answers, too.
        chat = {"messages": [{"role": "user", "content": "Hello"}], "user": "anna"}
        headers = {"X-Tenant-ID": "acme"}
        assert client.post("/v1/chat/completions", json=chat, headers=headers).status_code == 429


def test_it_is_off_unless_switched_on(client: httpx.Client) -> None:
    request = {"message": "Hello", "user_id": "carla"}
    assert {client.post("/process", json=request).status_code for _ in range(12)} == {200}


@pytest.mark.parametrize("name", ["RATE_LIMIT", "PORT", "WS_IDLE_SECONDS", "ENGINE_CONFIG"])
def test_a_setting_that_does_not_fit_keeps_the_service_from_starting(name: str) -> None:
    with pytest.raises(RuntimeError, match=name), running(**{name: "no such value"}):
        pass
