"""A restore takes what is whole and ours, keeps what it replaces, and brings nobody back who was forgotten."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from backup_files import change, fill, unfinished, unsealed
from disk import FULL, Disk, installed
from work import faults, rows

from mirai_memory import (
    Busy,
    Corrupt,
    ForeignDatabase,
    Knowledge,
    MemoryManager,
    Message,
    NotFound,
    SchemaTooNew,
    StorageError,
    StorageFull,
    erasures,
    schema,
)
from mirai_memory.backups import seal
from mirai_memory.testing.clock import FrozenClock

GUARD = 120


@pytest.fixture
def target(tmp_path: Path, sqlite_template: Path) -> Path:
    """A closed database with other rows, to be replaced."""
    (tmp_path / "target").mkdir()
    path = Path(shutil.copy(sqlite_template, tmp_path / "target" / "memory.db"))
    with MemoryManager(path) as other:
        other.create_session("carol", session_id="before")
    return path


def _lives(path: Path) -> None:
    """A database like any other: whole, found in, written."""
    assert faults(path) == []
    with MemoryManager(path) as opened:
        assert len(opened.search_messages("walrus", user_id="alice", limit=100)) == 60
        opened.add_message(Message(session_id="talk of alice", role="user", content="one more walrus"))
        assert opened.health().ok
    assert faults(path) == []


# --- what is brought back ---------------------------------------------------------------------------------------------


def test_a_backup_comes_back_with_every_row(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    new = tmp_path / "new folder" / "memory.db"
    done = memory.restore_backup(backup, new)
    assert (done.path, done.backup, done.sealed, done.kept) == (new, backup, True, None)
    assert (done.revision, done.upgraded_from, done.erased) == ("0003", None, 0)
    assert done.rows["messages"] == 60
    assert done.made_at == FrozenClock()()
    assert rows(new) == rows(Path(memory.url))
    assert [path.name for path in new.parent.iterdir()] == ["memory.db"]
    if os.name == "posix":
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
    _lives(new)


def test_what_it_replaces_is_kept_under_a_dated_name(memory: MemoryManager, backup: Path, target: Path) -> None:
    done = memory.restore_backup(backup, target)
    assert done.kept == target.with_name("memory.db.replaced-20260115T120000Z")
    with MemoryManager(done.kept) as old:
        assert [session.id for session in old.list_sessions()] == ["before"]
    again = memory.restore_backup(backup, target)
    assert again.kept == target.with_name("memory.db.replaced-20260115T120000Z-2")
    assert unfinished(target.parent) == []
    _lives(target)


def test_what_a_crash_left_in_the_log_of_the_old_file_is_kept_with_it(
    memory: MemoryManager, backup: Path, target: Path, tmp_path: Path
) -> None:
    crashed = tmp_path / "crashed" / "memory.db"
    crashed.parent.mkdir()
    with MemoryManager(target) as other:
        other.create_session("carol", session_id="in the log")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{target}{ending}", f"{crashed}{ending}")
    done = memory.restore_backup(backup, crashed)
    assert done.kept is not None
    assert sorted(path.name for path in crashed.parent.glob("*db*") if not path.name.endswith(".lock")) == [
        "memory.db",
        done.kept.name,
    ]
    with MemoryManager(done.kept) as old:
        assert {session.id for session in old.list_sessions()} == {"before", "in the log"}
    _lives(crashed)


@pytest.mark.parametrize(
    "content", [b"", b"no database at all " * 500, b"SQLite format 3\x00" + bytes(range(256)) * 64]
)
def test_a_damaged_file_is_replaced_and_kept_with_all_that_lies_beside_it(
    memory: MemoryManager, backup: Path, tmp_path: Path, content: bytes
) -> None:
    target = tmp_path / "target" / "memory.db"
    target.parent.mkdir()
    target.write_bytes(content)
    for ending in ("-wal", "-journal"):
        Path(f"{target}{ending}").write_bytes(b"log")
    done = memory.restore_backup(backup, target)
    assert done.kept is not None
    assert done.kept.read_bytes() == content
    _lives(target)


def test_a_log_without_its_file_is_not_played_into_the_new_one(
    memory: MemoryManager, backup: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target" / "memory.db"
    with MemoryManager(target) as other:
        fill(other, "carol")
        log = Path(f"{target}-wal").read_bytes()
    target.unlink()
    Path(f"{target}-wal").write_bytes(log)
    memory.restore_backup(backup, target)
    assert rows(target) == rows(Path(memory.url))


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_an_older_schema_is_upgraded(memory: MemoryManager, backup: Path, tmp_path: Path, revision: str) -> None:
    (tmp_path / "old").mkdir()
    old = unsealed(backup, tmp_path / "old" / "memory.db")
    schema.downgrade(old, revision=revision)
    change(old)
    done = memory.restore_backup(old, tmp_path / "new" / "memory.db")
    assert (done.upgraded_from, done.revision, done.sealed, done.made_at) == (revision, "0003", False, None)
    assert schema.current(old) == revision
    with MemoryManager(done.path):
        pass  # the first opening makes the word index
    _lives(done.path)


def test_a_copy_by_other_means_is_checked_all_the_same(memory: MemoryManager, tmp_path: Path) -> None:
    with closing(sqlite3.connect(memory.url)) as source, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        source.backup(copy)
    done = memory.restore_backup(tmp_path / "copy.db", tmp_path / "new.db")
    assert not done.sealed
    assert rows(tmp_path / "new.db") == rows(Path(memory.url))


def test_the_backup_is_left_as_it_was(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    before, there = backup.read_bytes(), set(backup.parent.iterdir())
    backup.chmod(0o400)
    memory.restore_backup(backup, tmp_path / "new" / "memory.db")
    assert backup.read_bytes() == before
    assert set(backup.parent.iterdir()) - there == {tmp_path / "new"}


def test_progress_goes_from_nothing_to_all(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    memory.restore_backup(backup, tmp_path / "new.db", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 100_000


# --- who was forgotten ------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path, clock: FrozenClock) -> Path:
    """A backup with three owners, one of whom has rows of two times."""
    with MemoryManager(tmp_path / "data" / "memory.db", clock=clock) as memory:
        fill(memory, "alice")
        fill(memory, "bob")
        memory.add_message(Message(session_id="talk of bob", role="user", content="a xylophone in zanzibar"))
        clock.advance(hours=2)
        session = memory.create_session("alice", session_id="later").id
        memory.add_message(Message(session_id=session, role="user", content="alice is back"))
        memory.add_knowledge(Knowledge(user_id="alice", key="pet", value="heron"))
        fill(memory, "carol")
        told = memory.get_messages("talk of bob", limit=1)[0]
        memory.add_knowledge(Knowledge(key="shared", value="learned of bob", message_id=told.id))
        return memory.backup(tmp_path / "backup.db").path


START = FrozenClock()()


def _content(path: Path) -> dict[str, list[str]]:
    with MemoryManager(path) as memory:
        return {
            owner: sorted(
                [session.id for session in memory.list_sessions(owner)]
                + [fact.value for fact in memory.get_knowledge(user_id=owner)]
                + [task.description for task in memory.get_tasks(user_id=owner)]
                + ([owner] if memory.get_user_preferences(owner) else [])
            )
            for owner in ("alice", "bob", "carol")
        }


def test_who_was_forgotten_since_stays_forgotten(three: Path, tmp_path: Path) -> None:
    target = tmp_path / "target" / "memory.db"
    target.parent.mkdir()
    erasures.record(target, "alice", START + timedelta(hours=1))
    erasures.record(target, "bob", START + timedelta(hours=3))
    erasures.record(target, "dave", START + timedelta(hours=3))
    with MemoryManager(":memory:", clock=FrozenClock()) as memory:
        done = memory.restore_backup(three, target)
    assert done.erased == 2
    assert done.rows["sessions"] == 2
    assert _content(target) == {
        "alice": ["heron", "later", "learned of bob"],  # what she had after the erasure, and what all share
        "bob": ["learned of bob"],
        "carol": sorted(["talk of carol", "Riga", "likes tea", "learned of bob", "buy tea", "carol"]),
    }
    assert faults(target) == []


def test_no_byte_of_the_forgotten_is_in_the_file(three: Path, tmp_path: Path) -> None:
    target = tmp_path / "target" / "memory.db"
    target.parent.mkdir()
    assert b"talk of bob" in three.read_bytes()
    erasures.record(target, "bob", START + timedelta(hours=3))
    with MemoryManager(":memory:", clock=FrozenClock()) as memory:
        memory.restore_backup(three, target)
    content = target.read_bytes()
    for word in (b"bob met", b"talk of bob", b"xylophon", b"zanzibar"):
        assert word not in content, word
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,), "their place is given back"
    assert b"learned of bob" in content
    assert b"talk of carol" in content


def test_the_erasures_of_the_memory_that_is_asked_count_too(three: Path, tmp_path: Path) -> None:
    own = tmp_path / "data" / "memory.db"
    erasures.record(own, "bob", START + timedelta(hours=3))
    with MemoryManager(own) as memory:
        assert memory.restore_backup(three, tmp_path / "elsewhere.db").erased == 1
        assert memory.drill_backup(three).erased == 1


def test_erasures_that_cannot_be_read_stop_a_restore(three: Path, target: Path) -> None:
    erasures.erasures_path(target).write_text("garbage\n")
    before = rows(target)
    with MemoryManager(":memory:") as memory, pytest.raises(StorageError, match="is no erasure"):
        memory.restore_backup(three, target)
    assert rows(target) == before


# --- a target that is in use ------------------------------------------------------------------------------------------


def test_a_memory_that_is_open_here_is_not_replaced(memory: MemoryManager, backup: Path, target: Path) -> None:
    with pytest.raises(Busy, match="open in this process"):
        memory.restore_backup(backup, memory.url)
    with MemoryManager(target) as other, pytest.raises(Busy, match="open in this process"):
        memory.restore_backup(backup, other.url)
    memory.restore_backup(backup, target)


HOLDER = """
import sys
from mirai_memory import MemoryManager
with MemoryManager(sys.argv[1]) as memory:
    memory.get_stats()
    print("open", flush=True)
    sys.stdin.readline()
    memory.create_session("dave", session_id="meanwhile")
