"""`/ws/ai-chat`, as a browser or a gateway speaks to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from .service import HANG_SECONDS, Service, running, until

HELLO = {"type": "chat", "message": "Hello, I need help with my account"}


@pytest.fixture
def socket(service: Service) -> Iterator[ClientConnection]:
    with connect(service.ws_url, compression=None) as socket:
        yield socket


def read(socket: ClientConnection) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(socket.recv(HANG_SECONDS))
    return event


def answer(socket: ClientConnection) -> list[dict[str, Any]]:
    """The events up to the last one of an answer."""
    events = [read(socket)]
    while events[-1]["type"] == "chunk":
        events.append(read(socket))
    return events


def text(events: list[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in events if event["type"] == "chunk")


def ask(socket: ClientConnection, **frame: Any) -> list[dict[str, Any]]:
    socket.send(json.dumps(frame))
    return answer(socket)


def test_an_answer_comes_in_chunks_and_is_done(service: Service, socket: ClientConnection) -> None:
    events = ask(socket, **HELLO, model="responder")
    assert len(events) > 2
    assert all(set(event) == {"type", "content"} for event in events[:-1])
    assert events[-1] == {"type": "done"}
    with service.client() as client:
        assert client.post("/process", json={"message": HELLO["message"]}).json()["response"] == text(events)


def test_a_connection_is_one_conversation(service: Service, socket: ClientConnection) -> None:
    first = ask(socket, **HELLO)
    second = ask(socket, type="chat", message="I forgot my password")
    history = [{"role": "user", "content": HELLO["message"]}, {"role": "assistant", "content": text(first)}]
    request = {
        "message": "I forgot my password",
        "history": history,
        "context": {"previous_intent": "help_request"},
    }
    with service.client() as client:
        assert client.post("/process", json=request).json()["response"] == text(second)


def test_messages_that_are_sent_ahead_are_answered_in_their_order(socket: ClientConnection) -> None:
    messages = ["Hello", "I want a refund", "Goodbye"]
    for message in messages:
        socket.send(json.dumps({"type": "chat", "message": message}))
    assert [answer(socket)[-1] for _ in messages] == [{"type": "done"}] * 3


@pytest.mark.parametrize(
    ("frame", "kind", "says"),
    [
        ("{", "invalid_argument", "JSON"),
        ("[]", "invalid_argument", "object"),
        ('{"type": "chat"}', "invalid_argument", "message"),
        ('{"type": "image", "message": "Hello"}', "invalid_argument", "type"),
        ('{"type": "chat", "message": "Hello", "modle": "x"}', "invalid_argument", "modle"),
        ('{"type": "chat", "message": "  "}', "invalid_text", "white space"),
        (json.dumps({"type": "chat", "message": "x" * 4001}), "input_too_long", "4001"),
        ('{"type": "chat", "message": "Hello", "model": "none"}', "unknown_model", "model"),
        (b"\xff\xfe", "invalid_argument", "JSON"),
        ("", "invalid_argument", "JSON"),
    ],
)
def test_a_bad_message_is_an_error_and_the_next_one_is_answered(
    socket: ClientConnection, frame: str | bytes, kind: str, says: str
) -> None:
    socket.send(frame)
    event = read(socket)
    assert event["type"] == "error"
    assert event["error"]["kind"] == kind
    assert says in event["error"]["message"]
    assert ask(socket, **HELLO)[-1] == {"type": "done"}


def test_leaving_ends_the_work(endless: Service) -> None:
    with connect(endless.ws_url) as socket:
        socket.send(json.dumps({**HELLO, "model": "endless"}))
        assert read(socket)["type"] == "chunk"
        assert endless.metric("antiphon_running_requests") == 1
    until(lambda: endless.metric("antiphon_running_requests") == 0)
    until(lambda: endless.metric("ai_requests_total", endpoint="/ws/ai-chat", status="cancelled") == 1)


def test_a_client_that_sends_too_much_ahead_is_sent_away(endless: Service) -> None:
    with connect(endless.ws_url) as socket:
        for _ in range(18):
            socket.send(json.dumps(HELLO))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(HANG_SECONDS)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
    until(lambda: endless.metric("antiphon_running_requests") == 0)


def test_a_silent_connection_is_closed_and_one_with_work_is_not() -> None:
    config = '{"responder": null, "batcher": {"timeout_ms": 3600000}}'
    with running("ai_service.tests.endless", WS_IDLE_SECONDS="0.5", ENGINE_CONFIG=config) as service:
        with connect(service.ws_url) as busy, connect(service.ws_url) as silent:
            busy.send(json.dumps(HELLO))
            with pytest.raises(ConnectionClosed) as closed:
                silent.recv(HANG_SECONDS)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "idle")
            # More than the other was silent for: each chunk is at least 10 ms.
            assert {read(busy)["type"] for _ in range(100)} == {"chunk"}


def test_only_pages_that_are_known_may_connect() -> None:
    with running(ALLOWED_ORIGINS="https://shop.example, https://www.shop.example") as service:
        for origin in (service.url, "https://shop.example", "https://www.shop.example"):
            with connect(service.ws_url, origin=Origin(origin)) as socket:
                assert ask(socket, **HELLO)[-1] == {"type": "done"}
        for origin in ("https://evil.example", "https://shop.example.evil.example", "null", "", "https://["):
            with pytest.raises(InvalidStatus) as refused:
                connect(service.ws_url, origin=Origin(origin))
            assert refused.value.response.status_code == 403
            assert json.loads(refused.value.response.body)["error"]["kind"] == "invalid_argument"


def test_an_address_that_connects_too_often_has_to_wait() -> None:
    with running(WS_CONNECTIONS_PER_MINUTE="2") as service:
        for _ in range(2):
            with connect(service.ws_url):
                pass
        with pytest.raises(InvalidStatus) as refused:
            connect(service.ws_url)
        response = refused.value.response
        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= 60
        assert json.loads(response.body)["error"]["kind"] == "quota_exceeded"


def test_a_tenant_that_is_no_name_is_refused(service: Service) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(service.ws_url, additional_headers={"X-Tenant-ID": "t" * 257})
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["error"]["kind"] == "invalid_argument"


def test_other_paths_are_no_chats(service: Service) -> None:
    with pytest.raises(InvalidStatus):
        connect(service.ws_url + "/elsewhere")


def test_the_quota_counts_the_users_of_a_tenant() -> None:
    with running(RATE_LIMIT="on", RATE_LIMIT_REQUESTS="1") as service:
        with connect(service.ws_url, additional_headers={"X-Tenant-ID": "acme"}) as socket:
            ends = [ask(socket, **HELLO, user_id=user)[-1]["type"] for user in ("anna", "anna", "bert")]
    assert ends == ["done", "error", "done"]
