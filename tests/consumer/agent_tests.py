"""The tests of an application, as its authors would write them; run by tests/test_consumer.py in another place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirai_memory import Knowledge, MemoryManager, UserMemory
from mirai_memory.testing import (
    FrozenClock,
    KnowledgeFactory,
    MemoryContract,
    MessageFactory,
    OwnerCanary,
    PreferencesFactory,
    SessionFactory,
    TaskFactory,
)


class Agent:
    """The application."""

    def __init__(self, memory: UserMemory) -> None:
        self.memory = memory

    def prompt(self, session_id: str, question: str) -> str:
        return self.memory.build_context(session_id, question).to_prompt()


def test_the_agent_remembers(memory: MemoryManager, user_memory: UserMemory, memory_clock: FrozenClock) -> None:
    session = SessionFactory.create(memory=memory)
    MessageFactory.create_batch(5, session_id=session.id, memory=memory)
    assert [message.position for message in memory.get_recent_messages(session.id, limit=2)] == [4, 5]
    PreferencesFactory.create(memory=user_memory, communication_tone="dry")
    TaskFactory.create(memory=user_memory, session_id=session.id, description="buy tea")
    KnowledgeFactory.create(memory=user_memory, value="likes green tea")
    prompt = Agent(user_memory).prompt(session.id, "which tea?")
    assert all(words in prompt for words in ("dry", "buy tea", "likes green tea", "message 5"))
    memory_clock.advance(days=2)
    assert user_memory.get_active_sessions() == []


def test_the_agent_keeps_owners_apart(user_memory: UserMemory, owner_canary: OwnerCanary) -> None:
    session = SessionFactory.create(memory=user_memory)
    user_memory.add_knowledge(Knowledge(value="likes green tea"))
    assert "green tea" in Agent(user_memory).prompt(session.id, "a secret about tea")
    assert user_memory.get_session(owner_canary.session_id) is None


@pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)
def test_a_careless_agent_is_caught(memory: MemoryManager, owner_canary: OwnerCanary) -> None:
    memory.search_messages("what did anybody say about tea?")


class TestOurDatabase(MemoryContract):
    """The contract, on a database of ours."""

    @pytest.fixture
    def memory(self, tmp_path: Path, clock: FrozenClock) -> Iterator[MemoryManager]:
        with MemoryManager(tmp_path / "ours.db", clock=clock) as memory:
            yield memory