"""


def test_nor_is_one_that_another_program_has_open(memory: MemoryManager, backup: Path, target: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        guard = threading.Timer(GUARD, other.kill)
        guard.start()
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(Busy, match="open in another program"):
                memory.restore_backup(backup, target)
            other.communicate("go on\n")
        finally:
            guard.cancel()
            other.kill()
        assert other.returncode == 0
    with MemoryManager(target) as old:
        assert {session.id for session in old.list_sessions()} == {"before", "meanwhile"}
    assert memory.restore_backup(backup, target).kept is not None


# --- what is refused: the target stays as it was ----------------------------------------------------------------------


def _refused(memory: MemoryManager, backup: Path, target: Path, error: type[Exception], said: str) -> None:
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    with pytest.raises(error, match=said):
        memory.restore_backup(backup, target)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


def test_a_byte_turned_over_anywhere_is_noticed(memory: MemoryManager, backup: Path, target: Path) -> None:
    content = backup.read_bytes()
    bad = backup.with_name("bad.db")
    places = [*range(0, len(content), 1_511), *range(len(content) - 250, len(content), 9)]
    for at in places:
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        bad.write_bytes(damaged)
        _refused(memory, bad, target, Corrupt, "is damaged")
    assert len(places) > 100


def test_a_backup_that_was_cut_off_is_noticed(memory: MemoryManager, backup: Path, target: Path) -> None:
    content = backup.read_bytes()
    bad = backup.with_name("bad.db")
    pages = len(content) // 4096
    for length in (0, 1, 99, 512, 4096, 5000, *range(8192, pages * 4096, 40_960), pages * 4096 + 1, len(content) - 1):
        bad.write_bytes(content[:length])
        _refused(memory, bad, target, Corrupt, "is damaged")


def test_a_whole_page_that_is_damaged_is_noticed_without_a_seal(
    memory: MemoryManager, backup: Path, target: Path
) -> None:
    bad = unsealed(backup, backup.with_name("bad.db"))
    content = bad.read_bytes()
    noticed = 0
    for page in range(len(content) // 4096):
        damaged = bytearray(content)
        damaged[page * 4096 : page * 4096 + 4096] = bytes(4096)
        bad.write_bytes(damaged)
        try:
            memory.restore_backup(bad, target.with_name("new.db"))
        except (Corrupt, ForeignDatabase):
            noticed += 1
        assert unfinished(target.parent) == []
    # A page that nothing points to, or that holds only what is made anew, is no loss.
    assert noticed > 0.8 * len(content) // 4096


def _altered(*statements: str) -> Callable[[Path], None]:
    return lambda path: change(path, "PRAGMA foreign_keys=OFF", *statements)


def _schema(where: str, old: str, new: str) -> Callable[[Path], None]:
    update = f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE {where}"
    return _altered("PRAGMA writable_schema=ON", update)


HOSTILE: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "a trigger": (
        _altered("CREATE TRIGGER steal AFTER INSERT ON messages BEGIN DELETE FROM tasks; END"),
        ForeignDatabase,
        "trigger 'steal'",
    ),
    "a view": (_altered("CREATE VIEW extra AS SELECT 1 AS a"), ForeignDatabase, "view 'extra'"),
    "a view in a table's place": (
        _altered("ALTER TABLE tasks RENAME TO tasks_", "CREATE VIEW tasks AS SELECT * FROM tasks_"),
        ForeignDatabase,
        "view 'tasks'",
    ),
    "a table": (_altered("CREATE TABLE extra (a)"), ForeignDatabase, "'extra' is nothing of a memory's"),
    "an index": (_altered("CREATE INDEX extra ON tasks (result)"), ForeignDatabase, "'extra'"),
    "an index on an expression": (
        _altered("DROP INDEX ix_sessions__last_active", "CREATE INDEX ix_sessions__last_active ON sessions (abs(1))"),
        ForeignDatabase,
        "altered",
    ),
    "a virtual table": (_altered("CREATE VIRTUAL TABLE extra USING fts5(a)"), ForeignDatabase, "'extra'"),
    "a missing table": (_altered("DROP TABLE word_places"), ForeignDatabase, "altered"),
    "a column more": (_altered("ALTER TABLE tasks ADD COLUMN extra"), ForeignDatabase, "altered"),
    "a computed column": (
        _altered("ALTER TABLE tasks ADD COLUMN extra AS (abs(id))"),
        ForeignDatabase,
        "altered",
    ),
    "another rule": (_schema("name = 'tasks'", "pending", "PENDING_"), ForeignDatabase, "altered"),
    "another collation": (
        _schema("name = 'user_preferences'", "user_id TEXT NOT NULL", "user_id TEXT COLLATE NOCASE NOT NULL"),
        ForeignDatabase,
        "altered",
    ),
    "another tokenizer": (_schema("name = 'word_messages'", "ascii", "porter ascii"), ForeignDatabase, "altered"),
    "a schema that cannot be parsed": (_schema("name = 'tasks'", "CREATE TABLE", "CREATE"), Corrupt, "is damaged"),
    "a newer one": (
        _altered("UPDATE mirai_memory_version SET version_num = '9999'"),
        SchemaTooNew,
        "upgrade mirai-memory",
    ),
    "no version": (_altered("DELETE FROM mirai_memory_version"), ForeignDatabase, "holds no memory"),
    "references to nothing": (_altered("DELETE FROM sessions"), Corrupt, "from messages to sessions"),
    "an index that lacks rows": (
        _altered("DELETE FROM word_messages_content WHERE id = 5"),
        Corrupt,
        "1 of messages are not in the word index",
    ),
    "an index of too many rows": (
        _altered("DELETE FROM messages WHERE id = 5"),
        Corrupt,
        "1 of messages are gone",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_s_file_is_refused(memory: MemoryManager, backup: Path, target: Path, name: str) -> None:
    """Sealed or not: whoever can alter a file can seal it."""
    alter, error, said = HOSTILE[name]
    bad = unsealed(backup, backup.with_name("bad.db"))
    alter(bad)
    _refused(memory, bad, target, error, said)
    _seal(bad)
    _refused(memory, bad, target, error, said)


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        pages = seal.read_pages(file.fileno(), path.stat().st_size)
        seal.put(file.fileno(), seal.Seal.of(pages, START, "0003"))


def test_another_s_database_is_refused(memory: MemoryManager, target: Path, tmp_path: Path) -> None:
    change(tmp_path / "foreign.db", "CREATE TABLE notes (a)", "INSERT INTO notes VALUES ('x')")
    _refused(memory, tmp_path / "foreign.db", target, ForeignDatabase, "belongs to something else")
    (tmp_path / "text.db").write_bytes(b"no database at all, but words. " * 512)
    _refused(memory, tmp_path / "text.db", target, Corrupt, "is damaged")


def test_another_s_database_is_not_replaced(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    target = tmp_path / "target" / "notes.db"
    target.parent.mkdir()
    change(target, "CREATE TABLE notes (a)")
    _refused(memory, backup, target, ForeignDatabase, "belongs to something else")


def test_forged_pages_of_the_word_index_are_made_anew(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    bad = unsealed(backup, tmp_path / "bad.db")
    change(bad, "UPDATE word_messages_data SET block = randomblob(length(block)) WHERE id > 10")
    memory.restore_backup(bad, tmp_path / "new.db")
    _lives(tmp_path / "new.db")


def test_links_are_not_followed(memory: MemoryManager, backup: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(backup)
    _refused(memory, tmp_path / "link.db", target, StorageError, "is a link")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "memory.db").symlink_to(target)
    before = target.read_bytes()
    with pytest.raises(StorageError, match="is a link"):
        memory.restore_backup(backup, tmp_path / "linked" / "memory.db")
    assert target.read_bytes() == before


def test_what_is_no_file(memory: MemoryManager, backup: Path, target: Path, tmp_path: Path) -> None:
    _refused(memory, tmp_path / "missing.db", target, NotFound, r"missing\.db' does not exist")
    _refused(memory, tmp_path, target, StorageError, "no regular file")
    _refused(memory, target, target, StorageError, "is the target itself")
    with pytest.raises(StorageError, match="no regular file"):
        memory.restore_backup(backup, tmp_path)


def test_a_database_in_use_is_no_backup(memory: MemoryManager, target: Path, tmp_path: Path) -> None:
    _refused(memory, Path(memory.url), target, StorageError, "open in this process")
    copy = tmp_path / "copy.db"
    for ending in ("", "-wal"):
        shutil.copyfile(f"{memory.url}{ending}", f"{copy}{ending}")
    _refused(memory, copy, target, StorageError, r"copy\.db-wal stands beside it")


def test_a_full_disk_leaves_the_target_as_it_was(memory: MemoryManager, backup: Path, target: Path) -> None:
    erasures.record(target, "alice", START + timedelta(hours=1))
    outcomes = []
    with installed(Disk()) as disk:
        for at in range(1, 2_000, 37):
            disk.break_at(at, FULL, "write")
            before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
            try:
                memory.restore_backup(backup, target)
            except StorageFull:
                outcomes.append(StorageFull)
                assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before
            else:
                break
    assert len(outcomes) > 2
    assert faults(target) == []


def test_a_disk_that_is_full_while_the_backup_is_copied(
    memory: MemoryManager, backup: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StorageFull, match="no space is left"):
            memory.restore_backup(backup, target)
    assert unfinished(target.parent) == []
    memory.restore_backup(backup, target)


KILLED = """
import os, signal, sys
from mirai_memory import MemoryManager
backup, target, at = sys.argv[1:]
def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
if at == "replay":
    sys.modules["mirai_memory.backups.restore"].replay = die
