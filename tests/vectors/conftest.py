"""An embedder that does as it is told, memories that use it, and what can be seen of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from log_lines import log_lines
from sqlalchemy import select

from mirai_memory import MemoryManager, load_settings, vectorizing
from mirai_memory.models import EmbeddingRow
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

ROWS = EmbeddingRow.table()


@pytest.fixture
def embedder() -> Iterator[FakeEmbedder]:
    embedder = FakeEmbedder()
    yield embedder
    embedder.release()


Opened = Callable[..., AbstractContextManager[MemoryManager]]


@pytest.fixture
def opened(url: str, embedder: FakeEmbedder, clock: FrozenClock) -> Opened:
    """Opens a memory: without a thread in the background, if not told otherwise by settings of ``memory.rag``."""

    @contextmanager
    def open_memory(
        by: Any = embedder, *, timeout_s: float = 30, busy_timeout_ms: int = 10_000, read_only: bool = False, **rag: Any
    ) -> Iterator[MemoryManager]:
        settings = load_settings(
            # The machine's load decides how much a budget is worth.
            memory={
                "rag": {"background": False, "search_budget_ms": 60_000, **rag},
                "busy_timeout_ms": busy_timeout_ms,
            },
            models={"embedding": {"timeout_s": timeout_s}},
        )
        with MemoryManager(url, embedder=by, settings=settings, clock=clock, read_only=read_only) as memory:
            yield memory

    return open_memory


@pytest.fixture
def memory(opened: Opened) -> Iterator[MemoryManager]:
    with opened() as memory:
        yield memory


@pytest.fixture
def vectors() -> Callable[[MemoryManager], dict[str, int]]:
    """How many vectors there are of each status."""

    def count(memory: MemoryManager) -> dict[str, int]:
        # Not by a way that stores something: that would wake the thread in the background.
        stored = memory._store.read(lambda uow: list(uow.db.execute(select(ROWS.c.status)).scalars()))
        return {status: stored.count(status) for status in sorted(set(stored))}

    return count


@pytest.fixture
def dense() -> Callable[..., dict[str, float]]:
    """What a search finds, and how much its meaning counts; 0 for what was found otherwise."""

    def search(memory: MemoryManager, query: str, user_id: str = "alice", **options: Any) -> dict[str, float]:
        found = memory.search_messages(query, user_id=user_id, limit=100, explain=True, **options)
        return {message.content: (message.explanation or {}).get("dense", 0.0) for message in found}

    return search


class Monotonic:
    """The clock that outages go by."""

    now = 1_000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    """Stands still until a test advances it."""
    clock = Monotonic()
    monkeypatch.setattr(vectorizing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is said of vectors, at INFO and above."""
    with log_lines("INFO", of="mirai_memory.vectorizing") as lines:
        yield lines
