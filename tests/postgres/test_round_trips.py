"""How often a call waits for the server: across a network that is what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pooler import pooler

from mirai_memory import MemoryManager, Message, vector_tables
from mirai_memory.search import table_vectors
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.contract.making import new_session, said, say


@pytest.mark.parametrize(
    ("call", "trips"),
    [
        (lambda memory, session: memory.add_message(said(session, "tea")), 3),
        (lambda memory, session: memory.get_recent_messages(session, 12), 2),
        (lambda memory, session: memory.get_session(session), 2),
        (lambda memory, session: memory.search_messages("tea", user_id="alice"), 3),
    ],
    ids=["append", "newest", "session", "search"],
)
def test_a_call_waits_so_often(postgres_url: str, call: Callable[[MemoryManager, str], Any], trips: int) -> None:
    with pooler(postgres_url) as pooled, MemoryManager(pooled.url) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"tea {n}") for n in range(3)])
        assert call(memory, session)  # what is kept from now on is not asked for again
        before = pooled.trips
        call(memory, session)
        assert pooled.trips - before == trips


def test_new_words_are_looked_up_together(postgres_url: str) -> None:
    """What begins the search, all terms, the messages, and the end."""
    with pooler(postgres_url) as pooled, MemoryManager(pooled.url) as memory:
        say(memory, new_session(memory), "green tea", "black tea", "rain in the garden")
        memory.search_messages("tower", user_id="alice")
        before = pooled.trips
        assert len(memory.search_messages("green tea, black coffee and rain", user_id="alice")) == 3
        assert pooled.trips - before == 4


def test_a_search_by_meaning_asks_an_index_in_one(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether vectors are wanted, what begins the search, the tables, the nearest, the messages, and the end."""
    monkeypatch.setattr(table_vectors, "EXACT", 0)
    embedder = FakeEmbedder(dim=8)
    with pooler(postgres_url) as pooled, MemoryManager(pooled.url, embedder=embedder) as memory:
        say(memory, new_session(memory), "green tea", "black tea", "rain in the garden")
        memory.reindex()
        vector_tables.enable(postgres_url)
        assert memory.search_messages("tea", user_id="alice")
        before = pooled.trips
        assert memory.search_messages("tea", user_id="alice")
        assert pooled.trips - before == 6
