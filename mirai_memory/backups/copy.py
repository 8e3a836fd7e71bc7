"""A backup: SQLite's own copy of a database that others go on writing, checked and sealed before it has its name."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mirai_memory import _files
from mirai_memory.backups import seal
from mirai_memory.backups.check import Beside, check, contents
from mirai_memory.backups.report import Backup, Contents, Progress
from mirai_memory.database import Database, Db
from mirai_memory.database.engine import driver_error, driver_of
from mirai_memory.errors import InvalidInput, StorageFull

# Pages of one step, 16 MB: between two steps whoever waits for the copy to stop is heard.
_STEP = 4096
Reading = Callable[[], AbstractContextManager[Db]]


def back_up(
    database: Database,
    reading: Reading,
    target: Path,
    made_at: datetime,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Backup:
    """Copy the database to ``target``, as it is at one moment of the copy. Writers go on meanwhile.

    ``reading`` opens the one transaction that the copy is read in. What ``progress`` raises ends the work, and nothing
    is left of it. Raises StorageError and its kin, Conflict for a name that is taken, and what ``check`` raises.
    """
    started = time.perf_counter()
    _refuse_itself(database, target)
    _files.refuse_unless_free(target, overwrite=overwrite)
    _files.make_folder(target.parent)
    with _files.draft(target) as path:
        copied = _copied(database, reading, path, target, progress)
        size = _checked(path, target, copied, made_at, progress)
        _files.refuse_unless_free(target, overwrite=overwrite)
        _files.publish(path, target, overwrite=overwrite)
    return Backup(
        path=target,
        made_at=made_at,
        size=size,
        revision=copied.revision,
        rows=copied.rows,
        seconds=time.perf_counter() - started,
    )


def _refuse_itself(database: Database, target: Path) -> None:
    own = str(database.url.database)
    names = {f"{own}{ending}" for ending in ("", *_files.COMPANIONS)}
    if str(target) in names or (target.exists() and os.path.exists(own) and target.samefile(own)):
        raise InvalidInput("path", f"{target} is the database itself; name another file")


def _copied(database: Database, reading: Reading, path: Path, target: Path, progress: Progress | None) -> Contents:
    """The copy at ``path``, and what was in the database at the moment that it shows."""
    try:
        with reading() as db:
            found = contents(db)  # the first read fixes the moment, for as long as the transaction lasts
            source = driver_of(db)
            assert isinstance(source, sqlite3.Connection)
            _copy(source, path, progress)
    except Exception as error:
        ours = database.translated(error)
        if isinstance(ours, StorageFull):
            raise StorageFull(f"no space is left for a backup at {target.parent}; nothing was kept of it") from error
        if ours is error:
            raise
        raise ours from driver_error(error)
    return found


def _copy(source: sqlite3.Connection, path: Path, progress: Progress | None) -> None:
    size = source.execute("PRAGMA page_size").fetchone()[0]

    def stepped(status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress("copy", (total - remaining) * size, total * size)

    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
    with closing(connection) as target:
        # Nobody reads the file before it is whole and synced: to be able to take a write back would only cost time.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            target.execute(f"PRAGMA {pragma}").fetchall()
        source.backup(target, pages=_STEP, progress=stepped)
        # One file, without a log beside it, which opens on a disk that may not be written too.
        target.execute("PRAGMA journal_mode=DELETE").fetchall()


def _checked(path: Path, target: Path, copied: Contents, made_at: datetime, progress: Progress | None) -> int:
    """Check, sync and seal the copy; its size. The disk is at work while the check is."""
    with _files.translated(target, "the backup was made"):
        fd = _files.open_existing(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        on_disk = Beside(lambda: _synced(fd, size))
        try:
            check(path, name=target, expected=copied, progress=progress)
        finally:
            on_disk.wait()  # its descriptor is about to be closed
        with _files.translated(target, "the backup was made"):
            seal.put(fd, seal.Seal.of(on_disk.result(), made_at, copied.revision))
            os.fsync(fd)
            return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _synced(fd: int, size: int) -> seal.Pages:
    found = seal.read_pages(fd, size)
    os.fsync(fd)
    return found
