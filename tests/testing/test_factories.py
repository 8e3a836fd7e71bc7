"""Factories: what they build is plausible, what they create is really there, and every run makes the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mirai_memory import InvalidInput, MemoryManager, NotFound, UserMemory
from mirai_memory.testing import (
    KnowledgeFactory,
    MessageFactory,
    PreferencesFactory,
    SessionFactory,
    TaskFactory,
    factories,
)

ALL = (SessionFactory, MessageFactory, PreferencesFactory, TaskFactory, KnowledgeFactory)


@pytest.fixture(autouse=True)
def _numbers_from_the_start() -> None:
    factories.reset()


@pytest.fixture(params=["everybody", "alice", "bob"])
def place(request: pytest.FixtureRequest, memory: MemoryManager) -> MemoryManager | UserMemory:
    """Where to create: the whole memory, that of the factories' own owner, that of another."""
    return memory if request.param == "everybody" else memory.for_user(request.param)


def owner_of(place: MemoryManager | UserMemory) -> str:
    return place.user_id if isinstance(place, UserMemory) else "alice"


@pytest.mark.parametrize("factory", ALL)
def test_building_makes_entities_one_after_the_other(factory: Any) -> None:
    first, second = factory.build_batch(2)
    assert first != second
    factories.reset()
    assert [factory(), factory.build()] == [first, second]


def test_what_is_stated_is_kept() -> None:
    message = MessageFactory.build(role="assistant", content="exactly this", tokens=3)
    assert (message.role, message.content, message.tokens, message.id) == ("assistant", "exactly this", 3, None)


def test_a_created_session_is_the_store_s(place: MemoryManager | UserMemory) -> None:
    session = SessionFactory.create(memory=place, agent_id="planner")
    assert place.get_session(session.id) == session
    assert (session.user_id, session.agent_id, session.metadata) == (owner_of(place), "planner", {"title": "Session 1"})


def test_a_session_with_a_name_is_made_once(place: MemoryManager | UserMemory) -> None:
    first, second = SessionFactory.create_batch(2, memory=place, external_id="chat")
    assert (first.id, first.external_id) == (second.id, "chat")


def test_a_session_s_id_is_chosen_in_the_whole_memory_only(memory: MemoryManager) -> None:
    assert SessionFactory.create(memory=memory, id="mine").id == "mine"
    with pytest.raises(InvalidInput, match="id: "):
        SessionFactory.create(memory=memory.for_user("alice"), id="mine")
    with pytest.raises(InvalidInput, match="message_count"):
        SessionFactory.create(memory=memory, message_count=3)


def test_created_messages_have_their_place(place: MemoryManager | UserMemory) -> None:
    session = SessionFactory.create(memory=place)
    made = MessageFactory.create_batch(5, session_id=session.id, memory=place)
    assert [message.position for message in made] == [1, 2, 3, 4, 5]
    assert [message.position for message in place.get_recent_messages(session.id, limit=2)] == [4, 5]
    assert made == place.get_messages(session.id)
    assert all(message.id and message.timestamp and message.user_id == owner_of(place) for message in made)


def test_a_message_without_a_session_gets_one(place: MemoryManager | UserMemory) -> None:
    message = MessageFactory.create(memory=place)
    session = place.get_session(message.session_id)
    assert session is not None
    assert (session.user_id, session.message_count) == (owner_of(place), 1)


def test_created_preferences_have_a_version(place: MemoryManager | UserMemory) -> None:
    assert PreferencesFactory.create(memory=place, communication_tone="dry").version == 1
    again = PreferencesFactory.create(memory=place)
    assert (again.version, again.user_id, again.communication_tone) == (2, owner_of(place), "brief")


def test_created_tasks_are_there(place: MemoryManager | UserMemory) -> None:
    session = SessionFactory.create(memory=place)
    alone, done = TaskFactory.create(memory=place), TaskFactory.create(memory=place, status="completed")
    of_session = TaskFactory.create(memory=place, session_id=session.id)
    assert place.get_tasks() == [alone, done, of_session]
    assert (alone.session_id, of_session.session_id) == (None, session.id)
    assert done.completed_at is not None
    assert {alone.user_id, of_session.user_id} == {owner_of(place)}


def test_created_facts_are_there(place: MemoryManager | UserMemory) -> None:
    made = KnowledgeFactory.create_batch(2, memory=place)
    keyless = KnowledgeFactory.create(memory=place, key=None, value="tea")
    day = datetime(2020, 1, 1, tzinfo=UTC)
    closed = KnowledgeFactory.create(memory=place, key=made[0].key, valid_from=day, valid_to=day)
    assert closed.valid_to == day
    narrow: dict[str, Any] = {} if isinstance(place, UserMemory) else {"user_id": "alice"}
    assert place.get_knowledge(**narrow) == [*made, keyless]
    assert {fact.user_id for fact in made} == {owner_of(place)}


def test_a_shared_fact_is_made_in_the_whole_memory(memory: MemoryManager) -> None:
    fact = KnowledgeFactory.create(memory=memory, user_id=None)
    assert fact.user_id is None
    assert memory.get_knowledge() == [fact]
    with_owner = KnowledgeFactory.create(memory=memory.for_user("bob"), user_id=None)
    assert with_owner.user_id == "bob"


@pytest.mark.parametrize("factory", ALL)
def test_another_owner_is_refused_in_an_owner_s_memory(factory: Any, memory: MemoryManager) -> None:
    with pytest.raises(InvalidInput, match="user_id"):
        factory.create(memory=memory.for_user("bob"), user_id="alice")
    made = factory.create(memory=memory, user_id="bob")
    assert made.user_id == "bob"


def test_a_session_that_is_not_there_is_an_error(memory: MemoryManager) -> None:
    with pytest.raises(NotFound):
        MessageFactory.create(memory=memory, session_id="missing")


@pytest.mark.parametrize("factory", ALL)
def test_creating_needs_a_memory(factory: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="memory"):
        factory.create()  # type: ignore[attr-defined]


def test_factories_can_be_derived(memory: MemoryManager) -> None:
    class AnswerFactory(MessageFactory):
        role = "assistant"

    made = AnswerFactory.create(memory=memory, session_id=SessionFactory.create(memory=memory).id)
    assert (made.role, made.position) == ("assistant", 1)


@pytest.mark.long
def test_every_run_makes_the_same_texts() -> None:
    code = (
        "import random; random.seed()\n"
        "from mirai_memory.testing import KnowledgeFactory, MessageFactory\n"
        "print([m.content for m in MessageFactory.build_batch(3)], KnowledgeFactory.build().value)"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(2)
    }
    here = ([message.content for message in MessageFactory.build_batch(3)], KnowledgeFactory.build().value)
    assert runs == {f"{here[0]} {here[1]}\n"}
    contents = here[0]
    assert len(set(contents)) == 3


def test_the_host_s_own_randomness_is_left_alone() -> None:
    import factory.random as host

    before = host.get_random_state()
    MessageFactory.build_batch(3)
    assert host.get_random_state() == before


@pytest.mark.parametrize("missing", ["factory", "faker"])
def test_a_missing_package_names_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom mirai_memory.testing import MessageFactory"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "MissingExtra: factory-boy is not installed; pip install 'mirai-memory[testing]'" in done.stderr


def test_the_clock_needs_no_extra() -> None:
    code = (
        "import sys\nfor name in ('factory', 'faker', 'pytest'): sys.modules[name] = None\n"
        "from mirai_memory.testing import FrozenClock; FrozenClock()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
