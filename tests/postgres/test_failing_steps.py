"""A failure at each statement of each call that writes: all of it is there or nothing, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from server_side import ask
from steps import REPEATABLE, STEPS, Reader, Rows

from mirai_memory import Busy, MemoryManager, StorageError
from mirai_memory.testing.clock import START, FrozenClock

Failure = Callable[[Any], None]


def _raised(state: str) -> Failure:
    """As the server fails: its transaction is over."""

    def fail(driver: psycopg.Connection[Any]) -> None:
        driver.execute(f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{state}'; END $$".encode())

    return fail


def _lost(url: str) -> Failure:
    """Another connection ends this one."""

    def fail(driver: psycopg.Connection[Any]) -> None:
        ask(url, "SELECT pg_terminate_backend(%s, 10000)", driver.info.backend_pid)

    return fail


@contextmanager
def _failing(memory: MemoryManager, at: int, failure: Failure) -> Iterator[list[int]]:
    """Before the statement of that number, COMMIT among them; how many there were until then."""
    count, failing = [0], [False]

    def before(driver: Any, statement: object) -> None:
        # What begins a transaction is not among them: nothing is lost with a connection that had not begun one.
        if failing[0] or str(statement).startswith("BEGIN"):
            return
        count[0] += 1
        if count[0] == at:
            failing[0] = True
            try:
                failure(driver)
            finally:
                failing[0] = False

    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute", "executemany"):
            patch.setattr(psycopg.Cursor, name, _after(before, getattr(psycopg.Cursor, name)))
        patch.setattr(psycopg.Connection, "commit", _after(before, psycopg.Connection.commit))
        yield count


def _after(before: Callable[[Any, object], None], method: Callable[..., Any]) -> Callable[..., Any]:
    def called(self: Any, statement: object = None, *arguments: Any, **options: Any) -> Any:
        before(getattr(self, "connection", self), statement)
        return method(self, *([] if statement is None else [statement]), *arguments, **options)

    return called


def _at(clock: FrozenClock, number: int) -> None:
    clock.advance(seconds=(START - clock()).total_seconds() + number)


@dataclass(frozen=True)
class Story:
    """What each of the calls makes of the database where nothing fails, and how many statements it has."""

    before: list[Rows]
    after: list[Rows]
    statements: list[int]


@pytest.fixture
def rows(postgres_url: str) -> Iterator[Reader]:
    with closing(Reader(postgres_url)) as reader:
        yield reader


@pytest.fixture
def story(postgres_url: str, clock: FrozenClock, rows: Reader) -> Story:
    found = Story([], [], [])
    with MemoryManager(postgres_url, clock=clock) as memory:
        for number, step in enumerate(STEPS.values()):
            _at(clock, number)
            call = step(memory)
            found.before.append(rows())
            with _failing(memory, 0, lambda _: None) as count:
                call()
            found.after.append(rows())
            found.statements.append(count[0])
        _clear(memory)
    assert sum(found.statements) > 150
    return found


def _clear(memory: MemoryManager) -> None:
    with memory.unit_of_work() as uow:
        tables = "sessions, messages, tasks, knowledge, user_preferences, embeddings, word_messages, word_knowledge"
        names = ", ".join(f"mirai_memory.{name.strip()}" for name in f"{tables}, word_scopes, word_places".split(","))
        uow.db.exec_driver_sql(f"TRUNCATE {names}")


def _places(memory: MemoryManager, clock: FrozenClock, story: Story) -> Iterator[tuple[int, int, Callable[[], Any]]]:
    """Each call, to be made with a failure at each of its statements; the other calls are made in between."""
    for at in range(1, max(story.statements) + 1):
        for number, step in enumerate(STEPS.values()):
            _at(clock, number)
            call = step(memory)
            if at <= story.statements[number]:
                yield number, at, call
            else:
                call()
        assert memory.verify().ok
        _clear(memory)


def test_what_the_server_undoes_is_done_again(
    postgres_url: str, clock: FrozenClock, rows: Reader, story: Story
) -> None:
    """Lost to another writer, at whatever statement: the caller is told nothing, and all is done once."""
    with MemoryManager(postgres_url, clock=clock) as memory:
        for number, at, call in _places(memory, clock, story):
            with _failing(memory, at, _raised(("40001", "40P01")[(at + number) % 2])):
                call()
            assert rows() == story.after[number], (list(STEPS)[number], at)


@pytest.mark.parametrize("failure", ["a lock that was not free", "a lost connection"])
def test_what_fails_has_done_nothing(
    postgres_url: str, clock: FrozenClock, rows: Reader, story: Story, failure: str
) -> None:
    fail, error = (_lost(postgres_url), StorageError) if "lost" in failure else (_raised("55P03"), Busy)
    with MemoryManager(postgres_url, clock=clock) as memory:
        for number, at, call in _places(memory, clock, story):
            with _failing(memory, at, fail), pytest.raises(error):
                call()
            assert rows() == story.before[number], (list(STEPS)[number], at)
            call()  # on another connection, or on the same after a rollback
            assert rows() == story.after[number], (list(STEPS)[number], at)


def test_a_commit_that_nobody_was_told_of(postgres_url: str, clock: FrozenClock, rows: Reader, story: Story) -> None:
    """It is done, though the connection was lost before it could say so: a repeat with the same id stores nothing."""

    def fail(driver: psycopg.Connection[Any]) -> None:
        driver.commit()
        _lost(postgres_url)(driver)
        raise psycopg.OperationalError("injected: the answer to COMMIT did not come")

    with MemoryManager(postgres_url, clock=clock) as memory:
        for number, (name, step) in enumerate(STEPS.items()):
            _at(clock, number)
            call = step(memory)
            with _failing(memory, story.statements[number], fail), pytest.raises(StorageError):
                call()
            assert rows() == story.after[number], name
            if name in REPEATABLE:
                call()
                assert rows() == story.after[number], name
        assert memory.verify().ok
