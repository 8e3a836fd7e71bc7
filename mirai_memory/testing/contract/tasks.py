"""Tasks: pieces of work whose ``completed_at`` follows their status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirai_memory import Conflict, InvalidInput, MemoryManager, NotFound, Task
from mirai_memory.entities import TaskStatus
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import new_session


def _ids(tasks: list[Task]) -> list[int | None]:
    return [task.id for task in tasks]


class TaskContract:
    def test_a_task_comes_back_exactly(self, memory: MemoryManager, clock: FrozenClock) -> None:
        task = Task(
            session_id=new_session(memory),
            description="Починить CI 🔧",
            result="",
            metadata={"estimate": 1.5, "теги": ["ci", None]},
            client_id="t-1",
        )
        id = memory.add_task(task)
        assert memory.get_task(id) == replace(task, id=id, user_id="alice", created_at=clock())

    def test_a_task_may_have_no_session(self, memory: MemoryManager) -> None:
        task = memory.get_task(memory.add_task(Task(user_id="alice", description="fly")))
        assert task is not None
        assert (task.session_id, task.user_id, task.status) == (None, "alice", "pending")

    def test_a_task_needs_an_owner_or_a_session_and_no_foreign_one(self, memory: MemoryManager) -> None:
        id = new_session(memory, "alice")
        for task in (Task(description="x"), Task(description="x", session_id=id, user_id="bob")):
            with pytest.raises(InvalidInput):
                memory.add_task(task)
        assert memory.get_tasks() == []

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_a_finished_task_has_its_time_and_may_be_reopened(
        self, memory: MemoryManager, clock: FrozenClock, status: TaskStatus
    ) -> None:
        id = memory.add_task(Task(user_id="alice", description="x"))
        begun = memory.update_task_status(id, "in_progress")
        assert (begun.status, begun.completed_at) == ("in_progress", None)
        clock.advance(hours=1)
        finished = memory.update_task_status(id, status, "why")
        assert (finished.status, finished.completed_at, finished.result) == (status, clock(), "why")
        assert memory.get_task(id) == finished
        reopened = memory.update_task_status(id, "pending")
        assert (reopened.status, reopened.completed_at, reopened.result) == ("pending", None, "why")
        assert memory.get_task(id) == reopened

    def test_a_task_may_be_stored_finished(self, memory: MemoryManager, clock: FrozenClock) -> None:
        now = memory.get_task(memory.add_task(Task(user_id="alice", description="x", status="completed")))
        then = clock.advance(days=-3)
        clock.advance(days=3)
        old = memory.get_task(
            memory.add_task(Task(user_id="alice", description="x", status="failed", created_at=then, completed_at=then))
        )
        assert now is not None
        assert old is not None
        assert now.completed_at == clock()
        assert (old.created_at, old.completed_at) == (then, then)

    def test_an_unfinished_task_has_no_time_of_completion(self, memory: MemoryManager, clock: FrozenClock) -> None:
        with pytest.raises(InvalidInput):
            memory.add_task(Task(user_id="alice", description="x", completed_at=clock()))

    def test_a_repeated_client_id_stores_one_task(self, memory: MemoryManager) -> None:
        first = memory.add_task(Task(user_id="alice", description="x", client_id="t"))
        memory.update_task_status(first, "completed")
        assert memory.add_task(Task(user_id="alice", description="x", client_id="t")) == first
        assert memory.add_task(Task(user_id="bob", description="x", client_id="t")) != first
        assert _ids(memory.get_tasks(user_id="alice")) == [first]

    def test_a_client_id_of_another_task_is_a_conflict(self, memory: MemoryManager) -> None:
        memory.add_task(Task(user_id="alice", description="x", client_id="t"))
        with pytest.raises(Conflict):
            memory.add_task(Task(user_id="alice", description="y", client_id="t"))
        assert len(memory.get_tasks()) == 1

    def test_pages_by_session_status_and_owner(self, memory: MemoryManager) -> None:
        session = new_session(memory)
        ids = [memory.add_task(Task(session_id=session, description=str(number))) for number in range(3)]
        loose = memory.add_task(Task(user_id="alice", description="loose"))
        bobs = memory.add_task(Task(user_id="bob", description="bob's"))
        memory.update_task_status(ids[1], "completed")
        assert _ids(memory.get_tasks()) == [*ids, loose, bobs]
        assert _ids(memory.get_tasks(limit=2)) == ids[:2]
        assert _ids(memory.get_tasks(limit=2, after=ids[1])) == [ids[2], loose]
        assert _ids(memory.get_tasks(session)) == ids
        assert _ids(memory.get_tasks(session, "pending")) == [ids[0], ids[2]]
        assert _ids(memory.get_tasks(status="completed")) == [ids[1]]
        assert _ids(memory.get_tasks(user_id="bob")) == [bobs]
        assert memory.get_tasks("nobody's") == memory.get_tasks(limit=0) == []

    def test_deleting_takes_one_task(self, memory: MemoryManager) -> None:
        id, kept = (memory.add_task(Task(user_id="alice", description="x")) for _ in range(2))
        memory.delete_task(id)
        assert memory.get_task(id) is None
        assert _ids(memory.get_tasks()) == [kept]

    def test_the_id_of_a_deleted_task_is_never_used_again(self, memory: MemoryManager) -> None:
        id = memory.add_task(Task(user_id="alice", description="x"))
        memory.delete_task(id)
        assert memory.add_task(Task(user_id="alice", description="y")) > id

    def test_an_unknown_task_is_none_and_a_write_to_it_is_not_found(self, memory: MemoryManager) -> None:
        assert memory.get_task(404) is None
        for write in (lambda: memory.update_task_status(404, "failed"), lambda: memory.delete_task(404)):
            with pytest.raises(NotFound) as error:
                write()
            assert (error.value.kind, error.value.id) == ("task", 404)
        with pytest.raises(NotFound) as error:
            memory.add_task(Task(session_id="nobody's", description="x"))
        assert (error.value.kind, error.value.id) == ("session", "nobody's")
