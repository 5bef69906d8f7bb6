"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

from ai_service.errors import STATUS
from ai_service.settings import Settings

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")


def test_every_setting_is_listed_with_its_default() -> None:
    listed = set(re.findall(r"`([A-Z_]+)`", README.split("## Settings")[1].split("## ")[0]))
    aliases = {str(field.alias) for field in Settings.model_fields.values()}
    # The header's name has small letters; `HOST=0.0.0.0` is an example.
    assert listed == aliases
    assert Settings.from_env({}).port == 3007
    assert Settings.from_env({}).engine == {}


def test_every_kind_with_a_status_of_its_own_is_listed() -> None:
    for kind in STATUS.keys() - {"cancelled"}:
        assert f"`{kind}`" in README


def test_a_bound_of_the_cache_leaves_the_shared_tier_on() -> None:
    settings = Settings.from_env(
        {"REDIS_URL": "redis://shared", "RATE_LIMIT": "on", "ENGINE_CONFIG": '{"cache": {"max_entries": 5}, "threads": 1}'}
    )
    assert settings.engine == {
        "cache": {"shared_tier": "redis://shared", "max_entries": 5},
        "quota": {"requests": 10, "window_ms": 60_000},
        "threads": 1,
    }
