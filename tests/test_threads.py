"""Thirty-two threads on one memory, which read and write everything at once: whatever they do, the sums are right."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mirai_memory import Busy, Knowledge, MemoryManager, Message, Task, UnitOfWork, UserMemory

THREADS = 32
OWNERS = 8
ROUNDS = 2
GUARD = 240.0  # seconds after which something that should have happened will not; no test waits that long


def _together(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call returned; all of them begin at one moment, each in a thread."""
    barrier = threading.Barrier(len(calls), timeout=GUARD)

    def begin(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(GUARD) for future in [pool.submit(begin, call) for call in calls]]


class _Worker:
    """One thread's work for its owner, whom it shares with three other threads, and what must come of it."""

    def __init__(self, memory: MemoryManager, number: int) -> None:
        self.memory = memory
        self.owner = f"owner{number % OWNERS}"
        self.own: UserMemory = memory.for_user(self.owner)
        self.name = f"worker{number}"
        self.dice = random.Random(number)
        self.kept: list[str] = []  # contents of messages that it has added and not deleted
        self.open_tasks = 0

    def work(self) -> _Worker:
        self.session = self.own.ensure_session("shared").id
        for round_ in range(ROUNDS):
            steps = [self._talk, self._forget, self._learn, self._prefer, self._plan, self._all_at_once, self._look]
            self.dice.shuffle(steps)
            for step in steps:
                step(f"{self.name} round{round_}")
        return self

    def _say(self, content: str) -> Message:
        return Message(session_id=self.session, role="user", content=f"{self.owner} {content}")

    def _talk(self, label: str) -> None:
        ids = self.own.add_messages([self._say(f"{label} first"), self._say(f"{label} second")])
        first, second = (self.own.get_message(id) for id in ids)
        assert first is not None
        assert second is not None
        assert first.position is not None
        assert second.position == first.position + 1, "what is added together stands together"
        self.kept += [first.content, second.content]
        page = self.own.get_messages(self.session, limit=10_000)
        places = [message.position or 0 for message in page]
        assert places == sorted(set(places))
        assert set(self.kept) <= {message.content for message in page}, "a thread does not see what it wrote"

    def _forget(self, label: str) -> None:
        id = self.own.add_message(self._say(f"{label} deleted"))
        self.own.update_message(id, f"{self.owner} {label} changed")
        self.own.delete_message(id)
        assert self.own.get_message(id) is None
        other = self.own.create_session()
        self.own.add_message(Message(session_id=other.id, role="user", content=f"{self.owner} {label} short"))
        assert self.own.pop_message(other.id)
        self.own.delete_session(other.id)

    def _learn(self, label: str) -> None:
        self.own.add_knowledge(Knowledge(user_id=self.owner, key="latest", value=label))
        assert len(self.own.get_knowledge(key="latest")) == 1, "two current values of one key"
        self.own.add_knowledge_many([Knowledge(user_id=self.owner, key=f"{label} {n}", value=label) for n in range(2)])
        assert self.own.delete_knowledge(key=f"{label} 1") == 1

    def _prefer(self, label: str) -> None:
        self.own.update_user_preferences(metadata={label: True})
        found = self.own.get_user_preferences()
        assert found is not None
        assert label in found.metadata

    def _plan(self, label: str) -> None:
        done = self.own.add_task(Task(user_id=self.owner, session_id=self.session, description=label))
        self.own.update_task_status(done, "completed", "fine")
        gone = self.own.add_task(Task(user_id=self.owner, description=label))
        self.own.delete_task(gone)
        self.own.add_task(Task(user_id=self.owner, description=label))
        self.open_tasks += 1

    def _all_at_once(self, label: str) -> None:
        def work(uow: UnitOfWork) -> None:
            uow.messages.add(self._say(f"{label} in run"))
            uow.knowledge.add(Knowledge(user_id=self.owner, key=f"{label} in run", value=label))

        self.own.run(work)
        self.kept.append(f"{self.owner} {label} in run")
        while not self._added_in_a_unit_of_work(f"{label} in a unit of work"):
            pass

    def _added_in_a_unit_of_work(self, content: str) -> bool:
        """This form is never run again: on PostgreSQL, where two may lock each other out, that is the caller's."""
        message = self._say(content)
        try:
            with self.own.unit_of_work() as uow:
                uow.messages.add(message)
        except Busy:
            return False
        self.kept.append(message.content)
        return True

    def _look(self, label: str) -> None:
        assert label.startswith(self.name)
        found = self.own.recall("round", limit=50)
        assert {item.user_id for item in found} <= {self.owner}
        assert all(self.owner in message.content for message in self.own.search_messages("round", limit=50))
        context = self.own.build_context(self.session, "round")
        assert {message.user_id for message in context.history} <= {self.owner}
        assert self.memory.get_stats()["total_sessions"] >= 1
        assert self.own.get_recent_messages(self.session, 5) or not self.kept
        assert self.own.get_active_sessions()


@pytest.mark.long
def test_thirty_two_threads_on_one_memory(memory: MemoryManager) -> None:
    workers = [_Worker(memory, number) for number in range(THREADS)]
    assert _together([worker.work for worker in workers]) == workers

    each = THREADS // OWNERS * ROUNDS
    for owner in {worker.owner for worker in workers}:
        own = memory.for_user(owner)
        [session] = own.list_sessions()
        mine = [worker for worker in workers if worker.owner == owner]
        messages = own.get_messages(session.id, limit=10_000)
        assert sorted(m.content for m in messages) == sorted(text for worker in mine for text in worker.kept)
        assert session.message_count == len(messages)
        places = [message.position or 0 for message in messages]
        assert len(set(places)) == len(places)
        # Every place was given once: to what is there, and to one deleted message of each round.
        assert max(places) <= len(places) + each
        preferences = own.get_user_preferences()
        assert preferences is not None
        assert len(preferences.metadata) == preferences.version == each
        assert len(own.knowledge_history("latest")) == each
        assert len(own.get_knowledge(limit=1_000)) == 1 + 2 * each
        tasks = own.get_tasks(limit=1_000)
        assert [task.status for task in tasks].count("completed") == each
        assert len(tasks) == each + sum(worker.open_tasks for worker in mine)
    _agrees_with_itself(memory, OWNERS * each)


def _agrees_with_itself(memory: MemoryManager, rounds: int) -> None:
    """What is counted and indexed beside the rows."""
    stats = memory.get_stats()
    assert stats["total_sessions"] == OWNERS
    assert stats["total_messages"] == 4 * rounds
    assert stats["total_tasks"] == 2 * rounds
    place = "mirai_memory." if memory.url.startswith("postgresql") else ""

    def counts(uow: UnitOfWork) -> list[int]:
        return [
            int(uow.db.exec_driver_sql(f"SELECT {what} FROM {place}{table}").scalar() or 0)
            for what, table in (
                ("count(*)", "messages"),
                ("count(*)", "word_messages"),
                ("sum(item_count)", "word_scopes WHERE kind = 'message'"),
                ("count(*)", "word_knowledge"),
                ("sum(item_count)", "word_scopes WHERE kind = 'knowledge'"),
            )
        ]

    messages, indexed, scoped, facts, scoped_facts = memory.run(counts)
    assert messages == indexed == scoped == 4 * rounds
    assert facts == scoped_facts == OWNERS + 2 * rounds
    assert memory.health().ok


def test_one_memory_is_closed_once_by_many_threads(url: str) -> None:
    memory = MemoryManager(url)
    memory.create_session("alice")
    assert _together([memory.close] * THREADS) == [None] * THREADS
    with MemoryManager(url) as again:
        assert len(again.list_sessions()) == 1
