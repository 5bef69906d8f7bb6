"""The conformance files of all languages, through this one."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import antiphon
import pytest

from generators import BY_NAME

FOLDER = Path(__file__).parents[2] / "crates" / "antiphon"
FILES = sorted((FOLDER / "tests" / "conformance").glob("*.json"))

#: What this face has no words for: keywords are always an object, so configurations and options that are none, or are no JSON
#: at all, cannot be said.
CANNOT_SAY = ("config_text", "options_text")
#: What it has words of its own for. A keyword that a function does not have, or a message that is no text, is a TypeError, as
#: everywhere in Python; and options are keywords beside the others, so an unknown one of either is an unknown option.

#: What is another in each run, build or training.
FREE = {
    "timestamp",
    "timings_ms",
    "retry_after_ms",
    "uptime_ms",
    "bytes",
    "engine",
    "version",
    "config",
    "performance_metrics",
}

Step = dict[str, Any]


def cases() -> Iterator[Any]:
    for path in FILES:
        file = json.loads(path.read_text(encoding="utf-8"))
        for case in file["cases"]:
            yield pytest.param(file.get("config", {}), case["steps"], id=f"{path.stem}: {case['name']}")


def test_the_files_are_there() -> None:
    assert len(list(cases())) >= 60


@pytest.mark.parametrize(("config", "steps"), list(cases()))
def test_conformance(config: dict[str, Any], steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    # Where paths of models begin.
    monkeypatch.chdir(FOLDER)
    face = Face()
    try:
        if steps[0]["call"] != "open":
            face.open(config, [])
        said = [step for step in steps if not any(key in step for key in CANNOT_SAY)]
        if not said:
            pytest.skip("it is about text in place of keywords")
        for number, step in enumerate(said, 1):
            recorded = {key: step[key] for key in ("gives", "fails") if key in step}
            try:
                ended = {"gives": face.call(step)}
            except TypeError:
                assert recorded["fails"]["code"] == -101, f"step {number}"
                continue
            except antiphon.AntiphonError as error:
                ended = {"fails": error.to_dict()}
                if is_flattened(recorded, error):
                    continue
            assert comparable(ended) == comparable(recorded), f"step {number}"
    finally:
        face.close()


def is_flattened(recorded: dict[str, Any], error: antiphon.AntiphonError) -> bool:
    """Whether an unknown key of a request is an unknown option here, of the same name."""
    message = recorded.get("fails", {}).get("message", "")
    unknown = re.match("request has the unknown key `(.*?)`", message)
    return unknown is not None and f"`options` has the unknown key `{unknown[1]}`" in error.message


class Face:
    """An engine, and what a case has opened on it."""

    engine: antiphon.Engine
    conversation: antiphon.Conversation

    def __init__(self) -> None:
        self._opened: list[antiphon.Engine] = []
        self._left: list[antiphon.ReplyStream] = []

    def open(self, config: dict[str, Any], plugins: list[str]) -> None:
        self.engine = antiphon.Engine(generators=[BY_NAME[name]() for name in plugins], **config)
        self._opened.append(self.engine)

    def close(self) -> None:
        for stream in self._left:
            stream.close()
        for engine in self._opened:
            engine.close()

    def call(self, step: Step) -> Any:
        call = step["call"]
        text = step.get("text", "")
        if "text_hex" in step:
            text = unhex(step["text_hex"])
        if call == "open":
            return self.open(step.get("config", {}), step.get("plugins", []))
        if call in ("stream", "say"):
            return self.stream(step)
        if call == "read":
            return list(shown(self._left.pop()))
        if call == "conversation":
            self.conversation = self.engine.conversation(**step.get("options", {}))
            return None
        engine, plain = self.engine, step.get("request", {})
        calls = {
            "analyze": lambda: engine.analyze(text).to_dict(),
            "analyze_batch": lambda: [analysis.to_dict() for analysis in engine.analyze_batch(step["texts"])],
            "process": lambda: engine.process(**keywords(step)).to_dict(),
            "generate": lambda: engine.generate(**keywords(step)).reply.to_dict(),
            "summarize": lambda: engine.summarize(text, **step.get("options", {})),
            "embed": lambda: fingerprint(engine.embed(text)),
            "cache_stats": lambda: engine.cache.stats().to_dict(),
            "cache_clear": lambda: engine.cache.clear(step.get("tenant")),
            "cache_resize": lambda: engine.cache.resize(step["max_bytes"]),
            "cache_warm": lambda: engine.cache.warm(**keywords(step)),
            "models": lambda: [model.to_dict() for model in engine.models()],
            "health": lambda: engine.health().to_dict(),
            "ready": engine.ready,
            "drain": lambda: engine.drain(step["timeout_ms"] / 1000),
            "close": engine.close,
        }
        return calls[call]()

    def stream(self, step: Step) -> list[Any]:
        if "stop_after" in step:
            left = [step["stop_after"]]

            def count(event: antiphon.Event) -> bool:
                left[0] -= 1
                return left[0] == 0

            try:
                reply = self.engine.process(on_event=count, **keywords(step))
            except antiphon.AntiphonError as error:
                return [error_event(error)]
            return [{"type": "done", "reply": reply.to_dict()}]
        say = self.engine.stream if step["call"] == "stream" else self.conversation.say
        try:
            stream = say(**keywords(step))
        except antiphon.AntiphonError as error:
            return [error_event(error)]
        if "leave_after" in step:
            self._left.append(stream)
            return list(shown(stream, step["leave_after"]))
        events = []
        if "cancel_after" in step:
            events = list(shown(stream, step["cancel_after"]))
            stream.cancel()
        return events + list(shown(stream))


def keywords(step: Step) -> dict[str, Any]:
    """A request in the words of this language: its options stand among its other keywords."""
    request = dict(step["request"])
    if "message_hex" in step:
        request["message"] = unhex(step["message_hex"])
    options = request.pop("options", {})
    return {**request, **options}


def shown(stream: antiphon.ReplyStream, count: int = -1) -> Iterator[Any]:
    while count != 0:
        try:
            yield next(stream).to_dict()
        except StopIteration:
            return
        except antiphon.AntiphonError as error:
            yield error_event(error)
            return
        count -= 1


def error_event(error: antiphon.AntiphonError) -> Any:
    return {"type": "error", "error": error.to_dict()}


def unhex(digits: str) -> str:
    """Bytes as Python has them in text, where they are not UTF-8: lone surrogates."""
    return bytes.fromhex(digits).decode(errors="surrogateescape")


def fingerprint(vector: list[float]) -> Any:
    """A vector by its length and the FNV-1a hash of its bytes."""
    number = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(vector)}f", *vector):
        number = (number ^ byte) * 0x100000001B3 % 2**64
    return {"dimension": len(vector), "fnv1a": f"{number:016x}"}


def comparable(value: Any) -> str:
    """JSON in one way, without what is free to differ."""
    return json.dumps(freed(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def freed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: 0 if key in FREE and inner is not None else freed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [freed(inner) for inner in value]
    if isinstance(value, str) and value.startswith("blake3:"):
        return "blake3:"
    return value