else:
    setattr(os, at, die)
with MemoryManager(":memory:") as memory:
    memory.restore_backup(backup, target)
"""


MOMENTS = ["link", "replace", *(pytest.param(at, marks=pytest.mark.long) for at in ("fsync", "replay"))]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("at", MOMENTS)
def test_a_kill_leaves_the_old_file_or_the_new_one(memory: MemoryManager, backup: Path, target: Path, at: str) -> None:
    before = rows(target)
    done = subprocess.run([sys.executable, "-c", KILLED, str(backup), str(target), at], check=False, timeout=GUARD)
    assert done.returncode == -9
    assert rows(target) == before
    memory.restore_backup(backup, target)
    _lives(target)


# --- drills -----------------------------------------------------------------------------------------------------------


def test_a_drill_restores_searches_and_leaves_nothing(memory: MemoryManager, backup: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in backup.parent.rglob("*.db")}
    drill = memory.drill_backup(backup)
    assert drill.ok
    assert (drill.asked, drill.found) == (7, 7)  # five messages, and the two facts that are current
    assert drill.rows["messages"] == 60
    assert {path: path.stat().st_mtime_ns for path in backup.parent.rglob("*.db")} == before
    assert unfinished(Path(memory.url).parent) == []
    assert "walrus" not in str(drill.to_dict())


def test_a_drill_takes_the_newest_backup(memory: MemoryManager, clock: FrozenClock) -> None:
    with pytest.raises(NotFound):
        memory.drill_backup()
    memory.backup()
    clock.advance(hours=1)
    newest = memory.backup().path
    assert memory.drill_backup().backup == newest


def test_a_drill_notices_what_is_not_found(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    bad = unsealed(backup, tmp_path / "bad.db")
    change(bad, "UPDATE word_messages_content SET c0 = ' @1 ' ")
    drill = memory.drill_backup(bad)
    assert not drill.ok
    assert (drill.asked, drill.found) == (7, 2)


def test_a_drill_of_a_damaged_backup_is_an_error(memory: MemoryManager, backup: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(backup.read_bytes()[:-9_000])
    with pytest.raises(Corrupt):
        memory.drill_backup(bad)
    assert unfinished(tmp_path / "data") == []


def test_a_drill_with_texts_that_have_no_words(tmp_path: Path) -> None:
    with MemoryManager(tmp_path / "memory.db", clock=FrozenClock()) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=text) for text in ("!!!", "to be", "🙂")])
        drill = memory.drill_backup(memory.backup().path)
    assert (drill.ok, drill.asked) == (True, 0)
