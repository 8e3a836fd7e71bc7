"""Places that are small or closed, made by the kernel where it lets us: in a namespace that nobody else sees.

``python places.py FOLDER`` mounts a disk of 2 MB there, if that is allowed, and tells (a line each) what a memory does
on it. Where it is not allowed, as in many containers, the disk is one that ``disk.Disk`` limits: SQLite is told by that
what the kernel would have told it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from disk import Disk, installed
from work import faults

from mirai_memory import MemoryManager, Message, MiraiMemoryError, StorageError, configure_logging, load_settings

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x20000
_PRIVATE = 1 << 18 | 16384
_READ_ONLY, _REMOUNT = 1, 32


def _mount(source: bytes, target: Path, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), options) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def _enter_namespace() -> None:
    """Mounts of this process are its own from here on. For users other than root, with names for themselves only."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_USER | _NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(b"none", Path("/"), None, _PRIVATE)


class MountedDisk:
    """A small file system of the kernel's."""

    def __init__(self, folder: Path) -> None:
        _enter_namespace()
        _mount(b"none", folder, b"tmpfs", 0, b"size=2m")
        self._folder = folder

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(self._folder / "ballast", "ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self) -> None:
        (self._folder / "ballast").unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        _mount(b"none", self._folder, None, _REMOUNT | _READ_ONLY, b"size=2m")
        try:
            yield
        finally:
            _mount(b"none", self._folder, None, _REMOUNT, b"size=2m")


class PretendedDisk:
    """The same for SQLite alone, which is what the data goes through."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def fill(self) -> None:
        self._disk.fill_up(0)

    def free(self) -> None:
        self._disk.well()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._disk.hold_read_only()
        try:
            yield
        finally:
            self._disk.well()


def _outcome(call: Any) -> str:
    try:
        call()
    except MiraiMemoryError as error:
        return type(error).__name__
    return "done"


def full(place: Any, folder: Path) -> Iterator[Any]:
    """A disk that becomes full under an open memory, and under one that is opened meanwhile; then there is room."""
    logs = load_settings(monitoring={"logs": {"path": str(folder / "logs.jsonl"), "level": "DEBUG"}})
    with configure_logging(logs), MemoryManager(folder / "memory.db") as memory:
        session = memory.create_session("alice").id

        def say(number: int) -> int:
            return memory.add_message(Message(session_id=session, role="user", content=f"n{number} " + "words " * 80))

        stored = [say(number) for number in range(20)]
        place.fill()
        outcomes = set()
        for number in range(20, 400):
            try:
                stored.append(say(number))
            except StorageError as error:
                outcomes.add(type(error).__name__)
                if number % 10 == 0:
                    break
        yield sorted(outcomes)
        yield [message.id for message in memory.get_messages(session, limit=1_000)] == stored
        yield [
            len(memory.search_messages("n3", user_id="alice")) > 0,
            memory.get_stats()["total_messages"] == len(stored),
        ]
        yield _outcome(lambda: MemoryManager(folder / "another.db").close()) in ("StorageFull", "StorageError")
        place.free()
        stored.append(say(400))
        yield [message.id for message in memory.get_messages(session, limit=1_000)] == stored
        MemoryManager(folder / "another.db").close()
    yield faults(folder / "memory.db")


def _times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def read_only(place: Any, folder: Path) -> Iterator[Any]:
    """A disk that may only be read, between two times that it may be written."""
    file = folder / "memory.db"
    with MemoryManager(file) as memory:
        memory.create_session("alice", session_id="talk")
    with place.read_only():
        before = _times(folder)
        with MemoryManager(file, read_only=True) as memory:
            yield memory.get_session("talk") is not None
            yield _outcome(lambda: memory.create_session("bob"))
        try:
            memory = MemoryManager(file)
        except StorageError as error:
            yield type(error).__name__
        else:
            with memory:
                yield _outcome(lambda: memory.create_session("bob"))
        yield _outcome(lambda: MemoryManager(folder / "new.db").close())
        yield isinstance(place, PretendedDisk) or _times(folder) == before
    with MemoryManager(file) as memory:
        memory.create_session("bob")
        yield [session.user_id for session in memory.list_sessions()]


if __name__ == "__main__":
    scenario, folder, pretended = sys.argv[1], Path(sys.argv[2]), "pretended" in sys.argv[3:]
    with contextlib.ExitStack() as stack:
        try:
            if pretended:
                raise OSError
            place: Any = MountedDisk(folder)
        except OSError:
            place = PretendedDisk(folder, stack.enter_context(installed(Disk())))
        print(type(place).__name__)
        for told in {"full": full, "read_only": read_only}[scenario](place, folder):
            print(json.dumps(told))
