"""A database out of a backup: copied into a folder of its own, checked there, brought up to date, then put in place.

The backup itself is read once, from the first byte to the last, and never by SQLite: what is checked is what will be
used, and nothing is made or changed beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mirai_memory import _files, schema
from mirai_memory._time import Clock
from mirai_memory.backups import replacing, seal
from mirai_memory.backups.check import check, sqlite_database
from mirai_memory.backups.replay import replay
from mirai_memory.backups.report import Contents, Progress, Restored
from mirai_memory.config import MemorySettings
from mirai_memory.database import Database
from mirai_memory.database.engine import driver_error
from mirai_memory.database.sqlite import switch_to_wal
from mirai_memory.errors import Corrupt, NotFound, StorageError
from mirai_memory.search import open_index
from mirai_memory.search.postings import WORDS
from mirai_memory.unit_of_work import Store, is_open

_PATIENCE = 10.0  # seconds, for nobody: the file is ours alone


@dataclass(frozen=True, slots=True)
class Prepared:
    """A database that has been made of a backup, still in the folder in which that was done."""

    path: Path
    seal: seal.Seal | None
    upgraded_from: str | None
    contents: Contents
    erased: int

    @property
    def made_at(self) -> datetime | None:
        return None if self.seal is None else self.seal.made_at


def restore(
    backup: Path, target: Path, clock: Clock, *, others: Sequence[Path] = (), progress: Progress | None = None
) -> Restored:
    """Make ``target`` what ``backup`` holds. The erasures beside it count, and those beside ``others``.

    Raises Corrupt for a damaged backup, ForeignDatabase for one that is no memory, SchemaTooNew, NotFound, Busy where
    the target is open elsewhere, StorageError and its kin; the target is as it was then.
    """
    started = time.perf_counter()
    replacing.refuse_unless_replaceable(target)
    _refuse_unless_readable(backup)
    if backup.exists() and target.exists() and backup.samefile(target):
        raise StorageError(f"{backup} is the target itself; name another one")
    _files.make_folder(target.parent)
    with prepared(backup, target, (target, *others), clock, progress) as found:
        with _files.translated(target, "it was restored"):
            _files.sync_file(found.path)
        kept = replacing.replace(target, found.path, clock())
    return Restored(
        path=target,
        backup=backup,
        sealed=found.seal is not None,
        made_at=found.made_at,
        kept=kept,
        upgraded_from=found.upgraded_from,
        revision=found.contents.revision,
        rows=found.contents.rows,
        erased=found.erased,
        seconds=time.perf_counter() - started,
    )


@contextmanager
def prepared(
    backup: Path, target: Path, databases: Sequence[Path], clock: Clock, progress: Progress | None
) -> Iterator[Prepared]:
    """A database made of the backup in a passing folder beside ``target``: checked, upgraded, without the forgotten."""
    _refuse_unless_readable(backup)
    with _files.workshop(target) as folder:
        path = folder / "memory.db"
        found_seal = _copied(backup, path, progress)
        contents = check(path, name=backup, progress=progress)
        upgraded_from = None
        if contents.revision != schema.HEAD_REVISION:
            upgraded_from = contents.revision
            schema.upgrade(path)
        erased = _changed(path, lambda database: _put_right(database, databases, clock))
        if upgraded_from is not None or erased:
            contents = check(path, name=backup)
        yield Prepared(path, found_seal, upgraded_from, contents, erased)


def _refuse_unless_readable(backup: Path) -> None:
    if backup.is_symlink():
        raise StorageError(f"{backup} is a link, which is not followed; name the file itself")
    if not backup.exists():
        raise NotFound("backup", str(backup))
    if not backup.is_file():
        raise StorageError(f"{backup} is no regular file; name a backup")
    # Read by hand, since it may be anybody's: but never a file that SQLite has open here, which would lose its locks.
    if is_open(backup):
        raise StorageError(f"{backup} is open in this process; it is a database in use, of which to make a backup")
    for ending in ("-wal", "-journal"):
        beside = Path(f"{backup}{ending}")
        if os.path.lexists(beside) and beside.lstat().st_size:
            raise StorageError(
                f"{beside} stands beside it: this is a database in use, or one that a crash has left. Make a backup of "
                "it, and restore that"
            )


def _copied(backup: Path, path: Path, progress: Progress | None) -> seal.Seal | None:
    """The bytes of the backup at ``path``, and its seal, which they match. Raises Corrupt."""
    with _files.translated(backup, "it was read"):
        source = _files.open_existing(backup)
    try:
        with _files.translated(path, "the backup was copied"):
            target = _files.open_new(path)
            try:
                return _copied_bytes(source, target, backup, progress)
            finally:
                os.close(target)
    finally:
        os.close(source)


def _copied_bytes(source: int, target: int, backup: Path, progress: Progress | None) -> seal.Seal | None:
    found = seal.read(source, backup)
    size = found.size if found else os.fstat(source).st_size
    done = 0

    def copy(chunk: bytes) -> None:
        nonlocal done
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(target, rest) :]
        done += len(chunk)
        if progress is not None:
            progress("copy", done, size)

    pages = seal.read_pages(source, size, copy)
    if found is not None and seal.Seal.of(pages, found.made_at, found.revision) != found:
        raise Corrupt(
            f"{backup} is damaged: it is not as it was when it was sealed. Take another backup; where you have used "
            "this one as a database since, make a backup of that"
        )
    return found


def _changed(path: Path, change: Callable[[Database], int]) -> int:
    database = sqlite_database(path)
    try:
        # A log, and no sync but with its checkpoints: large changes to a rollback journal sync it over and over.
        switch_to_wal(database.engine, wait=_PATIENCE)
        return change(database)
    except Exception as error:
        ours = database.translated(error)
        if ours is error:
            raise
        raise ours from driver_error(error)
    finally:
        database.dispose()


def _put_right(database: Database, databases: Sequence[Path], clock: Clock) -> int:
    """Take out the forgotten; how many there were."""
    settings = MemorySettings()
    store = Store(database, open_index(database, cache_mb=settings.rag.cache_mb), settings, clock)
    try:
        # What FTS5 has of its own is made anew before it is used: its pages may have been forged to harm the engine.
        _rebuild_words(store)
        erased = replay(store, databases)
        if erased:
            _rebuild_words(store)  # deleted words stay in its pages until then
    finally:
        store.close()
    _make_one_file(database, compact=erased > 0)
    return erased


def _rebuild_words(store: Store) -> None:
    for words in WORDS.values():
        statement = f"INSERT INTO {words.name}({words.name}) VALUES ('rebuild')"  # noqa: S608 - a name of ours
        store.write(lambda uow: uow.db.exec_driver_sql(statement))  # noqa: B023 - called at once


def _make_one_file(database: Database, *, compact: bool) -> None:
    """No log beside it, and of what was deleted no trace."""
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if compact:
            driver.execute("VACUUM")
        driver.execute("PRAGMA journal_mode=DELETE").fetchall()
