"""A clock that steps back, forward, or stands still: order is kept, nothing is lost, nothing comes back to life."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirai_memory import Conflict, Knowledge, MemoryManager, Message, Task, UserPreferences
from mirai_memory._ids import new_session_id
from mirai_memory.testing.clock import START, FrozenClock

STEPS_BACK = [timedelta(microseconds=1), timedelta(hours=1), timedelta(days=400)]


def _say(session: str, content: str, **more: object) -> Message:
    return Message(session_id=session, role="user", content=content, **more)  # type: ignore[arg-type]


def _back(clock: FrozenClock, step: timedelta) -> None:
    clock.advance(seconds=-step.total_seconds())


@pytest.mark.parametrize("step", STEPS_BACK, ids=str)
def test_messages_stay_in_the_order_in_which_they_came(
    memory: MemoryManager, clock: FrozenClock, step: timedelta
) -> None:
    session = memory.create_session("alice").id
    ids = []
    for number in range(6):
        ids.append(memory.add_message(_say(session, f"number {number} about the walrus")))
        _back(clock, step)
    assert [message.id for message in memory.get_messages(session)] == ids
    assert [message.id for message in memory.get_recent_messages(session, 3)] == ids[-3:]
    assert [entry["content"][:8] for entry in memory.get_conversation_history(session, 2)] == ["number 4", "number 5"]
    first = memory.get_messages(session, limit=4)
    assert [message.id for message in memory.get_messages(session, after=first[-1].id)] == ids[4:]
    assert {message.id for message in memory.search_messages("walrus", user_id="alice")} == set(ids)
    popped = memory.pop_message(session)
    assert popped is not None
    assert popped.id == ids[-1]
    assert memory.trim_old_messages(session, 2) == 3
    assert [message.id for message in memory.get_messages(session)] == ids[3:5]


@pytest.mark.parametrize("step", STEPS_BACK, ids=str)
def test_the_value_stored_last_is_the_current_one(memory: MemoryManager, clock: FrozenClock, step: timedelta) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Oslo"))
    _back(clock, step)
    memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Riga"))
    for _ in range(2):
        assert [fact.value for fact in memory.get_knowledge(user_id="alice", key="city")] == ["Riga"]
        assert [fact.value for fact in memory.search_knowledge("city", user_id="alice")] == ["Riga"]
        clock.advance(seconds=2 * step.total_seconds())
    assert [fact.value for fact in memory.knowledge_history("city", user_id="alice")] == ["Oslo", "Riga"]
    assert memory.get_stats()["total_knowledge"] == 1


def test_a_fact_that_expired_is_there_again_only_while_the_clock_says_so(
    memory: MemoryManager, clock: FrozenClock
) -> None:
    fact = Knowledge(user_id="alice", key="code", value="1234", expires_at=START + timedelta(minutes=5))
    id = memory.add_knowledge(fact)
    clock.advance(minutes=10)
    assert memory.get_knowledge(user_id="alice") == []
    clock.advance(minutes=-10)
    assert [found.id for found in memory.get_knowledge(user_id="alice")] == [id]
    clock.advance(minutes=10)
    later = memory.add_knowledge(Knowledge(user_id="alice", key="code", value="5678"))
    clock.advance(minutes=-10)
    assert [found.id for found in memory.search_knowledge("code", user_id="alice")] in ([later], [])
    clock.advance(minutes=10)
    assert [found.id for found in memory.search_knowledge("code", user_id="alice")] == [later]


def test_versions_and_not_times_decide_between_preferences(memory: MemoryManager, clock: FrozenClock) -> None:
    first = memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="first"))
    clock.advance(hours=-3)
    second = memory.update_user_preferences("alice", coding_style="second")
    assert (second.version, memory.get_user_preferences("alice")) == (2, second)
    assert second.updated_at is not None
    assert first.updated_at is not None
    assert second.updated_at < first.updated_at
    with pytest.raises(Conflict):
        memory.save_user_preferences(first)


def test_tasks_may_be_done_before_they_were_begun(memory: MemoryManager, clock: FrozenClock) -> None:
    ids = []
    for number in range(3):
        ids.append(memory.add_task(Task(user_id="alice", description=f"task {number}")))
        clock.advance(hours=-1)
    assert [task.id for task in memory.get_tasks(user_id="alice")] == ids
    done = memory.update_task_status(ids[0], "completed")
    assert done.completed_at == clock()
    assert memory.get_task(ids[0]) == done


def test_sessions_page_whole_and_are_not_cleaned_up_early(memory: MemoryManager, clock: FrozenClock) -> None:
    ids = set()
    for _ in range(5):
        ids.add(memory.create_session("alice").id)
        clock.advance(days=-1)
    seen: list[str] = []
    while page := memory.list_sessions("alice", limit=2, after=seen[-1] if seen else None):
        seen += [session.id for session in page]
    assert (set(seen), len(seen)) == (ids, 5)
    assert memory.cleanup_old_sessions(30) == 0
    assert {session.id for session in memory.get_active_sessions(1)} == ids, "what was used in the future is in use"
    clock.advance(days=5 + 31)
    assert memory.cleanup_old_sessions(30) == 5


ENDS_OF_TIME = {"year 1": datetime.min.replace(tzinfo=UTC), "year 9999": datetime.max.replace(tzinfo=UTC)}


@pytest.mark.parametrize("moment", ENDS_OF_TIME.values(), ids=ENDS_OF_TIME)
def test_a_clock_at_the_end_of_time(url: str, moment: datetime) -> None:
    clock = FrozenClock(moment)
    with MemoryManager(url, clock=clock) as memory:
        session = memory.create_session("alice").id
        memory.add_message(_say(session, "the walrus likes tea"))
        memory.add_knowledge(Knowledge(user_id="alice", value="the walrus likes tea"))
        memory.add_task(Task(user_id="alice", description="buy tea", status="completed"))
        assert len(memory.recall("walrus", user_id="alice")) == 2
        assert memory.build_context(session).tokens > 0
        assert len(memory.get_active_sessions()) == 1
        assert memory.cleanup_old_sessions() == 0
        assert memory.get_stats()["total_messages"] == 1
    with MemoryManager(url, clock=FrozenClock()) as memory:
        assert [message.timestamp for message in memory.get_messages(session)] == [clock()]
        assert memory.health().ok


def test_ids_of_sessions_grow_while_the_time_of_day_goes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = iter(range(2_000_000_000_000_000_000, 0, -1_000_000_000_000_000))
    monkeypatch.setattr("mirai_memory._ids.time.time_ns", lambda: next(times))
    ids = [new_session_id() for _ in range(200)]
    assert ids == sorted(set(ids))
    with MemoryManager(tmp_path / "memory.db") as memory:
        made = [memory.create_session("alice").id for _ in range(20)]
    assert made == sorted(set(made))


def test_waiting_does_not_go_by_the_time_of_day(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait is a span of time: it does not end early because the clock on the wall was set forward meanwhile."""
    hours = iter(range(2_000_000_000, 4_000_000_000, 3_600))
    monkeypatch.setattr("time.time", lambda: float(next(hours)))
    with MemoryManager(sqlite_url) as first, MemoryManager(sqlite_url) as second:
        session = first.create_session("alice").id
        with ThreadPoolExecutor(1) as pool:
            with first.unit_of_work() as uow:
                later = pool.submit(second.add_message, _say(session, "second"))
                wait([later], timeout=0.2)
                uow.messages.add(_say(session, "first"))
            later.result(60)
        assert [message.content for message in first.get_messages(session)] == ["first", "second"]
