"""`/intent`, `/sentiment`, `/summarize` and their gateway spellings."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize("prefix", ["", "/api/ai"])
def test_an_intent_is_the_best_of_its_ranking(client: httpx.Client, prefix: str) -> None:
    reply = client.post(f"{prefix}/intent", json={"message": "I forgot my password", "user_id": "u"}).json()
    assert reply["intent"] == "recover_password"
    assert reply["out_of_scope"] is False
    assert reply["ranking"][0] == {"label": reply["intent"], "confidence": reply["confidence"]}
    assert len(reply["ranking"]) == 5


@pytest.mark.parametrize("prefix", ["", "/api/ai"])
@pytest.mark.parametrize(
    ("message", "expected"),
    [("This is wonderful, thank you so much!", "positive"), ("This is a terrible, useless service", "negative")],
)
def test_a_sentiment_is_the_likeliest_of_three(
    client: httpx.Client, prefix: str, message: str, expected: str
) -> None:
    reply = client.post(f"{prefix}/sentiment", json={"message": message}).json()
    assert reply["sentiment"] == expected
    assert set(reply["scores"]) == {"negative", "neutral", "positive"}
    assert reply["confidence"] == reply["scores"][expected] == max(reply["scores"].values())


DIALOGUE = "Agent: Hello, how can I help?\nAnna: My parcel with the blue lamp has not arrived.\nAgent: Okay."


@pytest.mark.parametrize("prefix", ["", "/api/ai"])
@pytest.mark.parametrize("key", ["message", "text"])
def test_a_dialogue_is_summarized(client: httpx.Client, prefix: str, key: str) -> None:
    reply = client.post(f"{prefix}/summarize", json={key: DIALOGUE, "sentences": 1}).json()
    assert reply == {"summary": "Anna: My parcel with the blue lamp has not arrived."}


def test_words_of_its_own_are_more_than_the_bundled_model_can_do(client: httpx.Client) -> None:
    answer = client.post("/summarize", json={"message": DIALOGUE, "method": "abstractive"})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "unsupported_model")


def test_a_text_longer_than_a_message_is_summarized(client: httpx.Client) -> None:
    text = "The parcel has not arrived. " * 400
    assert client.post("/intent", json={"message": text}).status_code == 400
    reply = client.post("/summarize", json={"message": text, "sentences": 1})
    assert reply.json() == {"summary": "The parcel has not arrived."}
