"""Upgrading on a server: one at a time, in nobody's way for long, cut short without a trace, by whom it is allowed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from cli_runner import CliRunner
from psycopg import sql
from server_side import conninfo, until
from sqlalchemy import make_url

from mirai_memory import (
    Busy,
    ConfigurationError,
    Knowledge,
    MemoryManager,
    Message,
    SchemaOutOfDate,
    StorageError,
    load_settings,
    schema,
)
from mirai_memory.cli.app import app
from mirai_memory.database import migrating
from mirai_memory.database.migrating import Patience

GUARD = 60.0
OURS = "mirai_memory"
README = Path(__file__).parents[2] / "README.md"
TURN = "SELECT pg_advisory_xact_lock(hashtext('mirai:mirai_memory'))"


@contextmanager
def connected(url: str, **more: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection of somebody else's; what it has begun is rolled back at the end."""
    connection = psycopg.connect(conninfo(url), **more)
    try:
        yield connection
    finally:
        connection.close()


def rows_of(url: str, statement: str) -> list[tuple[Any, ...]]:
    with connected(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def execute(url: str, *statements: str) -> None:
    with connected(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def schemas(url: str) -> set[str]:
    return {row[0] for row in rows_of(url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_)'")}


@contextmanager
def started(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that upgrades; it does not outlive its test."""
    command = [sys.executable, "-m", "mirai_memory", "db", "upgrade", "--db", url]
    # A run in the background ignores Ctrl-C, and so would its children.
    listen = {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **(listen if os.name == "posix" else {})
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def somebody_waits(url: str) -> bool:
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(rows_of(url, waits))


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_of_two_upgrades_at_once_one_does_the_work(empty_postgres_url: str) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with connected(empty_postgres_url) as other:
        other.execute(TURN)
        with started(empty_postgres_url) as one, started(empty_postgres_url) as two:
            until(lambda: rows_of(empty_postgres_url, waiting) == [(2,)])
            other.rollback()
            said = [process.communicate(timeout=GUARD) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], said
    assert sum("0001 begins" in stderr for _, stderr in said) == 1
    assert all("waiting for process" in stderr and "revision 0003" in stderr for _, stderr in said)
    assert schema.check(empty_postgres_url) == []


def test_who_waits_is_told_for_whom_and_sees_what_was_done_meanwhile(empty_postgres_url: str) -> None:
    # Where a transaction sees one moment by default, it would be that before the wait.
    name = make_url(empty_postgres_url).database
    execute(empty_postgres_url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    script = schema.script(empty_postgres_url)
    body = script.replace("BEGIN;\n", "", 1).replace("COMMIT;", "")
    told: list[str] = []
    with connected(empty_postgres_url, application_name="the other one") as other:
        other.execute(TURN.encode())

        def tell(words: str) -> None:
            told.append(words)
            assert words.startswith("waiting for process")
            other.execute(body.replace("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;", "").encode())
            other.commit()

        schema.upgrade(empty_postgres_url, tell=tell)
        assert len(told) == 1
        assert f"process {other.info.backend_pid} (application the other one, role " in told[0]
    assert schema.check(empty_postgres_url) == []


def test_an_upgrade_that_takes_too_long_is_not_waited_for(empty_postgres_url: str) -> None:
    with connected(empty_postgres_url) as other:
        other.execute(TURN)
        who = f"process {other.info.backend_pid} "
        with pytest.raises(Busy, match=f"{who}.*had not ended its migration.*--lock-timeout"):
            schema.upgrade(empty_postgres_url, patience=Patience(lock_s=0.1))
        result = CliRunner().invoke(app, ["db", "upgrade", "--lock-timeout", "0.1", "--db", empty_postgres_url])
        assert (result.exit_code, result.stdout) == (4, "")
        assert who in result.stderr.splitlines()[-1]
    assert schemas(empty_postgres_url) == {"public"}


def test_another_schema_is_upgraded_meanwhile(empty_postgres_url: str) -> None:
    with connected(empty_postgres_url) as other:
        other.execute(TURN)
        schema.upgrade(empty_postgres_url, schema="tenant", patience=Patience(lock_s=0.0))
    assert schema.check(empty_postgres_url, schema="tenant") == []


def test_the_limits_of_programs_do_not_cut_it_and_its_own_do(empty_postgres_url: str) -> None:
    name = make_url(empty_postgres_url).database
    execute(empty_postgres_url, f"ALTER DATABASE {name} SET statement_timeout = 200")
    with connected(empty_postgres_url) as other:
        other.execute(TURN)
        with pytest.raises(Busy, match="had not ended its migration"):
            schema.upgrade(empty_postgres_url, patience=Patience(lock_s=0.5))
        with pytest.raises(Busy, match="longer than its time limit"):
            schema.upgrade(empty_postgres_url, patience=Patience(statement_s=0.1))


# --- in nobody's way --------------------------------------------------------------------------------------------------


@pytest.fixture
def older(postgres_url: str) -> str:
    """A server's memory with a message and a fact in it, at the first revision."""
    with MemoryManager(postgres_url) as memory:
        session = memory.create_session("alice").id
        memory.add_message(Message(session_id=session, role="user", content="walrus"))
        memory.add_knowledge(Knowledge(value="walrus"))
    schema.downgrade(postgres_url, revision="0001")
    return postgres_url


def is_whole(url: str) -> bool:
    with MemoryManager(url) as memory:
        return (len(memory.search_messages("walrus")), len(memory.search_knowledge("walrus"))) == (1, 1)


def test_tables_in_use_are_tried_again(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "TABLE_WAIT_S", 0.05)
    told: list[str] = []
    with connected(older, application_name="a writer") as writer:
        writer.execute("LOCK TABLE mirai_memory.embeddings IN ROW EXCLUSIVE MODE")

        def tell(words: str) -> None:
            told.append(words)
            if "in the way" in words:
                writer.rollback()

        schema.upgrade(older, tell=tell)
        who = f"process {writer.info.backend_pid} (application a writer, role "
    (tried,) = [words for words in told if "in the way" in words]
    assert tried.startswith(who)
    assert " in embeddings is in the way; trying again" in tried
    assert schema.check(older) == []
    assert is_whole(older)


def test_tables_that_stay_in_use_end_it_and_nothing_is_changed(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "TABLE_WAIT_S", 0.05)
    with connected(older, application_name="a writer") as writer:
        writer.execute("LOCK TABLE mirai_memory.embeddings IN ROW EXCLUSIVE MODE")
        who = rf"process {writer.info.backend_pid} \(application a writer, role .*\) in embeddings"
        with pytest.raises(Busy, match=f"{who} did not let go.*--lock-timeout"):
            schema.upgrade(older, patience=Patience(lock_s=0.3))
        assert schema.current(older) == "0001"
    schema.upgrade(older)
    assert is_whole(older)


def test_others_are_not_kept_waiting_behind_it(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema.upgrade(older, revision="0002")
    monkeypatch.setattr(migrating, "TABLE_WAIT_S", 0.05)
    tries = []
    with connected(older) as reader, connected(older) as program:
        reader.execute("SELECT * FROM mirai_memory.word_scopes")  # which the upgrade wants to alter
        program.execute("SET lock_timeout = '20s'")
        upgrading = Thread(target=schema.upgrade, args=(older,), kwargs={"tell": tries.append})
        upgrading.start()
        until(lambda: any("in the way" in words for words in tries))
        program.execute("SELECT * FROM mirai_memory.word_scopes")
        assert upgrading.is_alive()
        program.rollback()
        reader.rollback()
        upgrading.join(GUARD)
    assert schema.check(older) == []


# --- cut short --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_upgrade_that_is_ended_in_the_middle_leaves_the_old_schema_whole(older: str, end: signal.Signals) -> None:
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'mirai_memory' ORDER BY 1"
    before = rows_of(older, tables)
    with connected(older) as writer:
        writer.execute("LOCK TABLE mirai_memory.embeddings IN ROW EXCLUSIVE MODE")
        with started(older) as process:
            until(lambda: somebody_waits(older))  # 0002 is done by now, and 0003 half
            process.send_signal(end)
            _, said = process.communicate(timeout=GUARD)
    assert "0003 begins" in said
    if end == signal.SIGINT:
        assert (process.returncode, said.splitlines()[-1]) == (130, "mirai-memory: interrupted")
    until(lambda: rows_of(older, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)])
    assert rows_of(older, tables) == before
    assert schema.current(older) == "0001"
    schema.upgrade(older)
    assert schema.check(older) == []
    assert is_whole(older)


# --- never by itself --------------------------------------------------------------------------------------------------


def test_opening_migrates_no_schema(empty_postgres_url: str) -> None:
    schema.upgrade(empty_postgres_url, schema="current")
    schema.upgrade(empty_postgres_url, schema="older", revision="0002")
    places = {name: load_settings(memory={"schema": name}) for name in ("current", "older", "absent")}
    for name in ("older", "absent"):
        with pytest.raises(SchemaOutOfDate, match="mirai-memory db upgrade"):
            MemoryManager(empty_postgres_url, settings=places[name])
    with MemoryManager(empty_postgres_url, settings=places["current"]) as memory:
        assert memory.list_sessions() == []
    assert schemas(empty_postgres_url) == {"public", "current", "older"}
    assert schema.current(empty_postgres_url, schema="older") == "0002"
    schema.upgrade(empty_postgres_url, schema="older")
    with MemoryManager(empty_postgres_url, settings=places["older"]) as memory:
        assert memory.list_sessions() == []


@pytest.mark.parametrize("name", ["Upper", 'quo"te', "two words", "pg_mine", "information_schema", "1st", "", "a" * 64])
def test_a_schema_that_needs_quotes_is_refused(empty_postgres_url: str, name: str) -> None:
    for call in (schema.upgrade, schema.script):
        with pytest.raises(ConfigurationError, match="small Latin letters"):
            call(empty_postgres_url, schema=name)
    with pytest.raises(ConfigurationError, match=r"memory\.schema"):
        load_settings(memory={"schema": name})
    assert schemas(empty_postgres_url) == {"public"}


@pytest.mark.parametrize("name", ["user", "select", "a" * 63, "_1"])
def test_a_schema_may_have_the_name_of_a_keyword(empty_postgres_url: str, name: str) -> None:
    schema.upgrade(empty_postgres_url, schema=name)
    with MemoryManager(empty_postgres_url, settings=load_settings(memory={"schema": name})) as memory:
        memory.add_knowledge(Knowledge(value="walrus"))
        assert len(memory.search_knowledge("walrus")) == 1
        memory.forget_user("alice")
        assert memory.verify().ok


# --- the statements for an administrator ------------------------------------------------------------------------------


def run(url: str, script: str) -> None:
    with connected(url, autocommit=True) as connection:
        connection.execute(script.encode())


def printed(*arguments: str) -> str:
    """What ``db upgrade --sql`` prints for a server that is not there."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    result = CliRunner().invoke(app, ["db", "upgrade", *arguments, "--sql", "--db", nowhere])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_printed_statements_make_the_schema_and_upgrade_it(empty_postgres_url: str) -> None:
    whole, first, rest = printed(), printed("0001"), printed("0001:head")
    for script in (whole, first, rest):
        assert script.startswith("BEGIN;")
        assert script.rstrip().endswith("COMMIT;")
    run(empty_postgres_url, whole)
    assert schema.check(empty_postgres_url) == []
    assert is_usable(empty_postgres_url)
    execute(empty_postgres_url, "DROP SCHEMA mirai_memory CASCADE")
    run(empty_postgres_url, first)
    assert schema.current(empty_postgres_url) == "0001"
    run(empty_postgres_url, rest)
    assert schema.check(empty_postgres_url) == []


def is_usable(url: str) -> bool:
    with MemoryManager(url) as memory:
        memory.add_knowledge(Knowledge(value="seal"))
        return len(memory.search_knowledge("seal")) == 1


def test_printed_statements_refuse_another_revision(older: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="not at revision 0002"):
        run(older, printed("0002:head"))
    with pytest.raises(psycopg.Error):
        run(older, printed())
    assert schema.current(older) == "0001"
    schema.downgrade(older, revision="base")
    with pytest.raises(psycopg.errors.RaiseException, match="parked"):
        run(older, printed())
    schema.upgrade(older)
    assert is_whole(older)


def test_printed_statements_wait_for_nobody(older: str) -> None:
    script = printed("0001:head")
    assert "lock_timeout = 2000;" in script
    with connected(older) as writer:
        writer.execute("LOCK TABLE mirai_memory.embeddings IN ROW EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(older, script.replace("lock_timeout = 2000;", "lock_timeout = 50;"))
    assert schema.current(older) == "0001"


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_role(empty_postgres_url: str) -> Iterator[Callable[[str], str]]:
    """Makes a role that may connect and nothing else; the URL with which it does so."""
    made = []

    def make(name: str) -> str:
        role = f"{name}_{os.getpid()}_{len(made)}"
        execute(empty_postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD 'p4ssw0rd'")
        made.append(role)
        return make_url(empty_postgres_url).set(username=role, password="p4ssw0rd").render_as_string(False)

    yield make
    for role in reversed(made):
        execute(empty_postgres_url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def role_of(url: str) -> str:
    return str(make_url(url).username)


def statement_in(error: pytest.ExceptionInfo[StorageError]) -> str:
    """What the message tells an administrator to run."""
    return str(error.value).split(": ", 1)[1]


def test_a_role_that_may_make_nothing_is_told_what_an_administrator_runs(
    empty_postgres_url: str, as_role: Callable[[str], str]
) -> None:
    migrator = as_role("migrator")
    with pytest.raises(StorageError, match="CREATE SCHEMA") as refused:
        schema.upgrade(migrator)
    execute(empty_postgres_url, statement_in(refused))
    schema.upgrade(migrator)
    assert schema.check(migrator) == []
    stranger = as_role("stranger")
    schema.downgrade(migrator, revision="0002")
    execute(empty_postgres_url, f"GRANT USAGE ON SCHEMA {OURS} TO {role_of(stranger)}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {OURS} TO {role_of(stranger)}")  # fmt: skip
    with pytest.raises(StorageError, match=f"belong to role {role_of(migrator)}") as refused:
        schema.upgrade(stranger)
    assert schema.current(migrator) == "0002"
    execute(empty_postgres_url, statement_in(refused))
    schema.upgrade(stranger)
    assert schema.check(migrator) == []


def test_a_role_that_may_not_make_tables_is_told_so(empty_postgres_url: str, as_role: Callable[[str], str]) -> None:
    migrator = as_role("migrator")
    execute(empty_postgres_url, f"CREATE SCHEMA {OURS}", f"GRANT USAGE ON SCHEMA {OURS} TO {role_of(migrator)}")
    with pytest.raises(StorageError, match="GRANT USAGE, CREATE ON SCHEMA") as refused:
        schema.upgrade(migrator)
    execute(empty_postgres_url, statement_in(refused))
    schema.upgrade(migrator)
    assert schema.check(migrator) == []


def granted(owner: str, program: str) -> str:
    """What the README tells an administrator to run, for roles that are there."""
    (block,) = re.findall(r"```sql\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert block.startswith("CREATE ROLE memory_owner LOGIN;\nCREATE ROLE memory_app LOGIN;\n")
    statements = block.split("\n", 2)[2]
    return statements.replace("memory_owner", owner).replace("memory_app", program)


def test_a_role_that_may_read_and_write_rows_runs_the_application(
    empty_postgres_url: str, as_role: Callable[[str], str]
) -> None:
    owner, program = as_role("owner"), as_role("program")
    run(empty_postgres_url, granted(role_of(owner), role_of(program)))
    schema.upgrade(owner, revision="0001")
    schema.upgrade(owner)  # its new tables too
    with MemoryManager(program) as memory:
        session = memory.create_session("alice").id
        memory.add_message(Message(session_id=session, role="user", content="walrus"))
        memory.add_knowledge(Knowledge(user_id="alice", value="walrus", embedding=[1.0, 0.0], embedding_model="m"))
        memory.update_user_preferences("alice", coding_style="terse")
        memory.update_task_status(memory.add_task(_task(session)), "completed")
        assert len(memory.recall("walrus", user_id="alice")) == 2
        assert memory.get_stats()["total_messages"] == 1
        assert memory.verify().ok
        assert [check.name for check in memory.health().checks if check.status == "error"] == []
        assert memory.repair().ok
        assert memory.forget_user("alice").sessions == 1
        assert memory.list_sessions() == []
    assert schema.current(program) == schema.HEAD_REVISION
    schema.upgrade(program)  # there is nothing to do, which it may
    with pytest.raises(StorageError, match="belong to role"):
        schema.downgrade(program, revision="0001")


def _task(session: str) -> Any:
    from mirai_memory import Task

    return Task(description="brew", session_id=session)


def test_a_role_without_grants_is_told_where_they_stand(empty_postgres_url: str, as_role: Callable[[str], str]) -> None:
    schema.upgrade(empty_postgres_url)
    program = as_role("program")
    with pytest.raises(StorageError, match="GRANT"):
        MemoryManager(program)


def test_names_are_quoted(empty_postgres_url: str) -> None:
    with connected(empty_postgres_url, autocommit=True) as connection:
        name = 'ro"le; --'
        assert sql.Identifier(name).as_string(connection) == migrating.quoted(name)
