"""Clients that leave take their work with them."""

from __future__ import annotations

import socket

import httpx

from .service import Service, until


def test_a_client_that_hangs_up_before_the_answer_ends_its_work(endless: Service) -> None:
    body = b'{"message": "Hello"}'
    host, port = endless.address
    head = f"POST /process HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: endless.metric("antiphon_running_requests") == 1)
    until(lambda: endless.metric("antiphon_running_requests") == 0)
    until(lambda: endless.metric("ai_requests_total", endpoint="/process", status="cancelled") == 1)
    assert httpx.get(f"{endless.url}/ready").json() == {"ready": True}
