"""Two that work on the same rows at one time: whoever comes second waits, and then sees what the first has done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from server_side import GUARD, wait_for_waiting

from mirai_memory import (
    Conflict,
    Knowledge,
    MemoryManager,
    Message,
    NotFound,
    Task,
    UnitOfWork,
    UserPreferences,
    load_settings,
)
from mirai_memory.database.postgres import PostgreSQL
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.contract.making import said


@pytest.fixture
def memory(postgres_url: str) -> Iterator[MemoryManager]:
    settings = load_settings(memory={"rag": {"background": False}})
    with MemoryManager(postgres_url, embedder=FakeEmbedder(dim=8), settings=settings) as memory:
        yield memory


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The units of work that were run again."""
    found: list[BaseException] = []
    is_transient = PostgreSQL.is_transient

    def seen(self: PostgreSQL, error: BaseException) -> bool:
        again = is_transient(self, error)
        found.extend([error] * again)
        return again

    monkeypatch.setattr(PostgreSQL, "is_transient", seen)
    return found


def _meet(memory: MemoryManager, url: str, first: Callable[[UnitOfWork], Any], second: Callable[[], Any]) -> Any:
    """What the second returns, which has come to wait for the first before the first is committed."""
    with ThreadPoolExecutor(1) as pool:
        with memory.unit_of_work() as uow:
            first(uow)
            late = pool.submit(second)
            wait_for_waiting(url, late)
        return late.result(GUARD)


def _session(memory: MemoryManager, *texts: str) -> tuple[str, list[int]]:
    session = memory.create_session("alice").id
    return session, memory.add_messages([said(session, text) for text in texts])


def _faults(memory: MemoryManager) -> dict[str, int]:
    return {fault.name: fault.count for fault in memory.verify().faults}


def test_a_message_that_is_changed_while_it_is_deleted(memory: MemoryManager, postgres_url: str) -> None:
    session, [id, _] = _session(memory, "the walrus", "stays")
    _meet(memory, postgres_url, lambda uow: uow.messages.update(id, "drinks tea"), lambda: memory.delete_message(id))
    assert [message.content for message in memory.get_messages(session)] == ["stays"]
    assert memory.search_messages("tea") == []
    assert _faults(memory) == {}


def test_preferences_that_are_changed_twice(memory: MemoryManager, postgres_url: str) -> None:
    memory.save_user_preferences(UserPreferences(user_id="alice"))
    _meet(
        memory,
        postgres_url,
        lambda uow: uow.preferences.change("alice", {"coding_style": "first"}),
        lambda: memory.update_user_preferences("alice", project_context="second"),
    )
    found = memory.get_user_preferences("alice")
    assert found is not None
    assert (found.coding_style, found.project_context, found.version) == ("first", "second", 3)


def test_a_message_that_is_deleted_while_its_session_is_trimmed(memory: MemoryManager, postgres_url: str) -> None:
    session, [id, _, _] = _session(memory, "first", "second", "third")
    with pytest.raises(NotFound):
        _meet(memory, postgres_url, lambda uow: uow.messages.trim(session, 1), lambda: memory.delete_message(id))
    found = memory.get_session(session)
    assert found is not None
    assert found.message_count == 1
    assert _faults(memory) == {}


def test_a_message_that_is_deleted_with_its_session(memory: MemoryManager, postgres_url: str) -> None:
    session, [id] = _session(memory, "first")
    with pytest.raises(NotFound, match="message"):
        _meet(memory, postgres_url, lambda uow: uow.sessions.delete(session), lambda: memory.delete_message(id))
    assert _faults(memory) == {}


def test_a_vector_that_is_made_of_what_is_being_deleted(memory: MemoryManager, postgres_url: str) -> None:
    """Whoever deletes waits for it, and deletes it too."""
    _, [id] = _session(memory, "the walrus")
    model = str(memory.embedding_model)

    def store(uow: UnitOfWork) -> None:
        [wanted] = uow.vectors.pending(model, limit=9)
        assert uow.vectors.store(model, 8, [(wanted, bytes(16))]) == 1

    _meet(memory, postgres_url, store, lambda: memory.delete_message(id))
    assert _faults(memory) == {}


def test_a_vector_that_is_made_of_what_is_deleted_first(memory: MemoryManager, postgres_url: str) -> None:
    _, [id] = _session(memory, "the walrus")
    model = str(memory.embedding_model)
    [wanted] = memory.run(lambda uow: uow.vectors.pending(model, limit=9))
    store: Callable[[UnitOfWork], int] = lambda uow: uow.vectors.store(model, 8, [(wanted, bytes(16))])  # noqa: E731
    stored = _meet(memory, postgres_url, lambda uow: uow.messages.delete(id), lambda: memory.run(store))
    assert stored == 0
    assert _faults(memory) == {}


def test_a_vector_that_is_stored_while_its_owner_is_written_to(
    memory: MemoryManager, postgres_url: str, lost: list[BaseException]
) -> None:
    """It waits before it holds anything that the other will want."""
    session, [id] = _session(memory, "the walrus")
    model = str(memory.embedding_model)
    [wanted] = memory.run(lambda uow: uow.vectors.pending(model, limit=9))
    with ThreadPoolExecutor(1) as pool:
        with memory.unit_of_work() as uow:
            uow.messages.add(said(session, "more"))
            late = pool.submit(memory.run, lambda uow: uow.vectors.store(model, 8, [(wanted, bytes(16))]))
            wait_for_waiting(postgres_url, late)
            uow.messages.delete(id)
        assert late.result(GUARD) == 0
    assert lost == []
    assert _faults(memory) == {}


