"""A look at SQLite files in every state: what is wrong is told, and nothing about them is changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, Task, schema
from mirai_memory.health import Check

Look = Callable[..., dict[str, Check]]

SECRET = "walruses bathe on Tuesdays"
ALL_WELL = {"database", "schema", "writing", "integrity", "word_index", "vectors", "contents", "disk", "permissions"}


@pytest.fixture
def filled(sqlite_url: str) -> Path:
    """A database of some pages, closed."""
    _fill(sqlite_url)
    return Path(sqlite_url)


SERVERS = {"connections", "clock", "tables"}  # what is looked at on a server only


def _fill(path: str | Path) -> None:
    with MemoryManager(path) as memory:
        session = memory.create_session("alice")
        texts = [f"{SECRET}, number {number} " * 20 for number in range(200)]
        memory.add_messages([Message(session_id=session.id, role="user", content=text) for text in texts])
        memory.add_knowledge(Knowledge(value=SECRET, key="bath"))
        memory.add_task(_task(session.id))


def _task(session_id: str) -> Task:
    return Task(session_id=session_id, description="dry the walrus")


@contextmanager
def _raw(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield connection


def _files(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it; of SQLite's own index of a WAL, in which connections leave marks, the name."""
    return {
        str(path): b"" if path.name.endswith("-shm") else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _errors(checks: dict[str, Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks.values() if check.status == "error"}


def _skipped(checks: dict[str, Check]) -> set[str]:
    return {check.name for check in checks.values() if check.status == "skipped"}


# --- well -------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_well_is_left_as_it_was(look: Look, filled: Path, tmp_path: Path) -> None:
    before, touched = _files(tmp_path), filled.stat().st_mtime_ns
    checks = look(filled)
    assert {name for name in ALL_WELL if checks[name].status == "ok"} == ALL_WELL
    assert checks["contents"].detail == "1 session, 200 messages, 1 fact, 1 task"
    assert checks["word_index"].detail == "201 texts in it"
    assert str(filled) in checks["database"].detail
    assert all(check.advice is None for check in checks.values() if check.status == "ok")
    assert _files(tmp_path) == before
    assert filled.stat().st_mtime_ns == touched


def test_it_sees_what_an_open_memory_has_just_written(look: Look, sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        memory.create_session("alice")
        assert look(sqlite_url)["contents"].detail.startswith("1 session,")
        memory.create_session("alice")
        assert look(manager=memory)["contents"].detail.startswith("2 sessions,")
        assert memory.get_stats()["total_sessions"] == 2


def test_what_a_crash_has_left_in_the_wal_is_read_and_left(look: Look, filled: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed" / "memory.db"
    crashed.parent.mkdir()
    with MemoryManager(filled) as memory:
        memory.create_session("bob")
        for end in ("", "-wal"):
            shutil.copyfile(f"{filled}{end}", f"{crashed}{end}")
    before = _files(crashed.parent)
    checks = look(crashed)
    assert checks["contents"].detail.startswith("2 sessions,")
    assert checks["writing"].status == "ok"
    after = _files(crashed.parent)
    after.pop(f"{crashed}-shm")  # without it, a WAL cannot be read
    assert after == before


def test_no_text_of_anybody_is_in_what_it_says(look: Look, filled: Path) -> None:
    with _raw(filled) as connection:
        connection.execute("DELETE FROM sessions")
        connection.execute("DELETE FROM word_messages WHERE rowid = 7")
    checks = look(filled)
    assert {"integrity", "word_index"} <= set(_errors(checks))
    assert not [check for check in checks.values() if "walrus" in str(check).lower()]


# --- not there, or no memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing.db", "no folder/missing.db"])
def test_a_missing_file_stays_missing(look: Look, tmp_path: Path, name: str) -> None:
    checks = look(name)
    assert list(tmp_path.iterdir()) == []
    assert _errors(checks) == {"database": f"{tmp_path / name} does not exist"}
    assert "mirai-memory db upgrade --db" in str(checks["database"].advice)
    needs_one = {"schema", "writing", "integrity", "word_index", "vectors", "contents", "permissions"}
    assert needs_one | SERVERS == _skipped(checks)
    assert checks["disk"].status == "ok"


def test_the_missing_default_is_named_without_an_option(look: Look, tmp_path: Path) -> None:
    advice = str(look()["database"].advice)
    assert "mirai-memory db upgrade" in advice
    assert "--db" not in advice
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_stays_empty(look: Look, tmp_path: Path) -> None:
    Path("empty.db").touch()
    checks = look("empty.db")
    assert _errors(checks) == {"schema": "there are no tables in it yet"}
    assert "backup" in str(checks["schema"].advice)
    assert "db upgrade" in str(checks["schema"].advice)
    assert _files(tmp_path) == {str(tmp_path / "empty.db"): b""}


def test_a_file_of_text_is_no_database(look: Look, tmp_path: Path) -> None:
    Path("text.db").write_text("no database at all\n" * 1000)
    before = _files(tmp_path)
    checks = look("text.db")
    assert list(_errors(checks)) == ["database"]
    assert "no SQLite database" in checks["database"].detail
    assert "restore a backup" in str(checks["database"].advice)
    assert _files(tmp_path) == before


@pytest.mark.parametrize(("kind", "words"), [("folder", "is a folder"), ("pipe", "is no regular file")])
def test_what_is_no_file_is_not_opened(look: Look, kind: str, words: str) -> None:
    if kind == "folder":
        Path("odd.db").mkdir()
    elif os.name == "posix":
        os.mkfifo("odd.db")
    else:
        pytest.skip("needs POSIX")
    checks = look("odd.db")
    assert list(_errors(checks)) == ["database"]
    assert words in checks["database"].detail
    assert list(Path("odd.db").parent.iterdir()) == [Path("odd.db")]


def test_a_stranger_s_database_is_left_alone(look: Look, tmp_path: Path) -> None:
    with _raw(Path("theirs.db")) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    before = _files(tmp_path)
    checks = look("theirs.db")
    assert list(_errors(checks)) == ["schema"]
    assert "belongs to something else" in checks["schema"].detail
    assert {"writing", "integrity", "word_index", "vectors", "contents"} <= _skipped(checks)
    assert _files(tmp_path) == before


def test_a_stranger_s_unfinished_write_is_not_taken_back(look: Look, tmp_path: Path) -> None:
    code = (
        "import os, sqlite3; c = sqlite3.connect('theirs.db', isolation_level=None);"
        "c.execute('CREATE TABLE t (x)'); c.execute('PRAGMA cache_size=5'); c.execute('BEGIN');"
        "[c.execute('INSERT INTO t VALUES (randomblob(500))') for _ in range(2000)]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    before = _files(tmp_path)
    assert len(before) == 2
    checks = look("theirs.db")
    assert "middle of a write" in _errors(checks)["database"]
    assert _files(tmp_path) == before


# --- damaged ----------------------------------------------------------------------------------------------------------


def test_damaged_pages_are_found(look: Look, filled: Path, tmp_path: Path) -> None:
    size = filled.stat().st_size
    with filled.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096 * 8)
    before = _files(tmp_path)
    checks = look(filled)
    assert "integrity" in _errors(checks)
    assert "restore a backup" in str(checks["integrity"].advice)
    assert checks["database"].status == "ok"
    assert _files(tmp_path) == before


def test_a_damaged_beginning_is_found(look: Look, filled: Path) -> None:
    with filled.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3996)
    assert set(_errors(look(filled))) == {"database"}


def test_a_rule_of_the_tables_that_is_broken_is_found(look: Look, filled: Path) -> None:
    statement = "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') WHERE name = 'messages'"
    with _raw(filled) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(statement.format("content TEXT NOT NULL", "content TEXT"))
        connection.execute("PRAGMA writable_schema=RESET")
        connection.execute("UPDATE messages SET content = NULL WHERE id IN (3, 5)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(statement.format("content TEXT", "content TEXT NOT NULL"))
    integrity = look(filled)["integrity"]
    assert integrity.status == "error"
    assert integrity.detail == "2 faults in the file, the first: NULL value in messages.content"
    assert "restore a backup" in str(integrity.advice)


def test_references_without_their_row_are_found(look: Look, filled: Path) -> None:
    with _raw(filled) as connection:
        connection.execute("DELETE FROM sessions")
    integrity = look(filled)["integrity"]
    assert integrity.status == "error"
    assert "messages to sessions" in integrity.detail


# --- of another version -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["0001", "base"])
def test_an_older_file_is_not_upgraded(look: Look, filled: Path, revision: str) -> None:
    schema.downgrade(filled, revision=revision)
    checks = look(filled)
    assert schema.current(filled) == (None if revision == "base" else revision)
    assert checks["schema"].status == ("error" if revision == "base" else "warning")
    assert "db upgrade" in str(checks["schema"].advice)
    assert {"word_index", "vectors", "contents"} <= _skipped(checks)
    if revision == "0001":
        assert _errors(checks) == {}
        assert "revision 0001" in checks["schema"].detail
        assert checks["integrity"].status == "ok"


def test_a_newer_file_is_left_to_the_newer_version(look: Look, filled: Path, tmp_path: Path) -> None:
    with _raw(filled) as connection:
        connection.execute("UPDATE mirai_memory_version SET version_num = '9999'")
    before = _files(tmp_path)
    checks = look(filled)
    assert list(_errors(checks)) == ["schema"]
    assert "9999" in checks["schema"].detail
    assert "upgrade mirai-memory" in str(checks["schema"].advice)
    assert _files(tmp_path) == before


# --- locked, read-only ------------------------------------------------------------------------------------------------


def test_a_hanging_writer_is_noticed(look: Look, filled: Path) -> None:
    with _raw(filled) as other:
        other.execute("BEGIN EXCLUSIVE")
        checks = look(filled, memory={"busy_timeout_ms": 50})
    assert _errors(checks) == {}
    assert checks["writing"].status == "warning"
    assert "0.05 s" in checks["writing"].detail
    assert checks["contents"].status == "ok"
    assert look(filled)["writing"].status == "ok"


def test_a_file_that_is_locked_for_readers_too_is_told_as_locked(look: Look, filled: Path) -> None:
    with _raw(filled) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        checks = look(filled, memory={"busy_timeout_ms": 50})
    assert list(_errors(checks)) == ["database"]
    assert "locked by another connection" in checks["database"].detail


def test_a_folder_that_may_not_be_written(look: Look, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The modes of a file are no obstacle to root; what the system says of them is.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK or Path(path) not in (filled.parent,))
    checks = look(filled)
    assert checks["writing"].status == "warning"
    assert "read_only=True" in str(checks["writing"].advice)
    assert checks["integrity"].status == "ok"


UNPRIVILEGED = """
import os, sys
from mirai_memory.health import check_health
check_health(url=sys.argv[1])  # all that is imported on the way is, before the rights to do so are gone
if os.geteuid() == 0:
    os.setuid(65534)
check = {check.name: check for check in check_health(url=sys.argv[1]).checks}["database"]
print(check.status, check.detail, check.advice, sep="|")
"""


def test_a_folder_that_really_may_not_be_written() -> None:
    if os.name != "posix":
        pytest.skip("needs POSIX")
    with tempfile.TemporaryDirectory() as name:  # the folder of the test is closed to other users
        file = Path(name) / "memory.db"
        _fill(file)
        (file.parent / "memory.db.lock").unlink()
        file.chmod(0o644)
        file.parent.chmod(0o555)
        before = _files(file.parent)
        command = [sys.executable, "-c", UNPRIVILEGED, str(file)]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, timeout=60)
        assert _files(file.parent) == before
        file.parent.chmod(0o755)
    status, detail, advice = done.stdout.strip().split("|")
    assert (status, done.stderr) == ("error", "")
    assert "in a folder that may not be written" in detail
    assert advice == "allow writing to the folder, or copy the file to another one"


def test_an_older_file_that_cannot_be_upgraded_is_an_error(
    look: Look, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.downgrade(filled, revision="0001")
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    assert look(filled)["schema"].status == "error"


# --- through an open memory -------------------------------------------------------------------------------------------


def test_a_memory_opened_read_only(look: Look, filled: Path) -> None:
    with MemoryManager(filled, read_only=True) as memory:
        checks = look(manager=memory)
    assert _errors(checks) == {}
    assert "writing" in _skipped(checks)


def test_a_memory_in_memory(look: Look, tmp_path: Path) -> None:
    with MemoryManager(":memory:") as memory:
        memory.create_session("alice")
        checks = look(manager=memory)
        assert memory.get_stats()["total_sessions"] == 1
    assert _errors(checks) == {}
    assert checks["contents"].detail.startswith("1 session,")
    assert checks["integrity"].status == checks["word_index"].status == checks["engine"].status == "ok"
    assert _skipped(checks) == {"disk", "permissions", "backups"} | SERVERS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", [":memory:", "memory.db"])
def test_a_closed_memory_says_so(look: Look, url: str) -> None:
    memory = MemoryManager(url)
    memory.close()
    checks = look(manager=memory)
    assert "closed" in _errors(checks)["database"]


def test_in_memory_without_a_memory_there_is_nothing_to_look_at(look: Look) -> None:
    assert {"database", "schema", "contents", "disk"} <= _skipped(look(":memory:"))


def test_a_memory_that_is_switched_off_keeps_nothing_and_is_told_so(look: Look, tmp_path: Path) -> None:
    checks = look("memory.db", memory={"enabled": False})
    assert checks["settings"].status == "warning"
    assert "nothing is kept" in checks["settings"].detail
    assert {"database", "engine", "schema", "disk"} <= _skipped(checks)
    assert _errors(checks) == {}
    assert list(tmp_path.iterdir()) == []
