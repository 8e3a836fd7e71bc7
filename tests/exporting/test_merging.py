"""A file into a memory that holds something already: what is new is added, what is here stays, and is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from owners import exported, fill, lines, rows, sealed

from mirai_memory import InvalidInput, Knowledge, MemoryManager, Message, Task, UserPreferences, erasures
from mirai_memory.importers import import_file
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.transfer import UserImport


@pytest.fixture
def copy(memory: MemoryManager, clock: FrozenClock) -> Iterator[MemoryManager]:
    """A second memory that has imported the first one's."""
    fill(memory, clock)
    with MemoryManager(":memory:", clock=clock) as second:
        second.import_user(BytesIO(exported(memory)))
        yield second


def _take(target: MemoryManager, source: MemoryManager, *, dry_run: bool = False) -> UserImport:
    """Import, and once more, which must change nothing; what the first did."""
    file = exported(source)
    done = target.import_user(BytesIO(file), dry_run=dry_run)
    after = rows(target)
    again = target.import_user(BytesIO(file), dry_run=True)
    assert rows(target) == after
    if not dry_run:
        added = (
            again.preferences_added,
            again.sessions_added,
            again.messages_added,
            again.tasks_added,
            again.facts_added,
        )
        assert added == (0, 0, 0, 0, 0)
        assert again.conflict_count == done.conflict_count
    return done


def _say(memory: MemoryManager, content: str) -> int:
    session = memory.for_user("alice").ensure_session("chat").id
    return memory.add_message(Message(session_id=session, role="user", content=content))


def test_a_second_import_changes_nothing(memory: MemoryManager, copy: MemoryManager) -> None:
    before = rows(copy)
    done = _take(copy, memory)
    assert (done.sessions_there, done.messages_there, done.tasks_there, done.facts_there) == (2, 8, 4, 8)
    assert (done.preferences_there, done.conflict_count, done.not_imported) == (1, 0, 0)
    assert rows(copy) == before == rows(memory)


