"""The doors: transactions as the design promises them, under threads, processes, full disks and ``kill -9``."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from beside import is_server, left_open, write_lock
from psycopg.pq import TransactionStatus
from server_side import ask, conninfo
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from mirai_memory import (
    Busy,
    Conflict,
    Corrupt,
    InvalidInput,
    Knowledge,
    Learned,
    MemoryManager,
    Message,
    MiraiMemoryError,
    ReadOnly,
    SchemaOutOfDate,
    Settings,
    StorageError,
    StorageFull,
    Task,
    UnitOfWork,
    UserPreferences,
    load_settings,
)
from mirai_memory.database.engine import driver_of
from mirai_memory.testing.clock import FrozenClock

GUARD = 120.0  # seconds after which something that should have happened will not; no test waits that long
TRIES = 8


def _settings(**memory: Any) -> Settings:
    return load_settings(memory=memory)


def _say(session_id: str, content: str = "words", **more: Any) -> Message:
    return Message(session_id=session_id, role="user", content=content, **more)


@contextmanager
def _raw(path: str, timeout: float = 0.0) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the file."""
    with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as connection:
        yield connection


def _within(memory: MemoryManager, fn: Callable[[UnitOfWork], Any]) -> Any:
    """``fn`` in a unit of work that is never run again."""
    with memory.unit_of_work() as uow:
        return fn(uow)