def test_a_vector_that_is_wanted_of_what_is_being_deleted(postgres_url: str) -> None:
    with MemoryManager(postgres_url) as without:
        _, [id] = _session(without, "the walrus")
        want: Callable[[UnitOfWork], Any] = lambda uow: uow.vectors.want_missing(  # noqa: E731
            "fake", "message", after=0, limit=9
        )
        settings = load_settings(memory={"rag": {"background": False}})
        with MemoryManager(postgres_url, embedder=FakeEmbedder(dim=8), settings=settings) as memory:
            _meet(memory, postgres_url, want, lambda: without.delete_message(id))
            assert _faults(memory) == {}


def test_what_is_added_while_its_owner_is_forgotten(memory: MemoryManager, postgres_url: str) -> None:
    """What was not there when it began is forgotten too, and nothing of it is left anywhere."""
    _session(memory, "first")

    def add(uow: UnitOfWork) -> None:
        uow.messages.add(said(uow.sessions.create("alice").id, "the walrus"))

    _meet(memory, postgres_url, add, lambda: memory.forget_user("alice", compact=False))
    assert memory.list_sessions("alice") == []
    assert _faults(memory) == {}
    session, _ = _session(memory, "the walrus again")
    assert [message.session_id for message in memory.search_messages("walrus", user_id="alice")] == [session]
    assert _faults(memory) == {}


@pytest.mark.parametrize("owners", [("alice", "alice"), ("alice", "bob")], ids=["one owner", "two owners"])
def test_facts_in_opposite_order(
    memory: MemoryManager, postgres_url: str, lost: list[BaseException], owners: tuple[str, str]
) -> None:
    """The second waits before it holds anything that the first will want."""
    city, pet = (
        Knowledge(user_id=owner, key=key, value="x") for owner, key in zip(owners, ("city", "pet"), strict=True)
    )
    memory.add_knowledge_many([city, pet])

    def first(uow: UnitOfWork) -> None:
        uow.knowledge.add_many([Knowledge(user_id=owners[0], key="city", value="first")])

    def second() -> list[int]:
        changed = [Knowledge(user_id=fact.user_id, key=fact.key, value="second") for fact in (pet, city)]
        return memory.add_knowledge_many(changed)

    with ThreadPoolExecutor(1) as pool:
        with memory.unit_of_work() as uow:
            first(uow)
            late = pool.submit(second)
            wait_for_waiting(postgres_url, late)
            uow.knowledge.add(Knowledge(user_id=owners[1], key="pet", value="first"))
        late.result(GUARD)
    assert lost == []
    assert {fact.value for owner in owners for fact in memory.get_knowledge(user_id=owner)} == {"second"}
    assert _faults(memory) == {}


def test_batches_over_sessions_in_opposite_order(
    memory: MemoryManager, postgres_url: str, lost: list[BaseException]
) -> None:
    """Owners are counted in one order, whatever the order of their sessions."""
    ids = {name: memory.create_session(owner, session_id=name).id for owner, name in ANN_AND_BEN}
    memory.add_messages([said(id, "known") for id in ids.values()])
    with ThreadPoolExecutor(1) as pool:
        with memory.unit_of_work() as uow:
            uow.messages.add(said("b", "first"))  # ann's
            late = pool.submit(memory.add_messages, [said("c", "second"), said("d", "second")])  # ben's, then ann's
            wait_for_waiting(postgres_url, late)
            uow.messages.add(said("a", "first"))  # ben's
        late.result(GUARD)
    assert lost == []
    assert _faults(memory) == {}


ANN_AND_BEN = (("ben", "a"), ("ann", "b"), ("ben", "c"), ("ann", "d"))


def test_a_fact_learned_from_a_message_that_goes(memory: MemoryManager, postgres_url: str) -> None:
    """It is found to be missing by the second run, not said in words of the schema."""
    _, [id] = _session(memory, "the walrus")
    fact = Knowledge(key="animal", value="walrus", message_id=id)
    with pytest.raises(NotFound, match="message"):
        _meet(memory, postgres_url, lambda uow: uow.messages.delete(id), lambda: memory.add_knowledge(fact))
    assert memory.get_knowledge() == []
    assert _faults(memory) == {}


def test_a_task_of_a_session_that_goes(memory: MemoryManager, postgres_url: str) -> None:
    session, _ = _session(memory, "first")
    task = Task(session_id=session, description="brew")
    with pytest.raises(NotFound, match="session"):
        _meet(memory, postgres_url, lambda uow: uow.sessions.delete(session), lambda: memory.add_task(task))
    assert memory.get_tasks() == []


def test_one_client_id_at_a_time(memory: MemoryManager, postgres_url: str) -> None:
    session, _ = _session(memory, "first")
    ids: list[int] = []
    named = Message(session_id=session, role="user", content="once", client_id="r1")
    late = _meet(
        memory, postgres_url, lambda uow: ids.append(uow.messages.add(named)), lambda: memory.add_message(named)
    )
    assert [late] == ids
    other = Message(session_id=session, role="user", content="twice", client_id="r1")
    with pytest.raises(Conflict):
        memory.add_message(other)
    assert [message.content for message in memory.get_messages(session)] == ["first", "once"]
