"""A write that has returned is on the disk: by the syncs that are counted, and by what a power cut leaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disk import Disk, installed
from work import STEPS, FrozenClock, do, faults, opened, rows

from mirai_memory import MemoryManager, Message

CHANGING = "write", "truncate", "delete"


def _last_is_a_sync(disk: Disk, since: int) -> bool:
    changes = [operation for operation in disk.operations[since:] if operation.kind in (*CHANGING, "sync")]
    return changes[-1].kind == "sync" and changes[-1].path.endswith("-wal")


def test_every_write_is_synced_once_and_last(tmp_path: Path) -> None:
    clock = FrozenClock()
    with installed(Disk()) as disk, opened(tmp_path / "memory.db", clock) as memory:
        for number, name in enumerate(STEPS):
            since, before = len(disk.operations), rows(tmp_path / "memory.db")
            do(memory, clock, number)
            syncs = [operation for operation in disk.operations[since:] if operation.kind == "sync"]
            if rows(tmp_path / "memory.db") == before:
                assert name == "add_message again"
                assert syncs == []
                continue
            assert len(syncs) == 1, name
            assert _last_is_a_sync(disk, since), name


def test_synchronous_normal_leaves_the_sync_to_a_checkpoint(tmp_path: Path) -> None:
    """The setting does what it says; and a count of nothing can be told from one of something."""
    clock = FrozenClock()
    with installed(Disk()) as disk, opened(tmp_path / "memory.db", clock, synchronous="normal") as memory:
        since = len(disk.operations)
        for number in range(5):
            do(memory, clock, number)
        assert {operation.kind for operation in disk.operations[since:]} <= {"read", "write"}
        since = len(disk.operations)
    assert "sync" in {operation.kind for operation in disk.operations[since:]}


def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    file, clock = tmp_path / "memory.db", FrozenClock()
    disk = Disk(keep_synced=True)
    with installed(disk), opened(file, clock) as memory:
        for number, name in enumerate(STEPS):
            do(memory, clock, number)
            left = disk.after_power_cut(file, tmp_path / name)
            assert rows(left) == rows(file), name
            assert faults(left) == [], name
    assert rows(disk.after_power_cut(file, tmp_path / "closed")) == rows(file)


def test_a_power_cut_under_synchronous_normal_leaves_an_earlier_whole(tmp_path: Path) -> None:
    file, clock = tmp_path / "memory.db", FrozenClock()
    disk = Disk(keep_synced=True)
    states = []
    with installed(disk), opened(file, clock, synchronous="normal") as memory:
        for number in range(8):
            do(memory, clock, number)
            states.append(rows(file))
        left = disk.after_power_cut(file, tmp_path / "cut")
    assert rows(left) != states[-1], "the cut took nothing: it cannot tell what was synced from what was not"
    assert faults(left) == []


WRITER = """
import sys
from mirai_memory import MemoryManager, Message
with MemoryManager(sys.argv[1]) as memory:
    for _ in range(int(sys.argv[2])):
        memory.add_message(Message(session_id="talk", role="user", content="words"))
"""
_SYNCED_WAL = re.compile(r"\b(?:fsync|fdatasync)\(\d+<[^>]*memory\.db-wal>\)\s+= 0")


def _syncs_seen_by_the_system(file: Path, messages: int) -> int:
    """The log's syncs as ``strace`` counts them in a process of its own; else as SQLite's disk does."""
    with MemoryManager(file) as memory:
        memory.create_session("alice", session_id="talk")
        tracer = shutil.which("strace")
        trace = file.with_name("trace")
        if tracer is not None:
            command = [tracer, "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
            command += [sys.executable, "-c", WRITER, str(file), str(messages)]
            # Open elsewhere meanwhile: the process that closes the file last copies the log into it, with syncs.
            if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0:
                return len(_SYNCED_WAL.findall(trace.read_text()))
    # There is no strace, or this system lets nobody trace.
    with installed(Disk()) as disk, MemoryManager(file) as memory:
        since = disk.count("sync", "-wal")
        for _ in range(messages):
            memory.add_message(Message(session_id="talk", role="user", content="words"))
        return disk.count("sync", "-wal") - since


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_the_system_sees_a_sync_for_every_acknowledged_message(tmp_path: Path) -> None:
    assert [_syncs_seen_by_the_system(tmp_path / f"{n}" / "memory.db", n) for n in (0, 7)] == [0, 7]
