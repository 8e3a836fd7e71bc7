"""Scope: an owner sees and changes what is its own, reads what is shared, and notices nothing of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mirai_memory import InvalidInput, Knowledge, MemoryManager, NotFound, Task, UserMemory, UserPreferences
from mirai_memory.testing.contract.making import contents, new_session, said, say


def _shared(memory: MemoryManager, value: str, **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(value=value, **fields))


class ScopeContract:
    def test_the_memory_of_one_owner_does_what_the_whole_one_does(self, memory: MemoryManager) -> None:
        alice = memory.for_user("alice")
        assert alice.user_id == "alice"
        session = alice.create_session(agent_id="planner")
        assert alice.ensure_session("chat") == memory.ensure_session("alice", "chat")
        say(memory, session.id, "one")
        alice.add_message(said(session.id, "two"))
        alice.add_task(Task(description="x"))
        alice.add_knowledge(Knowledge(value="likes tea"))
        alice.save_user_preferences(UserPreferences(user_id="alice", coding_style="black"))
        assert [found.id for found in alice.list_sessions()] == [found.id for found in memory.list_sessions("alice")]
        assert alice.get_active_sessions() == memory.get_active_sessions(user_id="alice")
        assert contents(alice.get_messages(session.id)) == ["one", "two"]
        assert alice.get_tasks() == memory.get_tasks(user_id="alice")
        assert [fact.user_id for fact in alice.get_knowledge()] == ["alice"]
        assert alice.get_user_preferences() == memory.get_user_preferences("alice")
        assert contents(alice.search_messages("two"))[:1] == ["two"]
        assert [fact.value for fact in alice.search_knowledge("tea")] == ["likes tea"]
        assert len(alice.recall("tea two")) == 3  # with the message beside

    def test_lists_and_searches_hold_one_s_own_only(self, memory: MemoryManager) -> None:
        alice, bob = memory.for_user("alice"), memory.for_user("bob")
        for owner in (alice, bob):
            say(memory, owner.create_session().id, f"tea of {owner.user_id}")
            owner.add_task(Task(description="tea"))
            owner.add_knowledge(Knowledge(value=f"tea of {owner.user_id}"))
        assert {session.user_id for session in alice.list_sessions() + alice.get_active_sessions()} == {"alice"}
        assert {task.user_id for task in alice.get_tasks()} == {"alice"}
        assert {fact.user_id for fact in alice.get_knowledge() + alice.search_knowledge("tea")} == {"alice"}
        assert contents(alice.search_messages("tea")) == ["tea of alice"]
        assert {item.user_id for item in alice.recall("tea")} == {"alice"}

    def test_the_whole_memory_narrows_to_the_owner_that_is_named(self, memory: MemoryManager) -> None:
        for owner in ("alice", "bob"):
            say(memory, new_session(memory, owner), f"tea of {owner}")
            memory.add_task(Task(user_id=owner, description="tea"))
        assert len(memory.list_sessions()) == len(memory.get_tasks()) == len(memory.search_messages("tea")) == 2
        assert contents(memory.search_messages("tea", user_id="bob")) == ["tea of bob"]
        assert [session.user_id for session in memory.list_sessions("bob")] == ["bob"]
        assert [session.user_id for session in memory.get_active_sessions(user_id="bob")] == ["bob"]

    def test_another_owner_s_id_answers_like_a_missing_one(self, memory: MemoryManager) -> None:
        session = new_session(memory, "bob")
        [message] = say(memory, session, "secret")
        task = memory.add_task(Task(session_id=session, description="secret"))
        fact = memory.add_knowledge(Knowledge(user_id="bob", value="secret"))
        alice = memory.for_user("alice")
        assert [alice.get_session(session), alice.get_message(message), alice.get_task(task)] == [None] * 3
        assert alice.get_messages(session) == alice.get_recent_messages(session) == []
        assert alice.get_conversation_history(session) == []
        assert alice.get_tasks(session) == []
        writes: list[Callable[[], Any]] = [
            lambda: alice.add_message(said(session, "x")),
            lambda: alice.update_message(message, "x"),
            lambda: alice.delete_message(message),
            lambda: alice.pop_message(session),
            lambda: alice.trim_old_messages(session, 0),
            lambda: alice.clear_session(session),
            lambda: alice.delete_session(session),
            lambda: alice.update_session(session, metadata={}),
            lambda: alice.add_task(Task(session_id=session, description="x")),
            lambda: alice.update_task_status(task, "failed"),
            lambda: alice.delete_task(task),
            lambda: alice.delete_knowledge(fact),
            lambda: alice.add_knowledge(Knowledge(value="x", message_id=message)),
        ]
        for write in writes:
            with pytest.raises(NotFound):
                write()
        assert contents(memory.get_messages(session)) == ["secret"]
        assert memory.get_task(task) is not None

    def test_a_batch_with_another_owner_s_session_is_refused_whole(self, memory: MemoryManager) -> None:
        own, foreign = new_session(memory), new_session(memory, "bob")
        with pytest.raises(NotFound):
            memory.for_user("alice").add_messages([said(own, "one"), said(foreign, "two")])
        assert memory.get_messages(own) == memory.get_messages(foreign) == []

    def test_nothing_is_written_in_another_owner_s_name(self, memory: MemoryManager) -> None:
        alice = memory.for_user("alice")
        memory.save_user_preferences(UserPreferences(user_id="bob", coding_style="his"))
        session = alice.create_session().id
        writes: list[Callable[[], Any]] = [
            lambda: alice.save_user_preferences(UserPreferences(user_id="bob")),
            lambda: alice.add_task(Task(user_id="bob", description="x")),
            lambda: alice.add_knowledge(Knowledge(user_id="bob", value="x")),
            lambda: alice.add_message(said(session, user_id="bob")),
        ]
        for write in writes:
            with pytest.raises(InvalidInput):
                write()
        bobs = memory.get_user_preferences("bob")
        assert bobs is not None
        assert (bobs.coding_style, bobs.version) == ("his", 1)
        assert memory.get_tasks() == []
        assert memory.get_knowledge(user_id="bob") == []

    def test_shared_facts_are_read_by_everybody_and_changed_by_nobody(self, memory: MemoryManager) -> None:
        shared = _shared(memory, "tea at five", key="tea")
        alice = memory.for_user("alice")
        assert [fact.id for fact in alice.get_knowledge()] == [shared]
        assert [fact.id for fact in alice.search_knowledge("tea")] == [shared]
        own = alice.add_knowledge(Knowledge(value="tea at four", key="tea"))
        assert alice.add_knowledge(Knowledge(value="tea at five", key="tea")) not in (shared, own)
        assert alice.delete_knowledge(key="tea") == 2
        with pytest.raises(NotFound):
            alice.delete_knowledge(shared)
        [fact] = memory.get_knowledge()
        assert (fact.id, fact.value, fact.superseded_at) == (shared, "tea at five", None)

    def test_a_shared_fact_does_not_tell_whose_message_it_came_from(self, memory: MemoryManager) -> None:
        [message] = say(memory, new_session(memory, "bob"), "tea at five")
        _shared(memory, "tea at five", message_id=message)
        [fact] = memory.for_user("alice").get_knowledge()
        assert fact.message_id is None

    def test_others_weigh_nothing_in_one_s_scores(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "green tea", "black tea", "green pepper and some more words")
        for number, value in enumerate(["green tea", "black tea", "green pepper"]):
            memory.add_knowledge(Knowledge(user_id="alice", value=value, key=str(number)))
        alice = memory.for_user("alice")

        def scores(searching: UserMemory) -> list[tuple[str, float | None]]:
            messages = [(found.content, found.score) for found in searching.search_messages("green tea")]
            return messages + [(found.value, found.score) for found in searching.search_knowledge("green tea")]

        before = scores(alice)
        say(memory, new_session(memory, "bob"), *(f"green green tea {number}" for number in range(50)))
        for number in range(20):
            memory.add_knowledge(Knowledge(user_id="bob", value=f"green {number}", key=str(number)))
        assert scores(alice) == before

    def test_owners_are_equal_only_when_they_are_the_same(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory, "alice"), "tea")
        memory.add_knowledge(Knowledge(user_id="alice", value="tea"))
        for owner in ("Alice", "alice ", "аlice", "alic", "alice/1", "%", "_____", "' OR ''='", "@1"):
            other = memory.for_user(owner)
            assert [*other.list_sessions(), *other.search_messages("tea"), *other.get_knowledge()] == [], owner
            say(memory, other.create_session().id, "tea of another")
            assert contents(other.search_messages("tea")) == ["tea of another"], owner
        assert contents(memory.search_messages("tea", user_id="alice")) == ["tea"]
