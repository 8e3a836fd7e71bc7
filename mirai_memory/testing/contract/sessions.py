"""Conversations: made once, listed in order, emptied, deleted with all that belongs to them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mirai_memory import Conflict, InvalidInput, Knowledge, MemoryManager, NotFound, Session, Task
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, say


def _ids(sessions: list[Session]) -> list[str]:
    return [session.id for session in sessions]


class SessionContract:
    def test_a_created_session_comes_back_as_it_was_returned(self, memory: MemoryManager, clock: FrozenClock) -> None:
        created = memory.create_session("alice", agent_id="planner", metadata={"топик": ["чай", 1.5, None]})
        assert created.created_at == created.last_active == clock()
        assert (created.user_id, created.agent_id, created.message_count) == ("alice", "planner", 0)
        assert memory.get_session(created.id) == created

    def test_a_session_id_of_ones_own_is_taken_once(self, memory: MemoryManager) -> None:
        assert memory.create_session("alice", session_id="mine").id == "mine"
        with pytest.raises(Conflict):
            memory.create_session("alice", session_id="mine")

    def test_an_unknown_session_is_none(self, memory: MemoryManager) -> None:
        assert memory.get_session("nobody's") is None

    def test_ensure_makes_a_session_once(self, memory: MemoryManager) -> None:
        first = memory.ensure_session("alice", "chat-1", agent_id="planner", metadata={"a": 1})
        assert memory.ensure_session("alice", "chat-1", agent_id="other", metadata={"b": 2}) == first
        assert first.external_id == "chat-1"

    def test_two_owners_may_use_one_name(self, memory: MemoryManager) -> None:
        assert memory.ensure_session("alice", "chat").id != memory.ensure_session("bob", "chat").id

    def test_updating_replaces_the_metadata(self, memory: MemoryManager) -> None:
        created = memory.create_session("alice", metadata={"a": 1})
        updated = memory.update_session(created.id, metadata={"b": 2})
        assert updated.metadata == {"b": 2}
        assert memory.get_session(created.id) == updated

    def test_activity_is_noted(self, memory: MemoryManager, clock: FrozenClock) -> None:
        id = new_session(memory)
        clock.advance(hours=1)
        assert memory.update_session_activity(id).last_active == clock()
        clock.advance(hours=1)
        say(memory, id, "still here")
        session = memory.get_session(id)
        assert session is not None
        assert session.last_active == clock()
        assert session.created_at == clock() - timedelta(hours=2)

    def test_active_sessions_are_the_latest_used(self, memory: MemoryManager, clock: FrozenClock) -> None:
        new_session(memory)
        clock.advance(hours=20)
        second = new_session(memory)
        clock.advance(hours=5)
        third = new_session(memory, "bob")
        assert _ids(memory.get_active_sessions()) == [third, second]
        assert _ids(memory.get_active_sessions(user_id="alice")) == [second]
        assert _ids(memory.get_active_sessions(5)) == [third, second]
        assert _ids(memory.get_active_sessions(4.99)) == [third]

    def test_pages_hold_every_session_once_in_order(self, memory: MemoryManager, clock: FrozenClock) -> None:
        made = []
        for number in range(5):
            made.append(new_session(memory))
            clock.advance(seconds=number % 2)  # some are made at the same moment
        new_session(memory, "bob")
        pages, after = [], None
        while page := memory.list_sessions("alice", limit=2, after=after):
            pages += _ids(page)
            after = pages[-1]
        assert pages == made
        assert len(memory.list_sessions()) == 6
        assert memory.list_sessions(limit=0) == []

    def test_a_page_after_an_unknown_session_is_refused(self, memory: MemoryManager) -> None:
        with pytest.raises(InvalidInput):
            memory.list_sessions(after="nobody's")

    def test_clearing_takes_the_messages_only(self, memory: MemoryManager) -> None:
        id, other = new_session(memory), new_session(memory)
        say(memory, id, "one", "two")
        say(memory, other, "three")
        memory.add_task(Task(session_id=id, description="stays"))
        assert memory.clear_session(id) == 2
        assert memory.get_messages(id) == []
        assert memory.search_messages("one two") == []
        session = memory.get_session(id)
        assert session is not None
        assert session.message_count == 0
        assert contents(memory.get_messages(other)) == ["three"]
        assert len(memory.get_tasks(id)) == 1

    def test_places_are_not_used_again_after_clearing(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, "one", "two")
        memory.clear_session(id)
        say(memory, id, "three")
        assert [message.position for message in memory.get_messages(id)] == [3]

    def test_deleting_takes_messages_and_tasks_and_leaves_what_was_learned(self, memory: MemoryManager) -> None:
        id, other = new_session(memory), new_session(memory)
        [message] = say(memory, id, "I live in Oslo")
        say(memory, other, "and I in Riga")
        task = memory.add_task(Task(session_id=id, description="pack"))
        kept_task = memory.add_task(Task(user_id="alice", description="fly"))
        fact = memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Oslo", message_id=message))

        memory.delete_session(id)

        assert memory.get_session(id) is None
        assert memory.get_messages(id) == []
        assert memory.get_message(message) is None
        assert memory.get_task(task) is None
        assert memory.search_messages("Oslo") == []
        assert memory.get_task(kept_task) is not None
        assert contents(memory.get_messages(other)) == ["and I in Riga"]
        [learned] = memory.get_knowledge(user_id="alice")
        assert (learned.id, learned.value, learned.message_id) == (fact, "Oslo", None)

    def test_writes_to_an_unknown_session_are_not_found(self, memory: MemoryManager) -> None:
        for write in (
            lambda: memory.update_session("nobody's", metadata={}),
            lambda: memory.update_session_activity("nobody's"),
            lambda: memory.clear_session("nobody's"),
            lambda: memory.delete_session("nobody's"),
            lambda: memory.pop_message("nobody's"),
            lambda: memory.trim_old_messages("nobody's", 1),
        ):
            with pytest.raises(NotFound) as error:
                write()
            assert (error.value.kind, error.value.id) == ("session", "nobody's")
