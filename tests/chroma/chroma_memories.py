"""The same talk and facts for memories of different stores, and what is found in them."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, load_settings
from mirai_memory.search.chroma import kept
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

WORDS = ["tea", "coffee", "garden", "river", "stone", "music", "paint", "bread", "winter", "summer", "train", "lamp"]


def opening(url: str, path: Path, *, store: str = "chroma", dim: int = 32, **rag: Any) -> MemoryManager:
    """A memory that asks Chroma for every owner; on a server it has the folder ``path``."""
    chroma = {"min_items": 1, **({} if "://" not in url else {"path": str(path)}), **rag.pop("chroma", {})}
    settings = load_settings(
        memory={
            "rag": {"vector_store": store, "background": False, "search_budget_ms": 60_000, "chroma": chroma, **rag}
        }
    )
    return MemoryManager(url, embedder=FakeEmbedder(dim=dim), settings=settings, clock=FrozenClock())


def fill(
    memory: MemoryManager, user_id: str = "alice", *, messages: int = 120, facts: int = 40, index: bool = True
) -> str:
    """Talk and facts made of a few words, with their vectors; the session."""
    chance = random.Random(user_id)
    session = memory.create_session(user_id).id
    texts = [" ".join(chance.choices(WORDS, k=5)) for _ in range(messages + facts)]
    memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts[:messages]])
    memory.add_knowledge_many(
        [Knowledge(user_id=user_id, key=f"k{number}", value=text) for number, text in enumerate(texts[messages:])]
    )
    if index:
        memory.reindex()
    return session


def answers(memory: MemoryManager, user_id: str = "alice", **options: Any) -> list[tuple[str, int, float]]:
    """What is found for some questions: kinds, ids, scores."""
    found: list[tuple[str, int, float]] = []
    for query in ("tea in the garden", "a train in winter", "lamp", "nothing of that kind"):
        items = (
            *memory.search_messages(query, user_id=user_id, limit=30, **options),
            *memory.search_knowledge(query, 30, user_id=user_id),
            *memory.recall(query, user_id=user_id, limit=30),
        )
        found += [(type(item).__name__, item.id or 0, item.score or 0.0) for item in items]
    return found


def same(one: list[tuple[str, int, float]], other: list[tuple[str, int, float]]) -> bool:
    """Whether the same was found in the same order, with the same scores but for rounding."""
    return [entry[:2] for entry in one] == [entry[:2] for entry in other] and [entry[2] for entry in one] == (
        pytest.approx([entry[2] for entry in other], abs=1e-5)
    )


def pids(memory: MemoryManager) -> int | None:
    """The process of Chroma that the memory has started."""
    child = memory._tools.chroma.link._here()._child  # type: ignore[union-attr]
    return None if child is None else child.pid


def has(memory: MemoryManager) -> tuple[int, int]:
    """How many vectors Chroma has, and should have."""
    feeder = memory._tools.chroma
    assert feeder is not None
    return memory._store.read(lambda uow: kept(uow.db, feeder.link, 1))


def feed(memory: MemoryManager) -> None:
    """What the thread in the background does when it is woken."""
    feeder = memory._tools.chroma
    assert feeder is not None
    feeder._work(_NeverStopping())


class _NeverStopping(Event):
    """Nothing is waited for."""

    def wait(self, _timeout: float | None = None) -> bool:
        return False


def ready(memory: MemoryManager) -> None:
    """Chroma has been opened, and answers."""
    feeder = memory._tools.chroma
    assert feeder is not None
    feeder.link.open(insist=True)