def test_a_dry_run_tells_and_changes_nothing(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    with MemoryManager(":memory:", clock=clock) as empty:
        done = _take(empty, memory, dry_run=True)
        assert (done.sessions_added, done.messages_added, done.facts_added) == (2, 8, 8)
        assert not any(rows(empty).values())
        assert empty.import_user(BytesIO(exported(memory))) == done


def test_a_session_goes_on_where_it_was(memory: MemoryManager, copy: MemoryManager, clock: FrozenClock) -> None:
    clock.advance(days=1)
    _say(memory, "new")
    memory.delete_message(_say(memory, "gone"))
    memory.create_session("alice")
    done = _take(copy, memory)
    assert (done.sessions_added, done.sessions_there, done.messages_added, done.conflict_count) == (1, 2, 1, 0)
    assert rows(copy) == rows(memory)


def test_what_was_said_here_meanwhile_stays(memory: MemoryManager, copy: MemoryManager) -> None:
    _say(copy, "here")
    before = rows(copy)
    assert _take(copy, memory).conflict_count == 0
    _say(memory, "there")
    _say(memory, "there too")
    done = _take(copy, memory)
    [conflict] = done.conflicts
    assert (conflict.line, conflict.kind, done.not_imported) == (3, "session", 2)
    assert "others here" in conflict.reason
    assert rows(copy) == before


def test_what_was_deleted_here_stays_deleted(memory: MemoryManager, copy: MemoryManager) -> None:
    alice = copy.for_user("alice")
    session = alice.ensure_session("chat").id
    alice.trim_old_messages(session, 2)
    kept = [message.content for message in alice.get_messages(session)]
    _say(memory, "new")
    done = _take(copy, memory)
    [conflict] = done.conflicts
    assert "stay deleted" in conflict.reason
    assert (done.messages_added, done.not_imported) == (1, 8 - len(kept))
    assert [message.content for message in alice.get_messages(session)] == [*kept, "new"]


def test_what_was_deleted_there_stays_here(memory: MemoryManager, copy: MemoryManager) -> None:
    memory.delete_message(memory.get_messages(memory.for_user("alice").ensure_session("chat").id)[0].id or 0)
    before = rows(copy)
    assert _take(copy, memory).conflict_count == 0
    assert rows(copy) == before


def test_a_message_that_was_changed_is_told(memory: MemoryManager, copy: MemoryManager) -> None:
    session = copy.for_user("alice").ensure_session("chat").id
    copy.update_message(copy.get_messages(session)[0].id or 0, "changed here")
    done = _take(copy, memory)
    assert [conflict.line for conflict in done.conflicts] == [3]
    assert done.messages_there == 7
    assert copy.get_messages(session)[0].content == "changed here"


def test_a_session_of_the_same_name_is_the_same(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    with MemoryManager(":memory:", clock=clock) as other:
        session = other.ensure_session("alice", "chat").id
        done = _take(other, memory)
        assert (done.sessions_there, done.sessions_added, done.messages_added) == (1, 1, 8)
        assert [conflict.reason for conflict in done.conflicts] == ["is here with other values, which stay"]
        assert len(other.get_messages(session)) == 8
        assert done.links_lost == 0


def test_preferences_and_tasks_that_differ_stay(memory: MemoryManager, copy: MemoryManager) -> None:
    copy.update_user_preferences("alice", coding_style="mine")
    [task] = [task for task in copy.get_tasks() if task.description == "in a session"]
    copy.update_task_status(task.id or 0, "failed")
    memory.add_task(Task(user_id="alice", description="new"))
    done = _take(copy, memory)
    assert [conflict.kind for conflict in done.conflicts] == ["preferences", "task"]
    assert (done.tasks_added, done.tasks_there) == (1, 3)
    preferences = copy.get_user_preferences("alice")
    assert preferences is not None
    assert preferences.coding_style == "mine"
    assert copy.get_task(task.id or 0) == replace(task, status="failed", completed_at=done.exported_at)


def test_of_tasks_that_are_alike_each_counts(memory: MemoryManager, copy: MemoryManager) -> None:
    twins = [task.id or 0 for task in copy.get_tasks() if task.description == "twice the same"]
    copy.delete_task(twins[1])
    done = _take(copy, memory)
    assert (done.tasks_added, done.tasks_there) == (1, 3)


def test_no_fact_is_linked_to_another_message_of_the_same_place(memory: MemoryManager, copy: MemoryManager) -> None:
    _say(copy, "here")
    memory.add_knowledge(Knowledge(user_id="alice", key="new", value="x", message_id=_say(memory, "there")))
    assert _take(copy, memory).links_lost == 1
    assert copy.get_knowledge(key="new", user_id="alice")[0].message_id is None


def test_a_key_comes_whole_or_stays(memory: MemoryManager, copy: MemoryManager) -> None:
    copy.add_knowledge(Knowledge(user_id="alice", key="city", value="Tomsk"))
    memory.add_knowledge(Knowledge(user_id="alice", key="new", value="a"))
    memory.add_knowledge(Knowledge(user_id="alice", key="new", value="b"))
    history = copy.knowledge_history("city", user_id="alice")
    done = _take(copy, memory)
    assert [(conflict.kind, conflict.reason) for conflict in done.conflicts] == [
        ("fact", "its key has other values here, which stay")
    ]
    assert (done.facts_added, done.facts_there, done.not_imported) == (2, 4, 4)
    assert copy.knowledge_history("city", user_id="alice") == history
    assert [fact.value for fact in copy.get_knowledge(key="new", user_id="alice")] == ["b"]


def test_rows_of_others_are_no_conflict(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    with MemoryManager(":memory:", clock=clock) as other:
        fill(other, clock, "bob")
        before = rows(other, "bob")
        assert _take(other, memory).conflict_count == 0
        assert rows(other, "bob") == before
        assert rows(other) == rows(memory)


def test_what_the_whole_file_says_is_in_the_importers_report(
    memory: MemoryManager, copy: MemoryManager, tmp_path: Path
) -> None:
    memory.export_user("alice", tmp_path / "alice.jsonl")
    copy.update_user_preferences("alice", coding_style="mine")
    report = import_file(copy, tmp_path / "alice.jsonl")
    assert (report.messages_already_there, report.tasks_already_there, report.facts_already_there) == (8, 4, 8)
    assert [fault.reason for fault in report.faults] == ["are others here, which stay"]
    assert "line 2, preferences" in report.faults[0].place


# --- erasures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetting(tmp_path: Path, clock: FrozenClock) -> Iterator[MemoryManager]:
    """An empty memory in which alice was forgotten an hour after what ``fill`` stores."""
    with MemoryManager(tmp_path / "forgetting.db", clock=clock) as memory:
        yield memory


def _forget(memory: MemoryManager, clock: FrozenClock, owner: str = "alice") -> None:
    erasures.record(memory.url, owner, clock.advance(hours=1))


def test_what_was_forgotten_is_not_brought_back(
    memory: MemoryManager, forgetting: MemoryManager, clock: FrozenClock
) -> None:
    fill(memory, clock)
    file = exported(memory)
    _forget(forgetting, clock)
    done = forgetting.import_user(BytesIO(file))
    assert done.erased == len(lines(file)) - 1
    assert not any(rows(forgetting).values())
    assert forgetting.for_user("alice").import_user(BytesIO(file)).erased == done.erased
    asked = forgetting.import_user(BytesIO(file), include_erased=True)
    assert (asked.erased, asked.messages_added) == (0, 8)
    assert rows(forgetting) == rows(memory)


def test_what_came_after_is_brought_back(memory: MemoryManager, forgetting: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    _forget(forgetting, clock)
    clock.advance(hours=1)
    _say(memory, "afterwards")
    memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Pskov"))
    memory.add_task(Task(user_id="alice", description="afterwards"))
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="afterwards"))
    new = memory.ensure_session("alice", "new").id
    done = forgetting.import_user(BytesIO(exported(memory)))
    assert (done.sessions_added, done.messages_added, done.tasks_added, done.facts_added) == (2, 1, 1, 1)
    assert done.preferences_added == 1
    old, same = forgetting.list_sessions("alice")
    # What is needed of a session to hold the message, and nothing that tells what was forgotten.
    assert (old.external_id, old.agent_id, old.metadata, old.summary) == (None, None, {}, None)
    assert [message.content for message in forgetting.get_messages(old.id)] == ["afterwards"]
    assert (old.message_count, same.id) == (1, new)
    assert [fact.value for fact in forgetting.get_knowledge(user_id="alice")] == ["Pskov"]
    assert not any(b"walrus" in bytes(str(row), "utf-8") for row in rows(forgetting)["messages"])


def test_a_file_from_before_is_old_whatever_its_times_say(forgetting: MemoryManager, clock: FrozenClock) -> None:
    with MemoryManager(":memory:", clock=clock) as memory:
        session = memory.create_session("alice").id
        future = clock() + timedelta(days=9)
        memory.add_message(Message(session_id=session, role="user", content="x", timestamp=future))
        memory.add_task(Task(user_id="alice", description="x", created_at=future))
        file = exported(memory)
    _forget(forgetting, clock)
    assert forgetting.import_user(BytesIO(file)).erased == 3
    assert not any(rows(forgetting).values())


def test_an_erasure_of_another_owner_changes_nothing(
    memory: MemoryManager, forgetting: MemoryManager, clock: FrozenClock
) -> None:
    fill(memory, clock)
    _forget(forgetting, clock, "bob")
    assert forgetting.import_user(BytesIO(exported(memory))).erased == 0
    assert rows(forgetting) == rows(memory)


def test_a_value_whose_successor_stays_out_is_not_believed_again(forgetting: MemoryManager, clock: FrozenClock) -> None:
    """Times are what callers say: a successor may say that it is older."""
    with MemoryManager(":memory:", clock=clock) as memory:
        after = clock() + timedelta(hours=2)
        memory.add_knowledge(Knowledge(user_id="alice", key="k", value="first", created_at=after))
        memory.add_knowledge(
            Knowledge(user_id="alice", key="k", value="second", created_at=clock() - timedelta(days=9))
        )
        erasures.record(forgetting.url, "alice", clock.advance(hours=1))
        clock.advance(hours=2)
        done = forgetting.import_user(BytesIO(exported(memory)))
    assert (done.facts_added, done.erased) == (1, 1)
    assert forgetting.get_knowledge(user_id="alice") == []
    assert [fact.value for fact in forgetting.knowledge_history("k", user_id="alice")] == ["first"]


def test_the_importers_report_tells_of_what_stayed_out(
    memory: MemoryManager, forgetting: MemoryManager, clock: FrozenClock, tmp_path: Path
) -> None:
    fill(memory, clock)
    memory.export_user("alice", tmp_path / "alice.jsonl")
    _forget(forgetting, clock)
    report = import_file(forgetting, tmp_path / "alice.jsonl")
    assert (report.rows_erased, report.fault_count, report.messages_added) == (len(lines(exported(memory))) - 1, 0, 0)


def test_a_file_of_somebody_else_is_a_fault_of_the_file(
    memory: MemoryManager, clock: FrozenClock, tmp_path: Path
) -> None:
    fill(memory, clock)
    memory.export_user("alice", tmp_path / "alice.jsonl")
    report = import_file(memory.for_user("bob"), tmp_path / "alice.jsonl")
    assert (report.conversations_refused, report.fault_count) == (1, 1)
    with pytest.raises(InvalidInput, match="format"):
        import_file(memory, tmp_path / "alice.jsonl", format="mirai")
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(sealed(lines(exported(memory)))[:-1])
    [fault] = import_file(memory, cut).faults
    assert "cut off" in fault.reason
