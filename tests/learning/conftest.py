"""Memories with an extractor that needs no model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirai_memory import MemoryManager
from mirai_memory.testing import FakeExtractor
from mirai_memory.testing.clock import FrozenClock


@pytest.fixture
def extractor() -> FakeExtractor:
    return FakeExtractor()


@pytest.fixture
def memory(url: str, clock: FrozenClock, extractor: FakeExtractor) -> Iterator[MemoryManager]:
    """An open memory that can learn, once per engine."""
    with MemoryManager(url, clock=clock, extractor=extractor) as memory:
        yield memory


@pytest.fixture
def sqlite_memory(sqlite_url: str, clock: FrozenClock, extractor: FakeExtractor) -> Iterator[MemoryManager]:
    """An open memory that can learn."""
    with MemoryManager(sqlite_url, clock=clock, extractor=extractor) as memory:
        yield memory
