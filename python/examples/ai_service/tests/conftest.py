"""Services that several tests speak to."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from .service import Service, running

# Enough connections for all tests that come from one address.
MANY = {"WS_CONNECTIONS_PER_MINUTE": "100000"}


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with running(**MANY) as service:
        yield service


@pytest.fixture(scope="session")
def endless() -> Iterator[Service]:
    """Answers by a generator that never ends, without a deadline that could end it."""
    config = '{"responder": null, "batcher": {"timeout_ms": 3600000}}'
    with running("ai_service.tests.endless", ENGINE_CONFIG=config, **MANY) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
