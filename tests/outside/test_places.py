"""Where the data lies: a disk that is full or read-only, folders that are closed, files that go or are replaced."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rights import bound_by_modes
from work import faults

from mirai_memory import Knowledge, MemoryManager, Message, MiraiMemoryError, ReadOnly, StorageError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

PLACES = Path(__file__).with_name("places.py")


def _told(scenario: str, folder: Path, *more: str) -> list[Any]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(PLACES), scenario, str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Logging error" not in done.stderr
    kind, *told = done.stdout.splitlines()
    assert kind in ("MountedDisk", "PretendedDisk")
    return [json.loads(line) for line in told]


@pytest.mark.parametrize("how", ["", "pretended"])
def test_a_disk_becomes_full_and_empty_again(tmp_path: Path, how: str) -> None:
    """The log, the lock files and SQLite's own are on it too, where it is a real one."""
    refusals, *holds, wrong = _told("full", tmp_path / "disk", how)
    assert refusals == ["StorageFull"]
    assert holds == [True, [True, True], True, True]
    assert wrong == []


@pytest.mark.parametrize("how", ["", "pretended"])
def test_a_disk_that_may_only_be_read(tmp_path: Path, how: str) -> None:
    readable, refused, opened_for_writing, made, untouched, owners = _told("read_only", tmp_path / "disk", how)
    assert readable
    assert refused == "ReadOnly"
    assert {opened_for_writing, made} <= {"ReadOnly", "StorageError"}
    assert untouched
    assert owners == ["alice", "bob"]


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with a session, closed, in a folder of its own."""
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "memory.db"
    with MemoryManager(file) as memory:
        memory.create_session("alice", session_id="talk")
    return file


def _say(memory: MemoryManager, content: str) -> int:
    return memory.add_message(Message(session_id="talk", role="user", content=content))


CLOSED = {
    "the file is closed": (0o000, 0o700),
    "the file may only be read": (0o400, 0o700),
    "the folder is closed": (0o600, 0o000),
    "the folder may only be read": (0o600, 0o500),
    "both may only be read": (0o400, 0o500),
}


@pytest.mark.parametrize(("mode", "folder_mode"), CLOSED.values(), ids=CLOSED)
def test_what_may_not_be_opened_is_a_storage_error_and_opens_when_it_may(
    file: Path, mode: int, folder_mode: int
) -> None:
    with bound_by_modes():
        file.chmod(mode)
        file.parent.chmod(folder_mode)
        try:
            _use_in_vain(file)
        finally:
            file.parent.chmod(0o700)
            for each in file.parent.glob("memory.db*"):  # SQLite gives its log the rights of the database
                each.chmod(0o600)
        with MemoryManager(file) as memory:
            _say(memory, "after")
            assert [message.content for message in memory.get_messages("talk")] == ["after"]


def _use_in_vain(file: Path) -> None:
    with pytest.raises(StorageError) as raised, MemoryManager(file) as memory:
        _say(memory, "lost")
    assert str(file.parent) in str(raised.value) or "read-only" in str(raised.value) or "folder" in str(raised.value)


def test_permissions_that_go_while_it_is_open(file: Path) -> None:
    """What the kernel has opened stays open; what it has not is refused, and is opened when it may."""
    with bound_by_modes(), MemoryManager(file) as memory:
        stored = [_say(memory, "before")]
        file.chmod(0o000)
        file.parent.chmod(0o000)
        try:
            with pytest.raises(StorageError):
                _say(memory, "lost")
            assert memory.get_message(stored[0]) is not None
            with memory._store.transaction(write=False), ThreadPoolExecutor(1) as pool:
                # A second connection, from a thread that no right was taken from: only where that is no root's.
                refused = pool.submit(_outcome, lambda: _bound(memory.list_sessions)).result(60)
            assert refused == "StorageError"
        finally:
            file.parent.chmod(0o700)
            file.chmod(0o600)
        stored.append(_say(memory, "after"))
        assert [message.id for message in memory.get_messages("talk")] == stored
        with memory._store.transaction(write=False), ThreadPoolExecutor(1) as pool:
            assert pool.submit(_outcome, memory.list_sessions).result(60) == "done"
    assert faults(file) == []


def _bound(call: Callable[[], Any]) -> Any:
    with bound_by_modes():
        return call()


def _outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except MiraiMemoryError as error:
        return type(error).__name__
    return "done"


def test_a_lock_file_that_may_not_be_written_costs_the_fairness_only(file: Path) -> None:
    queue = file.with_name("memory.db.writers.lock")
    with bound_by_modes():
        queue.chmod(0o000)
        with MemoryManager(file) as memory:
            _say(memory, "words")
            assert len(memory.get_messages("talk")) == 1
        queue.chmod(0o600)


# --- files that go, or others that come -------------------------------------------------------------------------------


def _stranger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()


def _copy_of_ours(path: Path) -> None:
    with MemoryManager(path) as memory:
        memory.create_session("alice", session_id="talk")


def _text(path: Path) -> None:
    path.write_text("no database at all\n" * 500)


TAKE_ITS_PLACE: dict[str, Callable[[Path], None] | None] = {
    "deleted": None,
    "another memory": _copy_of_ours,
    "a stranger's database": _stranger,
    "a text": _text,
}


@pytest.mark.parametrize("other", TAKE_ITS_PLACE.values(), ids=TAKE_ITS_PLACE)
def test_nothing_is_acknowledged_that_goes_with_the_file(file: Path, other: Callable[[Path], None] | None) -> None:
    """A file that is gone from its place lives on while it is open: a commit would be lost with the last connection."""
    aside, came = file.with_name("aside.db"), file.with_name("came.db")
    with MemoryManager(file) as memory:
        stored = [_say(memory, "before")]
        file.rename(aside)
        if other is not None:
            other(came)
            came.rename(file)
            before = file.read_bytes()
        for call in (
            lambda: _say(memory, "lost"),
            lambda: memory.add_knowledge(Knowledge(value="lost")),
            lambda: memory.delete_session("talk"),
        ):
            with pytest.raises(StorageError, match="not the file that was opened"):
                call()
        if other is not None:
            assert file.read_bytes() == before
            file.unlink()
        aside.rename(file)
        stored.append(_say(memory, "after"))
        assert [message.id for message in memory.get_messages("talk")] == stored
    assert faults(file) == []
    with MemoryManager(file) as memory:
        assert [message.id for message in memory.get_messages("talk")] == stored


def test_a_link_to_the_file_may_be_what_is_opened(file: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    link.symlink_to(file)
    _copy_of_ours(other)
    with MemoryManager(link) as memory:
        _say(memory, "before")
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(StorageError, match="not the file that was opened"):
            _say(memory, "lost")
    with MemoryManager(other) as memory:
        assert memory.get_messages("talk") == []


def test_a_folder_that_is_gone_is_a_storage_error(file: Path) -> None:
    with MemoryManager(file) as memory:
        shutil.rmtree(file.parent)
        with pytest.raises(StorageError):
            _say(memory, "lost")
        with pytest.raises(StorageError), MemoryManager(file, read_only=True):
            pass


def test_read_only_reads_what_others_go_on_writing_where_they_can(file: Path) -> None:
    """The short cut for disks that are mounted read-only is taken on no other."""
    with MemoryManager(file) as writer, MemoryManager(file, read_only=True) as reader:
        assert reader.get_messages("talk") == []
        _say(writer, "words")
        assert [message.content for message in reader.get_messages("talk")] == ["words"]
        with pytest.raises(ReadOnly):
            _say(reader, "lost")
