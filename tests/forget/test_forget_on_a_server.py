"""What a server keeps of a forgotten owner: VACUUM takes the rows, and the receipt says what it cannot reach."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from canaries import CANARY, fill, rows_of
from cli_runner import CliRunner
from server_side import conninfo
from sqlalchemy import make_url

from mirai_memory import MemoryManager
from mirai_memory.cli.app import app
from mirai_memory.database import vacuuming
from mirai_memory.models import Base


def connect(url: str, **more: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo(url), **more)


def size(url: str, table: str) -> int:
    with connect(url) as connection:
        found = connection.execute(f"SELECT pg_relation_size('mirai_memory.{table}')".encode()).fetchone()
    assert found is not None
    return int(found[0])


def dead_bytes(url: str) -> set[str]:
    """The tables in whose pages the canary stands, read past what is dead and what is not."""
    found = set()
    with connect(url, autocommit=True) as connection:
        for table in (*Base.metadata.tables, "word_messages", "word_knowledge"):
            path = connection.execute(f"SELECT pg_relation_filepath('mirai_memory.{table}')".encode()).fetchone()
            connection.execute("CHECKPOINT")
            assert path is not None
            (bytes_,) = connection.execute("SELECT pg_read_binary_file(%s)", path).fetchone() or (b"",)
            if CANARY.encode() in bytes_:
                found.add(table)
    return found


def test_vacuum_takes_the_rows_and_the_receipt_tells_what_is_left(postgres_url: str) -> None:
    with MemoryManager(postgres_url) as memory:
        fill(memory, rounds=4)
        memory.forget_user("bob")
        done = memory.forget_user("alice")
        assert not any(rows_of(memory, "alice").values())
    assert (done.state, done.reason) == ("done", None)
    assert '"mirai_memory"."messages"' in done.vacuumed
    assert size(postgres_url, "messages") == 0, "the last rows are gone, and their pages with them"
    assert [place.place for place in done.remains] == ["pages", "log", "replicas", "backups"]
    assert json.loads(json.dumps(done.to_dict()))["remains"][0]["statements"][0].startswith("VACUUM FULL ")
    assert done.note is not None
    assert all(place.advice in done.note for place in done.remains)
    assert CANARY not in str(done)


def test_vacuum_may_come_later(postgres_url: str) -> None:
    """As after a process that was killed when the last row had gone."""
    with MemoryManager(postgres_url) as memory:
        fill(memory, rounds=4)
        first = memory.forget_user("alice", compact=False)
        assert (first.state, first.vacuumed) == ("pending", ())
    with MemoryManager(postgres_url) as memory:
        done = memory.forget_user("alice")
        assert (done.state, done.rows) == ("done", 0)
        assert '"mirai_memory"."messages"' in done.vacuumed


def test_the_statements_of_the_receipt_end_it(postgres_url: str) -> None:
    with MemoryManager(postgres_url) as memory:
        fill(memory)
        assert dead_bytes(postgres_url)
        done = memory.forget_user("alice")
        with connect(postgres_url, autocommit=True) as connection:
            for place in done.remains:
                for statement in place.statements:
                    connection.execute(statement.encode())
        assert dead_bytes(postgres_url) == set()
        assert memory.verify().ok
        assert len(memory.list_sessions("bob")) == 3


def test_whoever_reads_what_was_before_makes_it_pending(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacuuming, "PATIENCE_S", 0.0)
    with MemoryManager(postgres_url) as memory, connect(postgres_url, application_name="a report") as reader:
        fill(memory, rounds=4)
        memory.forget_user("bob")
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM mirai_memory.messages")
        done = memory.forget_user("alice")
        assert done.state == "pending"
        assert f"process {reader.info.backend_pid} (application a report)" in str(done.reason)
        assert size(postgres_url, "messages") > 0
        reader.rollback()
        monkeypatch.undo()
        assert memory.forget_user("alice").state == "done"
        assert size(postgres_url, "messages") == 0


def test_what_the_role_may_not_vacuum_is_not_said_to_be_done(postgres_url: str) -> None:
    with connect(postgres_url, autocommit=True) as connection:
        role = f"program_{connection.info.backend_pid}"
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'p4ssw0rd'",
            f"GRANT USAGE ON SCHEMA mirai_memory TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mirai_memory TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA mirai_memory TO {role}",
        ):
            connection.execute(statement.encode())
        try:
            url = make_url(postgres_url).set(username=role, password="p4ssw0rd")
            with MemoryManager(url) as memory:
                memory.create_session("alice")
                done = memory.forget_user("alice")
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())
    assert (done.state, done.sessions, done.vacuumed) == ("done", 1, ())
    assert "the role may not VACUUM" in done.remains[0].advice


def test_the_command_prints_the_statements(postgres_url: str) -> None:
    with MemoryManager(postgres_url) as memory:
        memory.create_session("alice")
    result = CliRunner().invoke(app, ["forget", "--user", "alice", "--yes", "--db", postgres_url])
    assert result.exit_code == 0
    assert 'mirai-memory: VACUUM FULL "mirai_memory"."messages"' in result.stderr.splitlines()


def test_sqlite_has_nothing_to_add(sqlite_memory: MemoryManager) -> None:
    sqlite_memory.create_session("alice")
    done = sqlite_memory.forget_user("alice")
    assert (done.note, done.vacuumed, done.remains) == (None, (), ())
