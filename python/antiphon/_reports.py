"""What an engine says of itself: its models, its health, what a self-test found, its cache."""

from __future__ import annotations

from typing import Any, cast

from ._results import Json, Result


class Model(Result):
    """A model of an engine."""

    __slots__ = ()

    @property
    def model_name(self) -> str:
        """The slot's name; the option ``model`` takes that of a responder."""
        return cast(str, self._json["model_name"])

    @property
    def version(self) -> str:
        """Version, from the manifest where there is one."""
        return cast(str, self._json["version"])

    @property
    def status(self) -> str:
        """``available``, ``loading`` or ``failed``."""
        return cast(str, self._json["status"])

    @property
    def task(self) -> str:
        """``analysis``, ``generation``, or the single task of a trained head."""
        return cast(str, self._json["task"])

    @property
    def performance_metrics(self) -> Json:
        """The card: what it was trained on, what it measures, what it cannot do."""
        return cast(Json, self["performance_metrics"])

    @property
    def config(self) -> Any:
        """Its shape, as its files say it."""
        return self["config"]

    @property
    def fingerprint(self) -> str:
        """BLAKE3 over its files."""
        return cast(str, self._json["fingerprint"])

    @property
    def bytes(self) -> int:
        """Bytes of its packed weights."""
        return cast(int, self._json["bytes"])


class Health(Result):
    """How an engine is."""

    __slots__ = ()

    @property
    def status(self) -> str:
        """``healthy``, ``degraded`` or ``unhealthy``."""
        return cast(str, self._json["status"])

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return cast(bool, self._json["ready"])

    @property
    def uptime_ms(self) -> int:
        """Milliseconds since it was opened."""
        return cast(int, self._json["uptime_ms"])

    @property
    def error_count(self) -> int:
        """Requests that ended with an error, cancelled ones not counted."""
        return cast(int, self._json["error_count"])

    @property
    def diagnostics(self) -> list[str]:
        """What is not as it should be."""
        return list(self._json["diagnostics"])


class Check(Result):
    """One thing that a diagnosis tried."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What."""
        return cast(str, self._json["name"])

    @property
    def result(self) -> str:
        """``success``, ``failed`` or ``timeout``."""
        return cast(str, self._json["result"])

    @property
    def duration_ms(self) -> float:
        """How long it took, in milliseconds."""
        return cast(float, self._json["duration_ms"])

    @property
    def message(self) -> str:
        """What was seen."""
        return cast(str, self._json["message"])


class Configuration(Result):
    """Whether a configuration makes sense on this machine."""

    __slots__ = ()

    @property
    def valid(self) -> bool:
        """No issues."""
        return cast(bool, self._json["valid"])

    @property
    def issues(self) -> list[str]:
        """What does not make sense."""
        return list(self._json["issues"])


class Diagnosis(Result):
    """What a self-test found."""

    __slots__ = ()

    @property
    def timestamp(self) -> str:
        """When, RFC 3339 in UTC."""
        return cast(str, self._json["timestamp"])

    @property
    def checks(self) -> list[Check]:
        """What was tried."""
        return [Check(check) for check in self._json["checks"]]

    @property
    def configuration(self) -> Configuration:
        """Whether the configuration makes sense here."""
        return Configuration(self._json["configuration"])

    @property
    def server_status(self) -> Health:
        """The engine's health."""
        return Health(self._json["server_status"])

    @property
    def recommendations(self) -> list[str]:
        """What to do."""
        return list(self._json["recommendations"])


class CacheStats(Result):
    """What a response cache holds, and how it has served."""

    __slots__ = ()

    @property
    def hits(self) -> int:
        """Answers served from the cache."""
        return cast(int, self._json["hits"])

    @property
    def misses(self) -> int:
        """Requests it had no answer for itself."""
        return cast(int, self._json["misses"])

    @property
    def joined(self) -> int:
        """Requests served by an equal one that was under way."""
        return cast(int, self._json["joined"])

    @property
    def shared_hits(self) -> int:
        """Answers that came from the tier that engines share."""
        return cast(int, self._json["shared_hits"])

    @property
    def stored(self) -> int:
        """Answers that were kept."""
        return cast(int, self._json["stored"])

    @property
    def evicted(self) -> int:
        """Answers that had to make room."""
        return cast(int, self._json["evicted"])

    @property
    def expired(self) -> int:
        """Answers that grew too old."""
        return cast(int, self._json["expired"])

    @property
    def entries(self) -> int:
        """Answers it holds."""
        return cast(int, self._json["entries"])

    @property
    def bytes(self) -> int:
        """Bytes they take."""
        return cast(int, self._json["bytes"])

    @property
    def max_bytes(self) -> int:
        """Bytes they may take."""
        return cast(int, self._json["max_bytes"])

    @property
    def hit_rate(self) -> float:
        """The share of requests that found their answer, 0 to 1."""
        return cast(float, self._json["hit_rate"])
