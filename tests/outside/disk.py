"""The disk as SQLite sees it, in the hands of a test: counted, failing, full, or gone at a chosen operation.

SQLite asks a table of functions (its VFS) for everything it does to files. While a ``Disk`` is installed, that table
is one of ours: it hands every call on to the real one and looks at, counts or refuses what passes. Neither a mount nor
a compiler nor a right is needed, only that Python's SQLite lets its functions be called, which it does wherever it is
linked as usual.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What the file system's refusals are called by SQLite.
READ_ONLY = 8
FULL = 13
READ_FAILED = 10 | 1 << 8
WRITE_FAILED = 10 | 3 << 8
SYNC_FAILED = 10 | 4 << 8

_WATCHED = 0x100 | 0x800 | 0x80000  # the database, its rollback journal, its write-ahead log


def _fields(names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names.split()]


class _Vfs(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        *_fields("pAppData xOpen xDelete xAccess xFullPathname xDlOpen xDlError xDlSym xDlClose xRandomness xSleep"),
        *_fields("xCurrentTime xGetLastError xCurrentTimeInt64 xSetSystemCall xGetSystemCall xNextSystemCall"),
    )


class _Methods(Structure):
    _fields_ = (
        ("iVersion", c_int),
        *_fields("xClose xRead xWrite xTruncate xSync xFileSize xLock xUnlock xCheckReservedLock xFileControl"),
        *_fields("xSectorSize xDeviceCharacteristics xShmMap xShmLock xShmBarrier xShmUnmap xFetch xUnfetch"),
    )


class _File(Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_File), c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Transfer = CFUNCTYPE(c_int, POINTER(_File), c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, POINTER(_File), c_int64)
_Sync = CFUNCTYPE(c_int, POINTER(_File), c_int)
_Size = CFUNCTYPE(c_int, POINTER(_File), POINTER(c_int64))


def _library() -> ctypes.CDLL:
    # A handle of the module finds what the module itself is linked with; built into Python, it is found there.
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
    library.sqlite3_vfs_unregister.argtypes = [POINTER(_Vfs)]
    return library


@dataclass(frozen=True)
class Operation:
    """Something that SQLite is about to do: "read", "write", "truncate", "sync" or "delete"."""

    kind: str
    path: str
    end: int = 0  # of a write: where in the file it ends


@dataclass
class Disk:
    """What has happened, and what is to happen, to files while it is installed.

    ``refuse`` is asked before each operation and returns SQLite's number for the refusal, or None to let it pass.
    With ``keep_synced`` the bytes that were last synced are kept for every file: what a power cut leaves.
    """

    refuse: Callable[[Operation], int | None] = lambda operation: None
    keep_synced: bool = False
    operations: list[Operation] = field(default_factory=list)
    synced: dict[str, bytes] = field(default_factory=dict)

    def well(self) -> None:
        """Nothing is refused any more."""
        self.refuse = lambda operation: None

    def break_at(self, count: int, code: int, *kinds: str) -> None:
        """From the ``count``-th operation of these kinds on, each is refused."""
        left = [count]

        def refuse(operation: Operation) -> int | None:
            left[0] -= operation.kind in kinds
            return code if left[0] < 1 and operation.kind in kinds else None

        self.refuse = refuse

    def fill_up(self, room: int) -> None:
        """No file gets larger than it is by more than ``room`` bytes."""
        limits: dict[str, int] = {}

        def refuse(operation: Operation) -> int | None:
            if operation.kind != "write":
                return None
            size = Path(operation.path).stat().st_size
            return FULL if operation.end > limits.setdefault(operation.path, size + room) else None

        self.refuse = refuse

    def hold_read_only(self) -> None:
        """Nothing may be written, and no file is made."""
        self.refuse = lambda operation: None if operation.kind == "read" else READ_ONLY

    def kill_at(self, count: int) -> None:
        """The process dies, as by ``kill -9``, before its ``count``-th operation that changes anything."""
        left = [count]

        def refuse(operation: Operation) -> int | None:
            left[0] -= operation.kind != "read"
            if left[0] < 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return None

        self.refuse = refuse

    def count(self, kind: str, ending: str = "") -> int:
        """How many such operations there were, on files whose names end so."""
        return sum(one.kind == kind and one.path.endswith(ending) for one in self.operations)

    def after_power_cut(self, file: Path, folder: Path) -> Path:
        """A new folder with the file and its log as a power cut at this moment leaves them; the copy of the file."""
        folder.mkdir()
        for path, content in self.synced.items():
            if Path(path).parent == file.parent:
                (folder / Path(path).name).write_bytes(content)
        return folder / file.name


class _Table:
    """SQLite's table of functions with some of them replaced. It is made once and stays: connections point to it."""

    def __init__(self) -> None:
        self.disk: Disk | None = None
        self._library = _library()
        self._real = self._library.sqlite3_vfs_find(None)
        self._names: dict[int, str] = {}  # of open files
        self._methods: dict[int, tuple[_Methods, Any]] = {}  # ours, by the address of the real ones
        self._open = _Open(self._opened)
        self._delete = _Delete(self._deleted)
        self._ours = _Vfs.from_buffer_copy(self._real.contents)
        self._ours.zName = b"mirai-memory-test-disk"
        self._ours.pNext = None
        self._ours.xOpen = ctypes.cast(self._open, c_void_p)
        self._ours.xDelete = ctypes.cast(self._delete, c_void_p)

    def install(self, disk: Disk) -> None:
        self.disk = disk
        self._library.sqlite3_vfs_register(ctypes.byref(self._ours), 1)

    def remove(self) -> None:
        self.disk = None
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._ours))
        self._library.sqlite3_vfs_register(self._real, 1)

    def _opened(self, _vfs: Any, name: int | None, file: Any, flags: int, out: Any) -> int:
        code = _Open(self._real.contents.xOpen)(ctypes.addressof(self._real.contents), name, file, flags, out)
        methods = file.contents.methods
        if code == 0 and methods and name and flags & _WATCHED:
            self._names[ctypes.addressof(file.contents)] = os.fsdecode(ctypes.string_at(name))
            file.contents.methods = ctypes.pointer(self._replaced(methods.contents))
        return int(code)

    def _replaced(self, real: _Methods) -> _Methods:
        address = ctypes.addressof(real)
        if address not in self._methods:
            ours = _Methods.from_buffer_copy(real)
            functions = {
                "xRead": _Transfer(self._transfer("read", _Transfer(real.xRead))),
                "xWrite": _Transfer(self._transfer("write", _Transfer(real.xWrite))),
                "xTruncate": _Truncate(self._truncate(_Truncate(real.xTruncate))),
                "xSync": _Sync(self._sync(_Sync(real.xSync), real)),
            }
            for name, function in functions.items():
                setattr(ours, name, ctypes.cast(function, c_void_p))
            self._methods[address] = ours, functions
        return self._methods[address][0]

    def _asked(self, kind: str, path: str, end: int = 0) -> int | None:
        if self.disk is None:
            return None
        operation = Operation(kind, path, end)
        self.disk.operations.append(operation)
        return self.disk.refuse(operation)

    def _transfer(self, kind: str, real: Any) -> Callable[..., int]:
        def transfer(file: Any, buffer: int, size: int, offset: int) -> int:
            refused = self._asked(kind, self._name(file), offset + size)
            return int(real(file, buffer, size, offset)) if refused is None else refused

        return transfer

    def _truncate(self, real: Any) -> Callable[..., int]:
        def truncate(file: Any, size: int) -> int:
            refused = self._asked("truncate", self._name(file))
            return int(real(file, size)) if refused is None else refused

        return truncate

    def _sync(self, real: Any, methods: _Methods) -> Callable[..., int]:
        def sync(file: Any, flags: int) -> int:
            refused = self._asked("sync", self._name(file))
            if refused is not None:
                return refused
            code = int(real(file, flags))
            if code == 0 and self.disk is not None and self.disk.keep_synced:
                self.disk.synced[self._name(file)] = _content(file, methods)
            return code

        return sync

    def _deleted(self, _vfs: Any, name: bytes, sync_folder: int) -> int:
        refused = self._asked("delete", os.fsdecode(name))
        if refused is not None:
            return refused
        return int(_Delete(self._real.contents.xDelete)(ctypes.addressof(self._real.contents), name, sync_folder))

    def _name(self, file: Any) -> str:
        return self._names[ctypes.addressof(file.contents)]


def _content(file: Any, methods: _Methods) -> bytes:
    """All of an open file, read through SQLite: closing another handle would drop the locks that SQLite holds."""
    size = c_int64()
    _Size(methods.xFileSize)(file, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    if size.value:
        _Transfer(methods.xRead)(file, ctypes.addressof(buffer), size.value, 0)
    return buffer.raw[: size.value]


_table: list[_Table] = []


@contextmanager
def installed(disk: Disk) -> Iterator[Disk]:
    """Connections that are opened inside go through ``disk``."""
    if not _table:
        _table.append(_Table())
    _table[0].install(disk)
    try:
        yield disk
    finally:
        _table[0].remove()
