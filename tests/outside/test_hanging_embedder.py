"""An embedder that hangs costs the vectors, never a text, and nobody waits for it longer than was set."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mirai_memory import EmbeddingError, Knowledge, MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder

TIMEOUT = 0.2
GUARD = 50.0  # far more than every time-out of a test together, and less than a call that hangs takes


@pytest.fixture
def embedder() -> Iterator[FakeEmbedder]:
    embedder = FakeEmbedder(dim=16)
    yield embedder
    embedder.release()


@pytest.fixture
def memory(embedder: FakeEmbedder, url: str) -> Iterator[MemoryManager]:
    settings = load_settings(models={"embedding": {"timeout_s": TIMEOUT}})
    with MemoryManager(url, settings=settings, embedder=embedder) as memory:
        yield memory


def test_every_call_ends_and_every_text_is_kept(memory: MemoryManager, embedder: FakeEmbedder) -> None:
    session = memory.create_session("alice").id
    embedder.hang()
    started = time.monotonic()
    message = memory.add_message(Message(session_id=session, role="user", content="the walrus likes green tea"))
    fact = memory.add_knowledge(Knowledge(user_id="alice", key="drink", value="green tea"))
    many = memory.add_knowledge_many([Knowledge(user_id="alice", key=f"k{n}", value=f"walrus {n}") for n in range(50)])
    memory.update_message(message, "the walrus likes black tea")
    assert [found.id for found in memory.search_messages("walrus", user_id="alice")] == [message]
    assert fact in [found.id for found in memory.search_knowledge("tea", user_id="alice")]
    assert {found.id for found in memory.search_knowledge("walrus", 60, user_id="alice")} == set(many)
    assert len(memory.recall("tea", user_id="alice")) == 2
    assert memory.build_context(session, "tea").knowledge
    with pytest.raises(EmbeddingError):
        memory.reindex()
    assert time.monotonic() - started < GUARD

    embedder.release()
    embedder.recover()
    made = _reindexed(memory)
    assert made > 0
    assert memory.reindex() == 0
    assert all(fact.embedding for fact in memory.get_knowledge(user_id="alice", with_embedding=True))


def _reindexed(memory: MemoryManager) -> int:
    """The call that hung has to come back first, which it does without anybody's doing."""
    deadline = time.monotonic() + GUARD
    while True:
        try:
            return memory.reindex()
        except EmbeddingError:
            assert time.monotonic() < deadline


def test_closing_does_not_wait_for_it(memory: MemoryManager, embedder: FakeEmbedder, url: str) -> None:
    session = memory.create_session("alice").id
    embedder.hang()
    memory.add_message(Message(session_id=session, role="user", content="the walrus likes green tea"))
    started = time.monotonic()
    memory.close()
    assert time.monotonic() - started < GUARD
    with MemoryManager(url) as again:
        assert [found.content for found in again.search_messages("walrus")] == ["the walrus likes green tea"]
