"""Puts ``surroundings`` within reach of the tests here, and makes memories."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirai_memory import AsyncMemoryManager, load_settings

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def patient(url: str) -> Callable[[], AsyncMemoryManager]:
    """Makes a memory that waits longer for a lock than any test here takes."""
    settings = load_settings(memory={"busy_timeout_ms": 100_000})
    return lambda: AsyncMemoryManager(url, settings=settings)