def _together(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returned, or the exception it raised; all of them begin at one moment, in threads."""
    barrier = threading.Barrier(len(calls), timeout=GUARD)

    def begin(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls, timeout=GUARD))


# --- how a connection is set up ---------------------------------------------------------------------------------------

PRAGMAS = ("foreign_keys", "synchronous", "secure_delete", "trusted_schema", "busy_timeout", "journal_mode")


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_every_connection_is_set_up(sqlite_url: str, synchronous: str, level: int) -> None:
    settings = _settings(synchronous=synchronous, busy_timeout_ms=4321)
    with MemoryManager(sqlite_url, settings=settings) as memory:
        held = threading.Barrier(4, timeout=GUARD)  # four units of work at a time: four connections

        def look(uow: UnitOfWork) -> tuple[int, list[Any]]:
            held.wait()
            driver = uow.db.connection.driver_connection
            values = [uow.db.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
            held.wait()
            return id(driver), values

        seen = _together(*[lambda: memory._store.read(look)] * 4)
        assert len({number for number, _ in seen}) == 4
        assert all(values == [1, level, 1, 0, 4321, "wal"] for _, values in seen)
        with memory.unit_of_work() as uow:
            assert uow.db.exec_driver_sql("PRAGMA synchronous").scalar() == level


def test_the_drivers_own_transactions_are_off(memory: MemoryManager) -> None:
    with memory.unit_of_work() as uow:
        driver = uow.db.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            own, begun = driver.isolation_level is not None, driver.in_transaction
        else:
            own, begun = not driver.autocommit, driver.info.transaction_status == TransactionStatus.INTRANS
        assert not own
        assert begun, "the unit of work begins at its beginning, not at its first write"


def test_ddl_is_rolled_back_with_the_rest(memory: MemoryManager) -> None:
    def create(uow: UnitOfWork) -> None:
        uow.sessions.create("alice")
        uow.db.exec_driver_sql("CREATE TABLE stray (x INTEGER)")
        uow.db.exec_driver_sql("INSERT INTO stray VALUES (1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _within(memory, create)
    assert memory.list_sessions() == []
    with memory.unit_of_work() as uow:
        uow.db.exec_driver_sql("CREATE TABLE stray (x INTEGER)")  # would fail if the first were still there


# --- the two doors ----------------------------------------------------------------------------------------------------


def test_the_write_door_takes_the_lock_before_anything_else(sqlite_memory: MemoryManager, sqlite_url: str) -> None:
    with sqlite_memory.unit_of_work(), _raw(sqlite_url) as other:
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.execute("BEGIN IMMEDIATE")
        assert caught.value.sqlite_errorcode == sqlite3.SQLITE_BUSY


def test_a_second_writer_that_reads_first_waits_for_its_turn(url: str) -> None:
    with MemoryManager(url) as first, MemoryManager(url) as second:
        session = first.create_session("alice")
        has_read = threading.Event()

        def read_then_write(uow: UnitOfWork) -> int:
            uow.sessions.get(session.id)
            has_read.set()
            return uow.messages.add(_say(session.id, "second"))

        with ThreadPoolExecutor(1) as pool:
            with first.unit_of_work() as uow:
                uow.messages.add(_say(session.id, "first"))
                later = pool.submit(second.run, read_then_write)
                # Were it let in now, its view would be stale when it writes: SQLITE_BUSY, whatever the timeout.
                has_read.wait(0.3)
            later.result(GUARD)
        assert [m.content for m in first.get_messages(session.id)] == ["first", "second"]


def test_readers_take_no_write_lock_and_do_not_wait_for_a_writer(memory: MemoryManager, url: str) -> None:
    session = memory.create_session("alice")
    memory.add_message(_say(session.id, "committed"))
    with ThreadPoolExecutor(1) as pool, memory.unit_of_work() as uow:
        uow.messages.add(_say(session.id, "not yet committed"))
        seen = pool.submit(memory.get_messages, session.id).result(GUARD)
        found = pool.submit(lambda: memory.search_messages("committed")).result(GUARD)
    assert [m.content for m in seen] == ["committed"]
    assert len(found) == 1

    def write_meanwhile(uow: UnitOfWork) -> None:
        uow.messages.get(1)
        with write_lock(url):
            pass  # nobody has it

    memory._store.read(write_meanwhile)


def test_a_read_never_commits(memory: MemoryManager) -> None:
    memory._store.read(lambda uow: uow.sessions.create("alice"))
    assert memory.list_sessions() == []


def test_a_read_sees_one_moment(memory: MemoryManager) -> None:
    session = memory.create_session("alice")

    def look_twice(uow: UnitOfWork) -> tuple[int, int]:
        before = len(uow.messages.page(session.id, limit=9))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(memory.add_message, _say(session.id)).result(GUARD)
        return before, len(uow.messages.page(session.id, limit=9))

    assert memory._store.read(look_twice) == (0, 0)
    assert len(memory.get_messages(session.id)) == 1


def test_one_unit_of_work_in_a_thread_at_a_time(memory: MemoryManager) -> None:
    with memory.unit_of_work() as uow:
        with pytest.raises(InvalidInput, match="uow"):
            memory.create_session("alice")
        uow.sessions.create("alice")
    assert len(memory.list_sessions()) == 1


def test_a_write_is_all_or_nothing(memory: MemoryManager) -> None:
    session = memory.create_session("alice")

    def add(uow: UnitOfWork) -> None:
        uow.messages.add(_say(session.id, "walrus"))
        uow.messages.add_many([_say(session.id, "walrus"), _say(session.id, "walrus")])  # in other statements
        uow.knowledge.add(Knowledge(value="walrus", embedding=[1.0], embedding_model="m"))
        uow.tasks.add(Task(description="walrus", session_id=session.id))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _within(memory, add)
    assert memory.get_session(session.id) == session
    assert memory.get_stats()["total_messages"] == 0
    assert memory.search_messages("walrus") == []
    assert memory.get_knowledge() == []
    assert memory.get_tasks() == []
    with memory.unit_of_work() as uow:
        for table in ("word_messages", "word_knowledge", "embeddings"):
            assert uow.db.exec_driver_sql(f"SELECT count(*) FROM {_in(memory)}{table}").scalar() == 0
    memory.add_message(_say(session.id))
    assert [m.position for m in memory.get_messages(session.id)] == [1]


def _in(memory: MemoryManager) -> str:
    return "mirai_memory." if memory.url.startswith("postgresql") else ""


# --- what fails, and that the same object works afterwards ------------------------------------------------------------


def test_busy_after_the_stated_wait_and_well_again(url: str) -> None:
    with MemoryManager(url, settings=_settings(busy_timeout_ms=30)) as memory:
        session = memory.create_session("alice")
        with write_lock(url):
            for _ in range(3):
                with pytest.raises(Busy, match="busy_timeout_ms"):
                    memory.add_message(_say(session.id))
                assert memory.get_messages(session.id) == []
        memory.add_message(_say(session.id))
        assert len(memory.get_messages(session.id)) == 1


def _pragma(memory: MemoryManager, statement: str) -> Any:
    # Calls one after the other share one pooled connection.
    with memory.unit_of_work() as uow:
        result = uow.db.exec_driver_sql(f"PRAGMA {statement}")
        return result.scalar() if result.returns_rows else None


def test_a_full_database_is_storage_full_and_well_again(sqlite_memory: MemoryManager) -> None:
    session = sqlite_memory.create_session("alice")
    sqlite_memory.add_message(_say(session.id, "before"))
    limit = _pragma(sqlite_memory, "max_page_count")
    _pragma(sqlite_memory, f"max_page_count = {_pragma(sqlite_memory, 'page_count')}")
    for call in (
        lambda: sqlite_memory.add_message(_say(session.id, "x" * 100_000)),
        lambda: sqlite_memory.add_knowledge(Knowledge(value="x" * 100_000)),
    ):
        with pytest.raises(StorageFull):
            call()
    _pragma(sqlite_memory, f"max_page_count = {limit}")
    assert sqlite_memory.get_stats()["total_messages"] == 1
    sqlite_memory.add_message(_say(session.id, "x" * 100_000))
    assert [m.position for m in sqlite_memory.get_messages(session.id)] == [1, 2]


def test_a_connection_that_may_not_write_is_read_only(memory: MemoryManager) -> None:
    only_reads = "SET default_transaction_read_only" if is_server(memory.url) else "PRAGMA query_only"
    # Calls one after the other share one pooled connection.
    _within(memory, lambda uow: uow.db.exec_driver_sql(f"{only_reads} = ON"))
    with pytest.raises(ReadOnly):
        memory.create_session("alice")
    assert memory.list_sessions() == []
    memory._store.outside(lambda db: db.exec_driver_sql(f"{only_reads} = OFF"))
    memory.create_session("alice")


def test_a_broken_rule_of_the_schema_is_a_conflict(memory: MemoryManager) -> None:
    insert = (
        f"INSERT INTO {_in(memory)}tasks (session_id, user_id, description, created_at) "
        "VALUES ('missing', 'alice', 'words', '2026-01-01')"
    )
    with pytest.raises(Conflict) as caught, memory.unit_of_work() as uow:
        uow.db.exec_driver_sql(insert)
    assert isinstance(caught.value.__cause__, (sqlite3.IntegrityError, psycopg.IntegrityError))
    memory.create_session("alice")


def test_a_commit_that_fails_leaves_nothing_open(memory: MemoryManager, url: str) -> None:
    late = "PRAGMA defer_foreign_keys = ON"
    if is_server(url):
        late = "SET CONSTRAINTS ALL DEFERRED"
        rule = "fk_tasks__session_id__sessions"
        ask(url, f"ALTER TABLE mirai_memory.tasks ALTER CONSTRAINT {rule} DEFERRABLE")

    def create(uow: UnitOfWork) -> None:
        uow.sessions.create("lost")
        uow.db.exec_driver_sql(late)  # looked at when the transaction commits
        uow.db.exec_driver_sql(
            f"INSERT INTO {_in(memory)}tasks (session_id, user_id, description, created_at) "
            "VALUES ('missing', 'a', 'b', '2026-01-01')"
        )

    with pytest.raises(Conflict):
        _within(memory, create)
    with write_lock(url):
        pass  # nobody has it
    memory.create_session("alice")
    assert [s.user_id for s in memory.list_sessions()] == ["alice"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_a_disk_that_takes_no_more_is_a_storage_error_and_well_again(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from mirai_memory import MemoryManager, Message, StorageError
path = Path(sys.argv[1])
with MemoryManager(path) as memory:
    session = memory.create_session("alice")
    # The kernel refuses to let the write-ahead log grow: what the disk says when it is full, a commit included.
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000, resource.RLIM_INFINITY))
    stored = []
    try:
        for number in range(1_000):
            stored.append(memory.add_message(Message(session_id=session.id, role="user", content=f"n{number} " * 50)))
    except StorageError as error:
        failed = error
    else:
        raise SystemExit("the limit did not bite")
    for _ in range(2):
        try:
            memory.create_session("bob", metadata={"text": "x" * 50_000})
        except StorageError:
            pass
        else:
            raise SystemExit("more was stored than there was room for")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stored.append(memory.add_message(Message(session_id=session.id, role="user", content="after")))
    messages = memory.get_messages(session.id, limit=5_000)
    assert [m.id for m in messages] == stored, "acknowledged and stored differ"
    assert [m.position for m in messages] == list(range(1, len(stored) + 1))
    assert [s.user_id for s in memory.list_sessions()] == ["alice"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "small.db")], capture_output=True, text=True, timeout=GUARD
    )
    assert done.returncode == 0, done.stderr


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("driver words that no caller should see")
    error.sqlite_errorcode = code
    return error


SQLITE_FAULTS = [
    (sqlite3.SQLITE_BUSY, Busy),
    (sqlite3.SQLITE_BUSY_SNAPSHOT, Busy),
    (sqlite3.SQLITE_LOCKED, Busy),
    (sqlite3.SQLITE_FULL, StorageFull),
    (sqlite3.SQLITE_READONLY, ReadOnly),
    (sqlite3.SQLITE_READONLY_DBMOVED, ReadOnly),
    (sqlite3.SQLITE_CANTOPEN, StorageError),
    (sqlite3.SQLITE_IOERR_WRITE, StorageError),
    (sqlite3.SQLITE_CORRUPT, Corrupt),
    (sqlite3.SQLITE_CORRUPT_VTAB, Corrupt),
    (sqlite3.SQLITE_NOTADB, Corrupt),
    (sqlite3.SQLITE_ERROR, StorageError),
    (sqlite3.SQLITE_INTERNAL, StorageError),
]


def _translation(memory: MemoryManager, error: Exception) -> type[MiraiMemoryError]:
    with pytest.raises(MiraiMemoryError) as caught, memory.unit_of_work():
        raise error
    assert "driver words" not in str(caught.value)
    assert caught.value.__cause__ is error
    return type(caught.value)


def test_what_sqlite_says_is_said_in_our_errors(sqlite_memory: MemoryManager) -> None:
    for code, expected in SQLITE_FAULTS:
        assert _translation(sqlite_memory, _sqlite_error(code)) is expected, code


# --- PostgreSQL: what fails, and that the same object works afterwards ------------------------------------------------


@pytest.fixture
def postgres_memory(postgres_url: str) -> Iterator[MemoryManager]:
    with MemoryManager(postgres_url) as memory:
        yield memory


def _server(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo(url), autocommit=True)


POSTGRES_FAULTS = [
    ("40001", Busy),
    ("40P01", Busy),
    ("55P03", Busy),
    ("57014", Busy),
    ("53300", Busy),
    ("53100", StorageFull),
    ("25006", ReadOnly),
    ("42501", StorageError),
    ("42P01", SchemaOutOfDate),
    ("42703", SchemaOutOfDate),
    ("28P01", StorageError),
    ("57P01", StorageError),
    ("08006", StorageError),
    ("XX001", Corrupt),
    ("23503", Conflict),
    ("23514", Conflict),
    ("22003", InvalidInput),
    ("58030", StorageError),
]


def test_what_postgresql_says_is_said_in_our_errors(postgres_memory: MemoryManager) -> None:
    for state, expected in POSTGRES_FAULTS:
        error = psycopg.errors.lookup(state)("driver words that no caller should see")
        assert _translation(postgres_memory, error) is expected, state


def test_a_statement_that_takes_too_long_is_busy(postgres_memory: MemoryManager) -> None:
    def sleep(uow: UnitOfWork) -> None:
        uow.sessions.create("lost")
        uow.db.exec_driver_sql("SET LOCAL statement_timeout = 20")
        uow.db.exec_driver_sql(f"SELECT pg_sleep({GUARD})")

    with pytest.raises(Busy, match="time limit"):
        postgres_memory.run(sleep)
    postgres_memory.create_session("alice")
    assert [s.user_id for s in postgres_memory.list_sessions()] == ["alice"]


def test_upkeep_takes_as_long_as_it_needs(postgres_url: str) -> None:
    sleep = "SELECT pg_sleep(0.8)"
    with MemoryManager(postgres_url, settings=_settings(statement_timeout_ms=400)) as memory:
        with memory.unit_of_work() as uow, pytest.raises(DBAPIError):
            uow.db.exec_driver_sql(sleep)
        with memory.unit_of_work() as uow:
            uow.maintenance.index_is_current()
            uow.db.exec_driver_sql(sleep)
        with memory.unit_of_work() as uow, pytest.raises(DBAPIError):
            uow.db.exec_driver_sql(sleep)  # of that transaction alone


def test_a_lock_is_waited_for_as_long_as_the_settings_say(postgres_url: str) -> None:
    hasty = _settings(busy_timeout_ms=20)
    with MemoryManager(postgres_url) as patient, MemoryManager(postgres_url, settings=hasty) as memory:
        session = patient.create_session("alice")
        with patient.unit_of_work() as uow:
            uow.messages.add(Message(session_id=session.id, role="user", content="first"))
            with ThreadPoolExecutor(1) as pool, pytest.raises(Busy, match="lock"):
                pool.submit(memory.add_message, _say(session.id, "second")).result(GUARD)
        memory.add_message(_say(session.id, "third"))
        assert [m.content for m in memory.get_messages(session.id)] == ["first", "third"]


@pytest.mark.parametrize("moment", ["in the middle", "at commit"])
def test_a_connection_lost_in_a_unit_of_work_is_a_storage_error(
    postgres_memory: MemoryManager, postgres_url: str, moment: str
) -> None:
    runs: list[int] = []

    def create(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.sessions.create("lost")
        pid = uow.db.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with _server(postgres_url) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        if moment == "in the middle":
            uow.sessions.create("lost")

    with pytest.raises(StorageError):
        postgres_memory.run(create)
    assert len(runs) == 1, "whether the commit was done is not known: it is not run again"
    postgres_memory.create_session("alice")
    assert [s.user_id for s in postgres_memory.list_sessions()] == ["alice"]


@pytest.mark.parametrize(
    "call",
    [
        lambda memory: memory.create_session("bob"),
        lambda memory: memory.search_messages("tea", user_id="alice"),
        lambda memory: memory.list_sessions("alice"),
        lambda memory: memory.get_stats(),
    ],
    ids=["a write", "a read of one kind", "a read of another kind", "upkeep"],
)
def test_a_connection_lost_between_calls_is_replaced_unseen(
    postgres_memory: MemoryManager, postgres_url: str, call: Callable[[MemoryManager], Any]
) -> None:
    postgres_memory.add_message(_say(postgres_memory.create_session("alice").id, "tea"))
    with postgres_memory.unit_of_work() as uow:
        pid = uow.db.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with _server(postgres_url) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    assert call(postgres_memory)


def test_where_one_connection_has_died_those_at_work_stay_in_the_pool(
    postgres_memory: MemoryManager, postgres_url: str
) -> None:
    """One that nobody knows of any more would be open until the garbage is collected."""

    def pid(uow: UnitOfWork) -> Any:
        return uow.db.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    with ThreadPoolExecutor(1) as pool, postgres_memory.unit_of_work() as uow:
        working, idle = pid(uow), pool.submit(postgres_memory.run, pid).result(GUARD)
        with _server(postgres_url) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [idle])
        fresh = pool.submit(postgres_memory.run, pid).result(GUARD)
        assert len({working, idle, fresh}) == 3
    with postgres_memory.unit_of_work() as uow, ThreadPoolExecutor(1) as pool:
        assert {pid(uow), pool.submit(postgres_memory.run, pid).result(GUARD)} == {working, fresh}


def test_a_read_without_a_statement_leaves_nothing(postgres_memory: MemoryManager) -> None:
    def level(uow: UnitOfWork) -> str:
        return str(uow.db.exec_driver_sql("SHOW transaction_isolation").scalar())

    assert postgres_memory._store.read(lambda uow: 7) == 7
    assert postgres_memory._store.outside(
        lambda db: str(db.exec_driver_sql("SHOW transaction_isolation").scalar())
    ) == ("read committed")
    assert postgres_memory._store.read(level) == "repeatable read"
    assert postgres_memory.run(level) == "read committed"


def test_a_connection_lost_in_a_read_is_a_storage_error(postgres_memory: MemoryManager, postgres_url: str) -> None:
    runs: list[int] = []

    def read(uow: UnitOfWork) -> None:
        runs.append(1)
        pid = uow.db.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with _server(postgres_url) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        uow.sessions.get("gone")

    with pytest.raises(StorageError):
        postgres_memory._store.read(read)
    assert len(runs) == 1, "it may have said something of what it has seen"
    assert postgres_memory.list_sessions() == []


@pytest.mark.parametrize("first", [True, False])
def test_a_read_is_limited_from_its_first_statement_on(postgres_url: str, first: bool) -> None:
    def sleep(uow: UnitOfWork) -> None:
        if not first:
            uow.sessions.get("gone")
        driver_of(uow.db).execute("SELECT pg_sleep(%s)", [5])

    with MemoryManager(postgres_url, settings=_settings(statement_timeout_ms=400)) as memory:
        with pytest.raises(Busy, match="time limit"):
            memory._store.read(sleep)
        assert memory.list_sessions() == []


@pytest.mark.parametrize("id", ["'", "\\", "\\'; --", "%s %(id)s", "E'\\x41'", "$1 :id ё日\t", "a;b"])
def test_a_read_s_first_statement_takes_any_value(postgres_memory: MemoryManager, id: str) -> None:
    for name in (id, "other"):
        postgres_memory.add_message(_say(postgres_memory.create_session("alice", session_id=name).id, f"in {name}"))
    assert [m.content for m in postgres_memory.get_recent_messages(id)] == [f"in {id}"]


# --- PostgreSQL: run again --------------------------------------------------------------------------------------------


@contextmanager
def _failing_commits(memory: MemoryManager, times: int, state: str = "40001") -> Iterator[list[int]]:
    """The next ``times`` commits of the memory fail, as a server under contention makes them fail."""
    left = [times]

    def fail(_connection: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise psycopg.errors.lookup(state)("injected")

    event.listen(memory._database.engine, "commit", fail)
    try:
        yield left
    finally:
        event.remove(memory._database.engine, "commit", fail)


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.parametrize("times", [1, 2, TRIES - 1])
def test_a_unit_of_work_that_lost_runs_again_and_stores_once(
    postgres_memory: MemoryManager, times: int, state: str
) -> None:
    session = postgres_memory.create_session("alice")
    runs: list[int] = []

    def add(uow: UnitOfWork) -> int:
        runs.append(1)
        return uow.messages.add(_say(session.id, "walrus"))

    with _failing_commits(postgres_memory, times, state):
        id = postgres_memory.run(add)
    assert len(runs) == times + 1
    assert [(m.id, m.content) for m in postgres_memory.get_messages(session.id)] == [(id, "walrus")]
    assert len(postgres_memory.search_messages("walrus")) == 1
    found = postgres_memory.get_session(session.id)
    assert found is not None
    assert found.message_count == 1


def test_the_facades_own_writes_run_again(postgres_memory: MemoryManager) -> None:
    session = postgres_memory.create_session("alice")
    with _failing_commits(postgres_memory, 2) as left:
        postgres_memory.add_message(_say(session.id, "once"))
    assert left == [0]
    assert len(postgres_memory.get_messages(session.id)) == 1


def test_one_that_always_loses_is_busy(postgres_url: str) -> None:
    runs: list[int] = []

    def create(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.sessions.create("lost")

    with MemoryManager(postgres_url, settings=load_settings(memory={"busy_timeout_ms": 0})) as memory:
        with _failing_commits(memory, 1_000), pytest.raises(Busy) as caught:
            memory.run(create)
        assert len(runs) == TRIES
        assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)
        memory.create_session("alice")
        assert [s.user_id for s in memory.list_sessions()] == ["alice"]


@pytest.mark.long
def test_one_that_loses_is_run_again_for_as_long_as_a_writer_waits(postgres_memory: MemoryManager) -> None:
    with _failing_commits(postgres_memory, TRIES + 1) as left:
        postgres_memory.create_session("alice")
    assert left == [0]
    assert [s.user_id for s in postgres_memory.list_sessions()] == ["alice"]


def test_a_row_that_is_there_for_good_is_not_tried_for_so_long(postgres_memory: MemoryManager) -> None:
    runs: list[int] = []

    def insert_twice(uow: UnitOfWork) -> None:
        runs.append(1)
        for _ in range(2):
            uow.db.exec_driver_sql("INSERT INTO mirai_memory.memory_state (name, value) VALUES ('mine', '1')")

    with pytest.raises(Conflict):
        postgres_memory.run(insert_twice)
    assert len(runs) == TRIES


def test_the_context_manager_is_never_run_again(postgres_memory: MemoryManager) -> None:
    with _failing_commits(postgres_memory, 1), pytest.raises(Busy), postgres_memory.unit_of_work() as uow:
        uow.sessions.create("lost")
    assert postgres_memory.list_sessions() == []


def test_what_is_no_contention_is_not_run_again(memory: MemoryManager) -> None:
    runs: list[int] = []

    def fail(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.sessions.create("lost")
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        memory.run(fail)
    assert len(runs) == 1
    assert memory.list_sessions() == []


def test_two_that_lock_each_other_out_both_succeed(postgres_memory: MemoryManager) -> None:
    memory = postgres_memory
    # Of two owners: those of one wait for each other at the counts of their common scope.
    sessions = [memory.create_session(owner).id for owner in ("alice", "bob")]
    both_hold_one = threading.Barrier(2)
    runs = Counter[str]()

    def crosswise(first: str, second: str) -> None:
        def work(uow: UnitOfWork) -> None:
            runs[first] += 1
            uow.messages.add(_say(first))
            if runs[first] == 1:
                both_hold_one.wait(GUARD / 4)
            uow.messages.add(_say(second))

        memory.run(work)

    results = _together(lambda: crosswise(*sessions), lambda: crosswise(*reversed(sessions)))
    assert results == [None, None]
    assert runs.total() > 2, "there was no deadlock: the test proves nothing"
    assert [len(memory.get_messages(id)) for id in sessions] == [2, 2]


def test_two_that_cannot_be_put_in_order_both_succeed(postgres_memory: MemoryManager) -> None:
    memory = postgres_memory
    session = memory.create_session("alice").id
    both_have_read = threading.Barrier(2)
    runs = Counter[str]()

    def count_then_add(name: str) -> None:
        def work(uow: UnitOfWork) -> None:
            uow.db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            runs[name] += 1
            count = len(uow.tasks.page(None, None, limit=9))
            if runs[name] == 1:
                both_have_read.wait(GUARD / 4)
            uow.tasks.add(Task(description=f"{count}", session_id=session))

        memory.run(work)

    results = _together(lambda: count_then_add("a"), lambda: count_then_add("b"))
    assert results == [None, None]
    assert runs.total() > 2, "there was no conflict: the test proves nothing"
    assert sorted(task.description for task in memory.get_tasks()) == ["0", "1"]


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_name_raced_for_is_one_session(memory: MemoryManager) -> None:
    for attempt in range(5):
        found = _together(*[lambda name=f"name {attempt}": memory.ensure_session("alice", name)] * 8)
        assert len({session.id for session in found}) == 1, found
    assert len(memory.list_sessions("alice")) == 5


def test_preferences_raced_for_are_one_row_with_every_change(memory: MemoryManager) -> None:
    changes = [lambda n=n: memory.update_user_preferences("alice", metadata={f"key{n}": n}) for n in range(8)]
    for result in _together(*changes):
        assert isinstance(result, UserPreferences), result
    found = memory.get_user_preferences("alice")
    assert found is not None
    assert found.metadata == {f"key{n}": n for n in range(8)}
    assert found.version == 8


def test_a_version_of_preferences_is_replaced_by_one_only(memory: MemoryManager) -> None:
    saved = memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="first"))
    assert saved.version == 1
    tries = [
        lambda n=n: memory.save_user_preferences(UserPreferences(user_id="alice", coding_style=f"{n}", version=1))
        for n in range(6)
    ]
    results = _together(*tries)
    assert Counter(type(result) for result in results) == {UserPreferences: 1, Conflict: 5}


def test_a_client_id_raced_for_is_one_message(memory: MemoryManager) -> None:
    session = memory.create_session("alice")
    ids = _together(*[lambda: memory.add_message(_say(session.id, client_id="the same"))] * 8)
    assert len(set(ids)) == 1, ids
    found = memory.get_session(session.id)
    assert found is not None
    assert found.message_count == len(memory.get_messages(session.id)) == 1


def test_a_key_raced_for_has_one_current_value(memory: MemoryManager) -> None:
    ids = _together(*[lambda n=n: memory.add_knowledge(Knowledge(key="k", value=f"v{n}")) for n in range(8)])
    assert all(isinstance(id, int) for id in ids), ids
    assert len(memory.get_knowledge(key="k")) == 1
    assert len(memory.knowledge_history("k")) == 8


def _counts(memory: MemoryManager, session_id: str) -> tuple[list[int], list[int], list[int]]:
    """Ids of the session's messages in order, ids that the index holds, and what counters say."""
    ids = [m.id for m in memory.get_messages(session_id, limit=100_000) if m.id]
    with memory.unit_of_work() as uow:
        place = _in(memory)
        indexed = list(uow.db.exec_driver_sql(f"SELECT rowid FROM {place}word_messages ORDER BY rowid").scalars())
        scoped = uow.db.exec_driver_sql(
            f"SELECT sum(item_count) FROM {place}word_scopes WHERE kind = 'message'"
        ).scalar()
        found = uow.sessions.get(session_id)
    assert found is not None
    return ids, indexed, [found.message_count, int(scoped or 0), memory.get_stats()["total_messages"]]


def test_sixteen_threads_on_one_memory(memory: MemoryManager) -> None:
    session = memory.create_session("alice").id

    def work(name: int) -> list[int]:
        ids = []
        for number in range(0, 6, 2):
            said = [_say(session, f"thread{name} number{number + n}") for n in range(2)]
            ids += memory.add_messages(said) if name % 2 else [memory.add_message(message) for message in said]
            memory.get_recent_messages(session)
            assert memory.search_messages(f"thread{name}", user_id="alice")
        return ids

    results = _together(*[lambda n=n: work(n) for n in range(16)])
    given = [id for ids in results for id in ids]
    ids, indexed, counters = _counts(memory, session)
    assert ids == sorted(given) == indexed
    assert counters == [96, 96, 96]
    messages = memory.get_messages(session, limit=1_000)
    assert [m.position for m in messages] == list(range(1, 97))
    for thread in range(16):
        own = [m.content for m in messages if m.content.startswith(f"thread{thread} ")]
        assert own == [f"thread{thread} number{n}" for n in range(6)]


def test_close_waits_for_running_work_and_refuses_new(memory: MemoryManager, url: str) -> None:
    with ThreadPoolExecutor(1) as pool, memory.unit_of_work() as uow:
        session = uow.sessions.create("alice")
        inside, go_on = threading.Event(), threading.Event()

        def long_read(_uow: UnitOfWork) -> str:
            inside.set()
            assert go_on.wait(GUARD)
            return "done"

        reading = pool.submit(memory._store.read, long_read)
        assert inside.wait(GUARD)
        closing_now = threading.Thread(target=memory.close)
        closing_now.start()
        with ThreadPoolExecutor(1) as another:
            refused = False
            for _ in range(10_000):
                try:
                    another.submit(memory.list_sessions).result(GUARD)
                except StorageError as error:
                    refused = "closed" in str(error)
                    break
        assert refused, "close() had every chance to refuse new work"
        assert closing_now.is_alive(), "close() did not wait"
        go_on.set()
        assert reading.result(GUARD) == "done"
        assert closing_now.is_alive(), "close() did not wait for the second unit of work"
        uow.messages.add(_say(session.id, "still works"))
    closing_now.join(GUARD)
    assert not closing_now.is_alive()
    memory.close()  # again: nothing
    with pytest.raises(StorageError, match="closed"):
        memory.list_sessions()
    with MemoryManager(url) as again:
        assert [m.content for m in again.get_messages(session.id)] == ["still works"]


# --- processes --------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from mirai_memory import MemoryManager, Message
path, session, name, count = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with MemoryManager(path) as memory:
    for number in range(int(count)):
        id = memory.add_message(Message(session_id=session, role="user", content=f"writer{name} number{number}"))
        print(id, f"writer{name} number{number}", flush=True)
"""


@contextmanager
def _writers(path: str, session_id: str, names: Sequence[int], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that wait for a line on their standard input, and then write."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, session_id, str(name), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    guard = threading.Timer(GUARD, lambda: [process.kill() for process in processes])
    guard.start()
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        guard.cancel()
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.long
def test_eight_processes_write_one_file(url: str) -> None:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        with _writers(url, session, range(8), 50) as writers:
            printed = [writer.communicate() for writer in writers]
            assert [(writer.returncode, words[1]) for writer, words in zip(writers, printed, strict=True)] == [
                (0, "")
            ] * 8
        given = {int(line.split()[0]): line.split(" ", 1)[1] for out, _ in printed for line in out.splitlines()}
        ids, indexed, counters = _counts(memory, session)
        assert ids == sorted(given) == indexed
        assert counters == [400, 400, 400]
        messages = memory.get_messages(session, limit=1_000)
        assert {m.id: m.content for m in messages} == given
        assert [m.position for m in messages] == list(range(1, 401))
        for name in range(8):
            own = [m.content for m in messages if m.content.startswith(f"writer{name} ")]
            assert own == [f"writer{name} number{n}" for n in range(50)]


_FTS_CHECK = "INSERT INTO {0}({0}) VALUES ('integrity-check')"


@pytest.mark.long
def test_a_killed_writer_loses_and_doubles_nothing(url: str) -> None:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        acknowledged: dict[int, str] = {}
        for round_ in range(3):
            with _writers(url, session, [round_ * 2, round_ * 2 + 1], 100_000) as writers:
                for writer in writers:
                    assert writer.stdout is not None
                    for _ in range(15 + 7 * round_):
                        id, content = writer.stdout.readline().rstrip("\n").split(" ", 1)
                        acknowledged[int(id)] = content
                for writer in writers:
                    writer.kill()
                for writer in writers:
                    assert writer.stdout is not None
                    for line in writer.stdout.read().splitlines(keepends=True):
                        if line.endswith("\n"):
                            id, content = line.rstrip("\n").split(" ", 1)
                            acknowledged[int(id)] = content
                    writer.wait(GUARD)
    assert left_open(url) == [], "what a server was still doing for them is done"
    with MemoryManager(url) as memory:
        messages = memory.get_messages(session, limit=1_000_000)
        stored = {m.id: m.content for m in messages}
        assert acknowledged.items() <= stored.items(), "an acknowledged write is lost"
        assert len(set(stored.values())) == len(stored), "a write was doubled"
        # One each may have been committed without its writer having lived to say so.
        assert len(stored) <= len(acknowledged) + 6
        assert [m.position for m in messages] == list(range(1, len(messages) + 1))
        ids, indexed, counters = _counts(memory, session)
        assert ids == indexed
        assert counters == [len(ids)] * 3
        assert memory.verify().ok
        if not is_server(url):
            for words in ("word_messages", "word_knowledge"):
                _within(memory, lambda uow, words=words: uow.db.exec_driver_sql(_FTS_CHECK.format(words)))


# --- nothing of the driver's crosses the façade -----------------------------------------------------------------------


@cache
def _an_export() -> bytes:
    """All of an owner who has a fact."""
    with MemoryManager(":memory:") as memory:
        memory.add_knowledge(Knowledge(user_id="alice", value="words"))
        file = BytesIO()
        memory.export_user("alice", file)
        return file.getvalue()


def _copied(memory: MemoryManager) -> None:
    with MemoryManager(":memory:") as other:
        memory.copy_to(other)


def _learned(session_id: str) -> Learned:
    """Proposals, for which no extractor is asked."""
    return Learned(session_id=session_id, extractor="x", after=0, through=1)


def _calls(session_id: str) -> dict[str, Callable[[MemoryManager], Any]]:
    """One call of every public method that reaches the database."""
    return {
        "create_session": lambda m: m.create_session("alice"),
        "ensure_session": lambda m: m.ensure_session("alice", "name"),
        "get_session": lambda m: m.get_session(session_id),
        "update_session": lambda m: m.update_session(session_id, metadata={}),
        "update_session_activity": lambda m: m.update_session_activity(session_id),
        "get_active_sessions": lambda m: m.get_active_sessions(),
        "list_sessions": lambda m: m.list_sessions(),
        "clear_session": lambda m: m.clear_session(session_id),
        "delete_session": lambda m: m.delete_session(session_id),
        "add_message": lambda m: m.add_message(_say(session_id)),
        "add_messages": lambda m: m.add_messages([_say(session_id), _say(session_id)]),
        "get_message": lambda m: m.get_message(1),
        "update_message": lambda m: m.update_message(1, "words"),
        "delete_message": lambda m: m.delete_message(1),
        "pop_message": lambda m: m.pop_message(session_id),
        "get_recent_messages": lambda m: m.get_recent_messages(session_id),
        "get_messages": lambda m: m.get_messages(session_id),
        "get_conversation_history": lambda m: m.get_conversation_history(session_id),
        "trim_old_messages": lambda m: m.trim_old_messages(session_id),
        "search_messages": lambda m: m.search_messages("words"),
        "save_user_preferences": lambda m: m.save_user_preferences(UserPreferences(user_id="alice")),
        "get_user_preferences": lambda m: m.get_user_preferences("alice"),
        "update_user_preferences": lambda m: m.update_user_preferences("alice", coding_style="terse"),
        "delete_user_preferences": lambda m: m.delete_user_preferences("alice"),
        "add_task": lambda m: m.add_task(Task(description="words", user_id="alice")),
        "get_task": lambda m: m.get_task(1),
        "update_task_status": lambda m: m.update_task_status(1, "completed"),
        "get_tasks": lambda m: m.get_tasks(),
        "delete_task": lambda m: m.delete_task(1),
        "add_knowledge": lambda m: m.add_knowledge(Knowledge(value="words")),
        "add_knowledge_many": lambda m: m.add_knowledge_many([Knowledge(value="words")]),
        "get_knowledge": lambda m: m.get_knowledge(),
        "search_knowledge": lambda m: m.search_knowledge("words"),
        "knowledge_history": lambda m: m.knowledge_history("key"),
        "diff": lambda m: m.diff("alice", FrozenClock()(), FrozenClock()()),
        "find_duplicates": lambda m: m.find_duplicates("alice"),
        "merge_knowledge": lambda m: m.merge_knowledge(1, 2),
        "delete_knowledge": lambda m: m.delete_knowledge(1),
        "recall": lambda m: m.recall("words", user_id="alice"),
        "build_context": lambda m: m.build_context(session_id, "words"),
        "summarize": lambda m: m.summarize(session_id),
        "learn": lambda m: m.learn(session_id, proposals=_learned(session_id)),
        "run": lambda m: m.run(lambda uow: uow.sessions.create("alice")),
        "unit_of_work": lambda m: m.unit_of_work().__enter__().sessions.create("alice"),
        "cleanup_old_sessions": lambda m: m.cleanup_old_sessions(0),
        "cleanup": lambda m: m.cleanup(0),
        "export_user": lambda m: m.export_user("alice", BytesIO()),
        "import_user": lambda m: m.import_user(BytesIO(_an_export())),
        "forget_user": lambda m: m.forget_user("alice"),
        "copy_to": lambda m: _copied(m),
        "verify": lambda m: m.verify(),
        "repair": lambda m: m.repair(),
        "get_stats": lambda m: m.get_stats(),
    }


# Without an embedder, reindex has nothing to do; health answers whatever is wrong; backups are of SQLite files only;
# files are searched for traces. All have tests of their own.
NO_DATABASE = {"settings", "url", "close", "for_user", "embedding_model", "reindex", "health"} | {
    *("backup", "restore_backup", "drill_backup", "verify_forgotten"),
}


def _public_methods() -> set[str]:
    return {name for name in dir(MemoryManager) if not name.startswith("_")} - NO_DATABASE


def test_the_table_of_calls_is_complete() -> None:
    assert _public_methods() == set(_calls("")), "a new public method needs a call here"


TABLES = ("embeddings", "knowledge", "tasks", "messages", "user_preferences", "sessions", "memory_state", "word_scopes")


def test_no_driver_error_crosses_the_facade(memory: MemoryManager) -> None:
    session = memory.create_session("alice").id
    with memory.unit_of_work() as uow:
        for table in (*TABLES, "word_messages", "word_knowledge"):
            uow.db.exec_driver_sql(f"DROP TABLE {_in(memory)}{table}")
    leaked = {}
    for name, call in _calls(session).items():
        if name == "unit_of_work":
            continue
        try:
            call(memory)
        except MiraiMemoryError:
            pass
        except Exception as error:
            leaked[name] = error
        else:
            leaked[name] = RuntimeError("did not fail without its tables")
    assert leaked == {}


def test_every_call_on_a_closed_memory_is_a_storage_error(url: str, clock: FrozenClock) -> None:
    memory = MemoryManager(url, clock=clock)
    session = memory.create_session("alice").id
    memory.close()
    for call in _calls(session).values():
        with pytest.raises(StorageError, match="closed"):
            call(memory)


def test_an_error_of_the_callers_own_passes_as_it_is(memory: MemoryManager) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, memory.unit_of_work():
        raise error
    assert caught.value is error
    memory.create_session("alice")
