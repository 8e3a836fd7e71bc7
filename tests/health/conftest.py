"""A look at a memory, its checks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mirai_memory import Settings, load_settings
from mirai_memory.health import Check, check_health

Look = Callable[..., dict[str, Check]]


@pytest.fixture
def look() -> Look:
    """``check_health`` with these arguments, and sections of settings; what it found, by name."""

    def looked(url: Any = None, *, memory: dict[str, Any] | None = None, **more: Any) -> dict[str, Check]:
        settings: Settings | None = load_settings(memory=memory) if memory is not None else None
        health = check_health(settings, url, **more)
        assert health.ok == all(check.status != "error" for check in health.checks)
        return {check.name: check for check in health.checks}

    return looked
