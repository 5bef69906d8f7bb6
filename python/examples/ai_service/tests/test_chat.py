"""`/process`, `/generate-response` and their gateway spellings."""

from __future__ import annotations

import httpx
import pytest

HELP = "Hello, I need help with my account"


@pytest.mark.parametrize(
    "path", ["/process", "/api/ai/process-message", "/generate-response", "/api/ai/generate-response"]
)
def test_a_message_is_understood_and_answered(client: httpx.Client, path: str) -> None:
    request = {
        "message": HELP,
        "user_id": "user-123",
        "conversation_id": "conv-456",
        "context": {"previous_intent": "greeting"},
    }
    answer = client.post(path, json=request, headers={"X-Tenant-ID": "acme"})
    assert answer.status_code == 200
    reply = answer.json()
    assert set(reply) == {"response", "confidence", "intent", "sentiment", "entities", "metadata"}
    assert reply["response"]
    assert reply["intent"] == "help_request"
    assert reply["sentiment"] == "neutral"
    assert reply["confidence"] == reply["metadata"]["intent_analysis"]["confidence"]
    assert {key: reply["entities"][0][key] for key in ("type", "value", "start", "end")} == {
        "type": "account",
        "value": "account",
        "start": 27,
        "end": 34,
    }
    assert reply["metadata"]["response_generation"]["finish_reason"] == "stop"


def test_an_equal_request_is_answered_from_the_cache_and_another_tenant_is_not(client: httpx.Client) -> None:
    request = {"message": "Where is my invoice?"}
    tenants = ["cached", "cached", "another"]
    replies = [client.post("/process", json=request, headers={"X-Tenant-ID": name}).json() for name in tenants]
    assert [reply["metadata"]["response_generation"]["cache"] for reply in replies] == ["miss", "hit", "miss"]
    assert len({reply["response"] for reply in replies}) == 1


def test_a_history_is_read(client: httpx.Client) -> None:
    history = [{"role": "user", "content": HELP}, {"role": "assistant", "content": "What is the matter?"}]
    message = {"message": "I forgot my password"}
    tokens = [
        client.post("/process", json=request).json()["metadata"]["response_generation"]["usage"]["prompt_tokens"]
        for request in (message, {**message, "history": history})
    ]
    assert tokens[0] < tokens[1]


def test_offsets_of_entities_count_code_points(client: httpx.Client) -> None:
    message = "Grüße 🎉 and thanks, where is order 4711?"
    entities = client.post("/process", json={"message": message}).json()["entities"]
    order = next(entity for entity in entities if entity["value"] == "4711")
    assert message[order["start"] : order["end"]] == "4711"
