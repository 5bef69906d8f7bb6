"""One numbered list of failures."""

from __future__ import annotations

import copy
import pickle

import antiphon
import pytest
from antiphon import _native
from antiphon._errors import KINDS


def test_there_is_a_class_for_every_kind_of_the_engine() -> None:
    assert [
        (kind.code, kind.kind, kind.type, kind.severity, kind.retryable, kind.hint) for kind in KINDS
    ] == _native.error_kinds()


def test_a_class_is_called_by_its_kind() -> None:
    for kind in KINDS:
        camel = "".join(word.capitalize() for word in kind.kind.split("_"))
        assert kind.__name__ == {"Cancelled": "RequestCancelled"}.get(camel, camel) + "Error"
        assert getattr(antiphon, kind.__name__) is kind
        assert kind.__doc__


def test_classes_are_what_a_caller_expects() -> None:
    expected = {
        ValueError: {-101, -102, -103, -104, -105, -106},
        FileNotFoundError: {-201},
        MemoryError: {-206},
        TimeoutError: {-302},
        ConnectionError: {-207, -305},
        OSError: {-201, -205, -207, -302, -305},
    }
    for builtin, codes in expected.items():
        assert {kind.code for kind in KINDS if issubclass(kind, builtin)} == codes, builtin
    assert all(issubclass(kind, antiphon.AntiphonError) and issubclass(kind, Exception) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_error_keeps_what_it_says(kind: type[antiphon.AntiphonError]) -> None:
    error = kind("queue: 256 requests", retry_after_ms=120)
    for one in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(one) is kind
        assert str(one) == one.message == "queue: 256 requests"
        assert one.to_dict() == {
            "code": kind.code,
            "kind": kind.kind,
            "type": kind.type,
            "severity": kind.severity,
            "message": "queue: 256 requests",
            "retryable": kind.retryable,
            "retry_after_ms": 120,
            "hint": kind.hint,
        }


def test_a_quota_says_when_to_come_back() -> None:
    with antiphon.Engine(responder=None, quota={"requests": 1, "window_ms": 3_600_000}) as engine:
        engine.process("Hello", user_id="a")
        with pytest.raises(antiphon.QuotaExceededError) as refused:
            engine.process("Hello", user_id="a")
        assert refused.value.retryable and 0 < (refused.value.retry_after_ms or 0) <= 3_600_000


def test_a_deadline_is_a_timeout() -> None:
    from generators import Broods

    with antiphon.Engine(generators=[Broods()]) as engine, pytest.raises(TimeoutError) as late:
        engine.process("Hello", model="broods", deadline_ms=50)
    assert isinstance(late.value, antiphon.DeadlineExceededError)


def test_no_error_holds_a_users_text(engine: antiphon.Engine) -> None:
    canary = "canary " * 1000
    for call in (
        lambda: engine.process(canary),
        lambda: engine.analyze(canary),
        lambda: engine.process("x", history=canary),  # type: ignore[arg-type]
        lambda: engine.process("x", context={"note": canary}),
        lambda: engine.process(canary + "\ud800"),
    ):
        with pytest.raises(antiphon.AntiphonError) as raised:
            call()
        assert "canary" not in str(raised.value)
