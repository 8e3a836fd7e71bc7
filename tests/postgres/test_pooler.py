"""Behind a pooler in transaction mode: the contract holds, many share few connections, and nothing is left on one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pooler import Pooler, pooler
from server_side import ask, conninfo

from mirai_memory import Knowledge, MemoryManager, Message, StorageError, UnitOfWork
from mirai_memory.models import Base
from mirai_memory.search.postings import PROJECTIONS
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract import MemoryContract

TABLES = [table for table in (*Base.metadata.sorted_tables, *PROJECTIONS.sorted_tables) if table.name != "memory_state"]


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Pooler]:
    with pooler(postgres_url) as pooled:
        yield pooled


@pytest.fixture(scope="module")
def lasting(lasting_postgres_url: str) -> Iterator[Pooler]:
    """A database and a pooler for all tests of the contract: to make one of each takes longer than most of them."""
    with pooler(lasting_postgres_url) as lasting:
        yield lasting


class TestThroughAPooler(MemoryContract):
    @pytest.fixture
    def memory(self, lasting: Pooler, clock: FrozenClock) -> Iterator[MemoryManager]:
        with MemoryManager(lasting.url, clock=clock) as memory:
            yield memory
        ask(lasting.server, f"TRUNCATE {', '.join(f'mirai_memory.{table.name}' for table in TABLES)}")
        assert lasting.left_behind() == set()


def test_writers_and_readers_share_three_connections(pooled: Pooler, postgres_url: str) -> None:
    """Each statement is sent often enough to be prepared, were it prepared at all."""
    with MemoryManager(pooled.url, embedder=FakeEmbedder(dim=8)) as memory, ThreadPoolExecutor(12) as pool:
        sessions = [memory.create_session(f"owner{number}").id for number in range(4)]

        def work(thread: int) -> None:
            session = sessions[thread % 4]
            for number in range(12):
                memory.add_message(Message(session_id=session, role="user", content=f"tea {thread} {number}"))
                memory.add_knowledge(Knowledge(user_id=f"owner{thread % 4}", key=f"k{number % 3}", value=f"v{thread}"))
                memory.get_recent_messages(session)
                memory.search_messages("tea", user_id=f"owner{thread % 4}")

        list(pool.map(work, range(12)))
        memory.reindex()
        memory.forget_user("owner3")
        assert [memory.get_session(session).message_count for session in sessions[:3]] == [36] * 3  # type: ignore[union-attr]
        assert memory.get_stats()["total_messages"] == 108
        assert memory.verify().ok
    assert pooled.transactions > 12 * 12 * 4
    connections = ask(postgres_url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    assert connections == [(3 + 1,)]
    assert pooled.left_behind() == set()


def test_a_read_is_one_view_and_takes_nothing_with_it(pooled: Pooler, postgres_url: str) -> None:
    """The isolation of a read is of its own transaction; the next one has the server's again."""

    def level(uow: UnitOfWork) -> str:
        return str(uow.db.exec_driver_sql("SHOW transaction_isolation").scalar())

    with MemoryManager(pooled.url) as memory:
        for _ in range(4):
            assert memory._store.read(level) == "repeatable read"
            assert memory.run(level) == "read committed"
    assert pooled.left_behind() == set()


def test_a_client_that_leaves_in_the_middle_leaves_nothing(pooled: Pooler, postgres_url: str) -> None:
    with MemoryManager(pooled.url) as memory:
        session = memory.create_session("alice").id

        def leave(uow: UnitOfWork) -> None:
            for _ in range(2):
                uow.messages.add(Message(session_id=session, role="user", content="lost"))
                uow.db.connection.driver_connection.close()  # type: ignore[union-attr]

        with pytest.raises(StorageError):
            memory.run(leave)
        memory.add_message(Message(session_id=session, role="user", content="stored"))
        assert [message.content for message in memory.get_messages(session)] == ["stored"]


def test_what_the_pooler_would_notice(pooled: Pooler) -> None:
    """What is left behind is seen: settings, prepared statements, locks, tables."""
    import psycopg

    with psycopg.connect(conninfo(pooled.url), autocommit=True) as connection:
        for statement in (
            "SET statement_timeout = 60000",
            "PREPARE mine AS SELECT 1",
            "SELECT pg_advisory_lock(7)",
            "CREATE TEMPORARY TABLE mine (id int)",
        ):
            connection.execute(statement.encode())
    assert pooled.left_behind() == {"setting statement_timeout", "prepared mine", "lock", "table mine"}
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(conninfo(pooled.url), options="-c search_path=mine")
