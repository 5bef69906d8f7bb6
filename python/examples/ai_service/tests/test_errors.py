"""One shape for everything that goes wrong."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

KEYS = {"code", "kind", "type", "severity", "message", "retryable", "retry_after_ms", "hint"}


def fault(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == KEYS
    return error


@pytest.mark.parametrize(
    ("body", "status", "kind", "says"),
    [
        ({"message": ""}, 400, "invalid_text", "message is empty"),
        ({"message": " \n"}, 400, "invalid_text", "white space"),
        ({"message": "ä" * 4001}, 400, "input_too_long", "4001 characters"),
        ({}, 400, "invalid_argument", "message"),
        ({"message": 7}, 400, "invalid_argument", "message"),
        ({"message": "Hello", "mesage": "Hello"}, 400, "invalid_argument", "mesage"),
        ({"message": "Hello", "user_id": ""}, 400, "invalid_argument", "user_id"),
        ({"message": "Hello", "user_id": "u" * 257}, 400, "invalid_argument", "user_id"),
        ({"message": "Hello", "context": {"note": "n" * 5000}}, 400, "invalid_argument", "context"),
        ({"message": "x", "history": [{"role": "tool", "content": "x"}]}, 400, "invalid_argument", "history.0.role"),
        ([], 400, "invalid_argument", "body"),
    ],
)
@pytest.mark.parametrize("path", ["/process", "/generate-response"])
def test_a_bad_request_is_told_what_is_wrong(
    client: httpx.Client, path: str, body: object, status: int, kind: str, says: str
) -> None:
    answer = client.post(path, json=body)
    error = fault(answer)
    assert (answer.status_code, error["kind"]) == (status, kind)
    assert says in error["message"]
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b'{"message": "\xff"}',
        b'{"message": "\\ud800"}',
        b'{"message": "Hello", "context": {"number": NaN}}',
        b'{"message": "Hello", "context": {"number": 1e999}}',
        b'{"message": "Hello", "context": {"number": ' + b"9" * 5000 + b"}}",
        b'{"message": "Hello", "context": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    ],
)
def test_a_body_that_is_no_json_of_texts_is_the_callers_fault(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/process", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert fault(answer)["type"] == "VALIDATION"


def test_four_thousand_characters_are_not_too_many(client: httpx.Client) -> None:
    assert client.post("/intent", json={"message": "é" * 4000}).status_code == 200


def test_a_body_ends_at_the_limit_whether_it_names_its_length_or_not(client: httpx.Client) -> None:
    long = b" " * ((1 << 20) + 1)
    for content in (long, iter([long])):
        answer = client.post("/process", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert fault(answer)["kind"] == "input_too_long"


def test_a_tenant_that_is_no_name_is_refused(client: httpx.Client) -> None:
    answer = client.post("/process", json={"message": "Hello"}, headers={"X-Tenant-ID": "t" * 257})
    assert answer.status_code == 400
    assert "X-Tenant-ID" in fault(answer)["message"]


def test_what_is_not_there_has_the_same_shape(client: httpx.Client) -> None:
    assert fault(client.get("/nothing"))["message"] == "Not Found"
    answer = client.get("/process")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert fault(answer)["message"] == "Method Not Allowed"


def test_the_callers_text_is_not_repeated(client: httpx.Client) -> None:
    canary = "canary in the mine"
    for body in ({"message": {"text": canary}}, {"message": canary * 400}, {"message": "x", "context": canary}):
        assert canary not in client.post("/process", json=body).text
