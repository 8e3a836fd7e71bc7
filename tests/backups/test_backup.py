"""A backup under load is whole, checked before it has its name, private, and takes no name that is not its own."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from backup_files import change, fill, unfinished
from disk import FULL, WRITE_FAILED, Disk, installed
from rights import bound_by_modes
from work import faults, rows

from mirai_memory import (
    Conflict,
    Corrupt,
    ForeignDatabase,
    InvalidInput,
    MemoryManager,
    Message,
    StorageError,
    StorageFull,
    _files,
)
from mirai_memory.backups import copy

GUARD = 120


# --- whole, and private -----------------------------------------------------------------------------------------------


def test_a_backup_holds_every_row(memory: MemoryManager, tmp_path: Path) -> None:
    made = memory.backup(tmp_path / "backup.db")
    assert made.path == tmp_path / "backup.db"
    assert rows(made.path) == rows(Path(memory.url))
    assert faults(made.path) == []
    assert made.revision == "0003"
    assert (made.rows["messages"], made.rows["knowledge"], made.rows["tasks"]) == (60, 3, 1)
    assert made.size == made.path.stat().st_size
    assert made.to_dict()["path"] == str(made.path)
    assert made.to_dict()["made_at"] == "2026-01-15T12:00:00+00:00"


def test_it_is_one_file_that_opens_as_a_database(memory: MemoryManager, backup: Path) -> None:
    assert sorted(path.name for path in backup.parent.iterdir()) == ["backup.db", "data"]
    with closing(sqlite3.connect(f"file:{backup}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (60,)
    with MemoryManager(backup) as opened:
        assert opened.search_messages("walrus", user_id="alice")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_only_its_owner_may_read_it(memory: MemoryManager, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = memory.backup()
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700


def test_file_and_folder_are_synced_before_the_name_counts(
    memory: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file whole, with its seal, before its name is given; then the folder."""
    done: list[str] = []
    sync, link = os.fsync, os.link

    def synced(fd: int) -> None:
        found = os.fstat(fd)
        done.append("folder" if stat.S_ISDIR(found.st_mode) else f"file of {found.st_size}")
        sync(fd)

    def linked(*arguments: Any, **more: Any) -> None:
        done.append("named")
        link(*arguments, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    made = memory.backup(tmp_path / "backup.db")
    assert done[-3:] == [f"file of {made.size}", "named", "folder"]


def test_without_a_path_it_gets_a_dated_name_in_the_folder_of_backups(memory: MemoryManager, tmp_path: Path) -> None:
    made = memory.backup()
    assert made.path.parent == tmp_path / "data" / "backups"
    assert made.path.name.startswith("memory-20260115T120000000Z-manual-")
    (tmp_path / "usb").mkdir()
    there = memory.backup(tmp_path / "usb")
    assert (there.path.parent, there.path.name) == (tmp_path / "usb", made.path.name)


def test_a_memory_in_memory_has_backups_too(tmp_path: Path) -> None:
    with MemoryManager(":memory:") as memory:
        fill(memory)
        made = memory.backup(tmp_path / "backup.db")
        with pytest.raises(InvalidInput, match="path"):
            memory.backup()
    with MemoryManager(made.path) as opened:
        assert opened.get_stats()["total_messages"] == 60


def test_one_that_is_open_to_be_read_only_too(memory: MemoryManager, tmp_path: Path) -> None:
    with MemoryManager(memory.url, read_only=True) as reader:
        made = reader.backup(tmp_path / "backup.db")
    assert rows(made.path) == rows(Path(memory.url))


@pytest.mark.usefixtures("small_steps")
def test_progress_goes_from_nothing_to_all(memory: MemoryManager, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    memory.backup(tmp_path / "backup.db", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1] > 100_000


class _Stop(Exception):
    pass


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_what_progress_raises_ends_the_work_and_nothing_is_left(
    memory: MemoryManager, tmp_path: Path, part: float
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= part * total:
            raise _Stop

    with pytest.raises(_Stop):
        memory.backup(tmp_path / "there" / "backup.db", progress=stop)
    assert list((tmp_path / "there").iterdir()) == []
    memory.backup(tmp_path / "there" / "backup.db")


def test_postgresql_is_told_of_its_own_tools(postgres_url: str, tmp_path: Path) -> None:
    with MemoryManager(postgres_url) as memory:
        for call in (memory.backup, memory.drill_backup, lambda: memory.restore_backup("a.db", "b.db")):
            with pytest.raises(InvalidInput, match=r"pg_dump.*pg_restore"):
                call()
    assert list(tmp_path.iterdir()) == []


# --- under load -------------------------------------------------------------------------------------------------------


def _check_moment(path: Path, session: str) -> int:
    """The copy shows one moment: every writer's messages up to some number, none missing; how many there are."""
    assert faults(path) == []
    with MemoryManager(path) as memory:
        found = memory.get_messages(session, limit=100_000)
    assert [message.position for message in found] == list(range(1, len(found) + 1))
    spoken: dict[str, list[int]] = {}
    for message in found:
        if message.content.startswith("writer"):
            name, number = message.content.split()[:2]
            spoken.setdefault(name, []).append(int(number))
    assert all(numbers == list(range(len(numbers))) for numbers in spoken.values())
    return len(found)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of many steps, although the database is small."""
    monkeypatch.setattr(copy, "_STEP", 4)


@pytest.mark.usefixtures("small_steps")
def test_while_four_threads_write(memory: MemoryManager, tmp_path: Path) -> None:
    session = "talk of alice"
    written = threading.Semaphore(0)
    stop = threading.Event()

    def write(name: int) -> None:
        number = 0
        while not stop.is_set():
            text = f"writer{name} {number} " + "words " * 200
            memory.add_message(Message(session_id=session, role="user", content=text))
            number += 1
            written.release()

    def more(done: int, total: int) -> None:
        for _ in range(4):  # the copy goes on only once others have written
            assert written.acquire(timeout=GUARD)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    try:
        counts = []
        for number in range(3):
            made = memory.backup(tmp_path / f"{number}.db", progress=more)
            counts.append(made.rows["messages"])
    finally:
        stop.set()
        for thread in threads:
            thread.join(GUARD)
    assert counts == sorted(set(counts))
    assert [_check_moment(tmp_path / f"{number}.db", session) for number in range(3)] == counts


WRITER = """
import sys
from mirai_memory import MemoryManager, Message
path, session, name = sys.argv[1:]
with MemoryManager(path) as memory:
    number = 0
    while True:
        text = f"writer{name} {number} " + "words " * 200
        memory.add_message(Message(session_id=session, role="user", content=text))
        print(number, flush=True)
        number += 1
"""


@pytest.mark.long
@pytest.mark.usefixtures("small_steps")
def test_while_four_processes_write(memory: MemoryManager, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, memory.url, "talk of alice"]
    writers = [subprocess.Popen([*command, str(name)], stdout=subprocess.PIPE) for name in range(4)]
    guard = threading.Timer(GUARD, lambda: [writer.kill() for writer in writers])
    guard.start()
    try:
        counts = []
        for number in range(3):
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline(), "a writer has died"
            counts.append(memory.backup(tmp_path / f"{number}.db").rows["messages"])
    finally:
        guard.cancel()
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert counts[0] >= 64
    assert counts == sorted(set(counts))
    assert [_check_moment(tmp_path / f"{number}.db", "talk of alice") for number in range(3)] == counts


@pytest.mark.usefixtures("small_steps")
def test_other_writers_are_not_kept_waiting(memory: MemoryManager, tmp_path: Path) -> None:
    """A write in the midst of the copy, by another connection, in the thread that copies: it would wait for itself."""
    with MemoryManager(memory.url) as other:
        written = []

        def write(done: int, total: int) -> None:
            written.append(other.add_message(Message(session_id="talk of alice", role="user", content="meanwhile")))

        made = memory.backup(tmp_path / "backup.db", progress=write)
    assert len(written) > 10
    assert made.rows["messages"] == 60


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_old_file_is_kept_unless_overwriting_is_asked_for(memory: MemoryManager, backup: Path) -> None:
    before = backup.read_bytes()
    memory.create_session("bob")
    with pytest.raises(Conflict, match="overwrite"):
        memory.backup(backup)
    assert backup.read_bytes() == before
    assert memory.backup(backup, overwrite=True).rows["sessions"] == 2
    assert rows(backup) == rows(Path(memory.url))


def test_a_file_that_comes_meanwhile_is_kept_too(memory: MemoryManager, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    with pytest.raises(Conflict):
        memory.backup(target, progress=lambda done, total: target.write_text("mine"))
    assert target.read_text() == "mine"
    assert unfinished(tmp_path) == []


def test_where_a_file_has_one_name_only_it_is_given_all_the_same(
    memory: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any, **more: Any) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT says it

    monkeypatch.setattr(os, "link", refused)
    made = memory.backup(tmp_path / "backup.db")
    assert rows(made.path) == rows(Path(memory.url))
    with pytest.raises(Conflict):
        memory.backup(tmp_path / "backup.db")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_not_followed(memory: MemoryManager, tmp_path: Path, overwrite: bool, there: bool) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    link = tmp_path / "backup.db"
    link.symlink_to(victim)
    with pytest.raises(StorageError, match="is a link"):
        memory.backup(link, overwrite=overwrite)
    assert link.is_symlink()
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"


@pytest.mark.parametrize("ending", ["", "-wal", "-journal", "-shm"])
def test_the_database_itself_is_no_place_for_a_backup(memory: MemoryManager, ending: str) -> None:
    with pytest.raises(InvalidInput, match="the database itself"):
        memory.backup(memory.url + ending, overwrite=True)
    assert memory.get_stats()["total_messages"] == 60


def test_nor_is_it_by_another_name(memory: MemoryManager, tmp_path: Path) -> None:
    os.link(memory.url, tmp_path / "another.db")
    with pytest.raises(InvalidInput, match="the database itself"):
        memory.backup(tmp_path / "another.db", overwrite=True)


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_a_log_beside_the_name_would_be_played_into_the_backup(
    memory: MemoryManager, tmp_path: Path, ending: str
) -> None:
    (tmp_path / f"backup.db{ending}").write_bytes(b"something")
    with pytest.raises(StorageError, match=f"backup.db{ending} stands there"):
        memory.backup(tmp_path / "backup.db", overwrite=True)


@pytest.mark.parametrize("path", ["", "a\x00b", "\udcff.db", b"bytes.db", 7, "~nobody-of-that-name/b.db"])
def test_what_is_no_path(memory: MemoryManager, path: Any) -> None:
    for call in (
        lambda: memory.backup(path),
        lambda: memory.restore_backup(path, "x.db"),
        lambda: memory.restore_backup("x.db", path),
        lambda: memory.drill_backup(path),
    ):
        with pytest.raises(InvalidInput):
            call()


def test_a_folder_that_cannot_be_made_is_a_storage_error(memory: MemoryManager, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        memory.backup(tmp_path / "file" / "backup.db")


# --- what must not become a backup ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "error", "said"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON tasks BEGIN DELETE FROM messages; END", ForeignDatabase, "trigger 't'"),
        ("CREATE TABLE mine (a)", ForeignDatabase, "'mine'"),
        ("DELETE FROM word_messages WHERE rowid = 7", Corrupt, "1 of messages are not in the word index"),
        ("DELETE FROM messages WHERE id = 7", Corrupt, "1 of messages are gone but still in it"),
        ("UPDATE messages SET session_id = 'nobody' WHERE id = 7", Corrupt, "from messages to sessions"),
    ],
)
def test_what_could_not_be_restored_is_told_when_it_is_backed_up(
    memory: MemoryManager, tmp_path: Path, statement: str, error: type[Exception], said: str
) -> None:
    memory.close()
    change(Path(memory.url), "PRAGMA foreign_keys=OFF", statement)
    with MemoryManager(memory.url) as opened, pytest.raises(error) as raised:
        opened.backup(tmp_path / "backup.db")
    assert said in str(raised.value)
    assert str(tmp_path / "backup.db") in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_damage_on_the_way_is_noticed(memory: MemoryManager, tmp_path: Path) -> None:
    """What SQLite believes to have written is not what the disk gives back."""

    def spoil(done: int, total: int) -> None:
        if done == total // 2:
            [draft] = tmp_path.glob(".mirai-backup-*")
            content = bytearray(draft.read_bytes())
            content[8 * 4096 : 9 * 4096] = bytes(4096)
            draft.write_bytes(content)

    with pytest.raises(Corrupt, match=r"backup\.db is damaged"):
        memory.backup(tmp_path / "backup.db", progress=spoil)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# --- disks that fail, and kill -9 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "error"), [(FULL, StorageFull), (WRITE_FAILED, StorageError)])
def test_a_disk_that_is_full_at_any_moment(
    memory: MemoryManager, tmp_path: Path, code: int, error: type[StorageError]
) -> None:
    outcomes = []
    with installed(Disk()) as disk:
        for at in range(1, 1_000, 9):
            disk.break_at(at, code, "write")
            outcomes.append(_outcome(lambda: memory.backup(tmp_path / "there" / "backup.db")))
            if outcomes[-1] is None:
                break
            assert list((tmp_path / "there").iterdir()) == []
        disk.well()
        memory.create_session("bob")
    assert len(outcomes) > 3
    assert outcomes == [*[error] * (len(outcomes) - 1), None]
    assert faults(tmp_path / "there" / "backup.db") == []


def test_a_disk_that_cannot_sync(memory: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(StorageFull, match="no space is left"):
            memory.backup(tmp_path / "backup.db")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    memory.backup(tmp_path / "backup.db")


def _outcome(call: Callable[[], Any]) -> type[StorageError] | None:
    try:
        call()
    except StorageError as error:
        return type(error)
    return None


KILLED = """
import os, signal, sys
from mirai_memory import MemoryManager
path, target, at = sys.argv[1:]
def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
def step(done, total):
    if at.isdigit() and done >= int(at) / 100 * total:
        die()
if at in ("link", "unlink"):
    setattr(os, at, die)
with MemoryManager(path) as memory:
    memory.backup(target, progress=step)
"""


MOMENTS = ["60", "link", "unlink", *(pytest.param(at, marks=pytest.mark.long) for at in ("1", "100"))]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("at", MOMENTS)
def test_a_kill_leaves_no_file_of_that_name_or_a_whole_one(memory: MemoryManager, tmp_path: Path, at: str) -> None:
    target = tmp_path / "there" / "backup.db"
    done = subprocess.run([sys.executable, "-c", KILLED, memory.url, str(target), at], check=False, timeout=GUARD)
    assert done.returncode == -9
    assert target.exists() == (at == "unlink")
    [left] = unfinished(target.parent)
    assert memory.backup(target, overwrite=True).rows["messages"] == 60
    assert unfinished(target.parent) == [left], "it may be another's, who is still at work"
    a_day_ago = target.stat().st_mtime - 86_401
    os.utime(target.parent / left, (a_day_ago, a_day_ago))
    memory.backup(target, overwrite=True)
    assert unfinished(target.parent) == []


@contextmanager
def _folder_of_a_stranger(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_folder_that_may_not_be_written(memory: MemoryManager, tmp_path: Path) -> None:
    with _folder_of_a_stranger(tmp_path / "there"), bound_by_modes(), pytest.raises(StorageError, match="may not be"):
        memory.backup(tmp_path / "there" / "backup.db")


def test_what_is_not_ours_is_not_swept_away(tmp_path: Path) -> None:
    for name in (".mirai-backup-notes", ".mirai-restore-0123", "mirai-backup-0123456789abcdef", "x.db"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".mirai-backup-0123456789abcdef").symlink_to(tmp_path / "x.db")
    _files.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
