"""Units of work, counts, upkeep: what is done together is kept together, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from mirai_memory import InvalidInput, Knowledge, MemoryManager, NotFound, Task, UnitOfWork, UserPreferences
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, said, say


class _Mine(Exception):
    """An application's own error."""


def _fill(uow: UnitOfWork, user_id: str = "alice") -> str:
    """Write something by every service; the session's id."""
    session = uow.sessions.create(user_id)
    message = uow.messages.add(said(session.id, "green tea"))
    uow.preferences.save(UserPreferences(user_id=user_id, coding_style="black"))
    uow.tasks.add(Task(session_id=session.id, description="brew"))
    uow.knowledge.add(Knowledge(user_id=user_id, value="likes tea", message_id=message))
    return session.id


def _holdings(memory: MemoryManager) -> list[Any]:
    return [
        memory.list_sessions(),
        memory.search_messages("tea"),
        memory.get_user_preferences("alice"),
        memory.get_tasks(),
        memory.get_knowledge(user_id="alice"),
    ]


class WorkContract:
    def test_run_keeps_all_and_returns_what_the_function_returns(self, memory: MemoryManager) -> None:
        session = memory.run(_fill)
        assert contents(memory.get_messages(session)) == ["green tea"]
        assert [len(held) if isinstance(held, list) else held.version for held in _holdings(memory)] == [1, 1, 1, 1, 1]

    def test_run_keeps_nothing_when_the_function_fails(self, memory: MemoryManager) -> None:
        before = _holdings(memory)

        def fail(uow: UnitOfWork) -> None:
            _fill(uow)
            raise _Mine

        with pytest.raises(_Mine):
            memory.run(fail)
        assert _holdings(memory) == before

    def test_a_unit_of_work_keeps_all(self, memory: MemoryManager) -> None:
        with memory.unit_of_work() as uow:
            session = _fill(uow)
        assert contents(memory.get_messages(session)) == ["green tea"]
        assert all(_holdings(memory))

    @pytest.mark.parametrize("error", [_Mine("mine"), OverflowError("mine"), ValueError("mine"), OSError("mine")])
    def test_a_unit_of_work_keeps_nothing_when_its_block_fails(self, memory: MemoryManager, error: Exception) -> None:
        def work() -> None:
            with memory.unit_of_work() as uow:
                _fill(uow)
                raise error

        with pytest.raises(type(error)) as raised:
            work()
        assert raised.value is error
        assert not any(_holdings(memory))

    def test_services_see_what_was_written_before_in_the_same_unit(self, memory: MemoryManager) -> None:
        with memory.unit_of_work() as uow:
            session = _fill(uow)
            assert contents(uow.messages.recent(session, 9)) == ["green tea"]
            assert contents(uow.messages.search("tea", limit=9)) == ["green tea"]
            assert [fact.value for fact in uow.knowledge.page(user_id="alice", limit=9)] == ["likes tea"]
            found = uow.sessions.get(session)
            assert found is not None
            assert found.message_count == 1

    def test_a_caught_error_of_a_service_does_not_spoil_the_unit(self, memory: MemoryManager) -> None:
        with memory.unit_of_work() as uow:
            session = uow.sessions.create("alice").id
            with pytest.raises(NotFound):
                uow.messages.add(said("nobody's", "x"))
            with pytest.raises(InvalidInput):
                uow.messages.add(said(session, "x\x00"))
            uow.messages.add(said(session, "tea"))
        assert contents(memory.get_messages(session)) == ["tea"]

    def test_the_memory_inside_a_unit_of_work_is_refused(self, memory: MemoryManager) -> None:
        session = new_session(memory)
        with memory.unit_of_work() as uow:
            uow.messages.add(said(session, "kept"))
            for use in (
                lambda: memory.get_session(session),
                lambda: memory.add_message(said(session, "x")),
                lambda: memory.for_user("alice").list_sessions(),
                lambda: memory.run(lambda inner: None),
            ):
                with pytest.raises(InvalidInput, match="unit of work"):
                    use()
        assert contents(memory.get_messages(session)) == ["kept"]

    def test_one_owner_s_unit_of_work_is_bound_to_that_owner(self, memory: MemoryManager) -> None:
        bobs = new_session(memory, "bob")

        def work(uow: UnitOfWork) -> None:
            assert uow.sessions.get(bobs) is None
            assert uow.sessions.create().user_id == "alice"
            for write in (
                lambda: uow.sessions.create("bob"),
                lambda: uow.preferences.save(UserPreferences(user_id="bob")),
                lambda: uow.tasks.add(Task(user_id="bob", description="x")),
                lambda: uow.knowledge.add(Knowledge(user_id="bob", value="x")),
            ):
                with pytest.raises(InvalidInput):
                    write()

        memory.for_user("alice").run(work)
        assert len(memory.list_sessions("alice")) == 1

    def test_stats_count_what_is_there(self, memory: MemoryManager, clock: FrozenClock) -> None:
        assert memory.get_stats().keys() >= {"db_size_mb"}
        memory.run(_fill)
        clock.advance(hours=24)
        assert memory.get_stats()["active_sessions_24h"] == 1
        clock.advance(seconds=1)
        memory.run(lambda uow: _fill(uow, "bob"))
        memory.add_knowledge(Knowledge(user_id="bob", value="Oslo", key="city"))
        memory.add_knowledge(Knowledge(user_id="bob", value="Riga", key="city"))
        stats = memory.get_stats()
        assert stats.pop("db_size_mb") > 0
        assert stats.pop("estimated") == []
        assert stats == {
            "total_sessions": 2,
            "active_sessions_24h": 1,
            "total_messages": 2,
            "total_tasks": 2,
            "total_knowledge": 3,  # current values
        }
        for session in memory.list_sessions():
            memory.delete_session(session.id)
        stats = memory.get_stats()
        assert (stats["total_sessions"], stats["total_messages"], stats["total_tasks"]) == (0, 0, 0)

    def test_cleanup_deletes_what_was_unused_for_longer(self, memory: MemoryManager, clock: FrozenClock) -> None:
        old = memory.run(_fill)
        clock.advance(seconds=1)
        kept = new_session(memory)
        clock.advance(days=30)
        assert memory.cleanup_old_sessions(30, dry_run=True) == 1
        assert memory.get_session(old) is not None
        assert memory.cleanup_old_sessions(30) == 1
        assert [session.id for session in memory.list_sessions()] == [kept]
        assert memory.search_messages("tea") == []
        assert memory.get_tasks() == []
        assert len(memory.get_knowledge(user_id="alice")) == 1
        assert memory.cleanup_old_sessions(30) == 0

    def test_cleanup_looks_at_use_and_not_at_age(self, memory: MemoryManager, clock: FrozenClock) -> None:
        used, unused = new_session(memory), new_session(memory)
        clock.advance(days=memory.settings.memory.long_term.retention_days)
        say(memory, used, "still here")
        clock.advance(seconds=1)
        assert memory.cleanup_old_sessions() == 1
        assert memory.get_session(used) is not None
        assert memory.get_session(unused) is None

    def test_cleanup_deletes_any_number(self, memory: MemoryManager, clock: FrozenClock) -> None:
        for _ in range(45):
            new_session(memory)
        clock.advance(seconds=1)
        assert memory.cleanup_old_sessions(0, dry_run=True) == memory.cleanup_old_sessions(0) == 45
        assert memory.list_sessions() == []

    def test_cleanup_of_an_age_beyond_all_time_deletes_nothing(self, memory: MemoryManager) -> None:
        new_session(memory)
        assert memory.cleanup_old_sessions(900_000) == 0
        assert len(memory.get_active_sessions(1e9)) == 1
