"""What is true of SQLite only."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, RootTransaction, create_engine, event, text
from sqlalchemy.pool import QueuePool, StaticPool

from mirai_memory.database.engine import Compaction, Db, Options, Remains, dump_json, load_json
from mirai_memory.database.queue import WriterQueue
from mirai_memory.database.urls import sqlite_path
from mirai_memory.errors import (
    Busy,
    Conflict,
    Corrupt,
    MiraiMemoryError,
    ReadOnly,
    StorageError,
    StorageFull,
)

_WAL_BYTES = 16_000_000
_CHECKPOINT_MS = 50
_MOST_DAMAGES = 1_000  # that are counted
OLDEST = (3, 35, 0)  # RETURNING

_BUSY = "other writers kept the database for longer than memory.busy_timeout_ms; nothing was changed, try again"
_FAULTS: dict[int, tuple[type[MiraiMemoryError], str]] = {
    sqlite3.SQLITE_BUSY: (Busy, _BUSY),
    sqlite3.SQLITE_LOCKED: (Busy, _BUSY),
    sqlite3.SQLITE_FULL: (StorageFull, "no space is left for the database; nothing was changed"),
    sqlite3.SQLITE_READONLY: (ReadOnly, "the database cannot be written: the file or its folder is read-only"),
    sqlite3.SQLITE_PERM: (StorageError, "access to the database was refused"),
    sqlite3.SQLITE_CANTOPEN: (StorageError, "the database file cannot be opened; is its folder there and accessible?"),
    sqlite3.SQLITE_IOERR: (StorageError, "the disk failed while the database was read or written"),
    sqlite3.SQLITE_CORRUPT: (Corrupt, "the database file is damaged; restore a backup"),
    sqlite3.SQLITE_NOTADB: (Corrupt, "the file is damaged or is no SQLite database; restore a backup or name another"),
    sqlite3.SQLITE_TOOBIG: (StorageError, "a value is larger than this build of SQLite stores"),
}


class SQLite:
    """The dialect's part of ``database.engine``."""

    forks = False

    def create_engine(self, url: URL, options: Options, **arguments: Any) -> Engine:
        path = sqlite_path(url)
        if path is None:
            arguments = {"poolclass": StaticPool}
        elif "poolclass" not in arguments:
            # Every thread of the host may hold a connection; waiting is the doors' business, not the pool's.
            arguments = {"poolclass": QueuePool, "pool_size": 8, "max_overflow": -1}
        engine = create_engine(
            URL.create("sqlite"),
            creator=lambda: _connect(path, options),
            hide_parameters=True,
            json_serializer=dump_json,
            json_deserializer=load_json,
            # The doors end every transaction themselves; a second ROLLBACK at check-in would only cost time.
            pool_reset_on_return=None,
            **arguments,
        )
        if arguments["poolclass"] is not QueuePool:
            # Migrations begin in SQLAlchemy's way. Not for the doors' own engine: with one listener on an engine, every
            # statement goes through all of SQLAlchemy's events, a tenth of the time of a small transaction.
            event.listen(engine, "begin", _begin_writing)
        return engine

    def begin(self, db: Db, *, write: bool, later: bool = False) -> RootTransaction | None:
        if not write:
            _driver(db).execute("BEGIN DEFERRED")
            return None
        driver = _driver(db)
        if isinstance(driver, _FileConnection):
            driver.check_in_place()
        # IMMEDIATE, because a deferred transaction that reads and then writes fails at once under contention, whatever
        # the timeout.
        driver.execute("BEGIN IMMEDIATE")
        return db.begin()

    def translate(self, error: BaseException) -> MiraiMemoryError | None:
        if isinstance(error, sqlite3.IntegrityError):
            return Conflict("row", "", "a rule of the schema would be broken; nothing was changed")
        if not isinstance(error, sqlite3.Error):
            return None
        if "no such table" in str(error) or "no such column" in str(error):
            return Corrupt("a table of the schema is missing; restore a backup or run: mirai-memory db check")
        if "Could not decode to UTF-8" in str(error):
            return Corrupt("a stored text is damaged; restore a backup")
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        fault, message = _FAULTS.get(code, (StorageError, f"SQLite failed with code {code}"))
        return fault(message)

    def is_transient(self, error: BaseException) -> bool:
        # The busy handler has waited already when BEGIN IMMEDIATE fails; asking again would only double the wait.
        return False

    def never_began(self, error: BaseException) -> bool:
        return False

    def writer_queue(self, url: URL, options: Options) -> WriterQueue | None:
        path = sqlite_path(url)
        return None if path is None else WriterQueue(path, wait_s=options.busy_timeout_ms / 1000)

    def seats(self, options: Options) -> None:
        """Any number: a connection is an open file."""
        return

    def size_bytes(self, db: Db) -> int:
        pages = db.execute(text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"))
        return int(pages.scalar_one())

    def estimated_rows(self, db: Db, tables: Mapping[str, str | None]) -> dict[str, int]:
        return {}

    def damages(self, db: Db) -> int:
        faults = _driver(db).execute(f"PRAGMA integrity_check({_MOST_DAMAGES})").fetchall()
        return sum(row != ("ok",) for row in faults)

    def compact(self, db: Db) -> Compaction:
        # secure_delete zeroes what is deleted where it stands. Where SQLite had moved a row to another page before,
        # the old copy is still there, in room that no row uses: seen in nearly every file.
        _driver(db).execute("VACUUM")
        return Compaction()

    def remains(self, db: Db, done: Compaction) -> tuple[Remains, ...]:
        return ()

    def truncate_log(self, db: Db) -> bool:
        driver = _driver(db)
        [(patience,)] = driver.execute("PRAGMA busy_timeout").fetchall()
        # It waits for readers with the write lock in its hand.
        driver.execute(f"PRAGMA busy_timeout={_CHECKPOINT_MS}")
        try:
            [(busy, *_)] = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            driver.execute(f"PRAGMA busy_timeout={patience}")
        return not busy


class _FileConnection(sqlite3.Connection):
    """A connection that knows which file it has open.

    A file that was deleted, or that another took the place of, lives on while it is open: SQLite would commit to it,
    and what was acknowledged would be gone with the last connection.
    """

    _path: Path | None = None
    _file: tuple[int, int] | None = None

    def has_opened(self, path: Path) -> None:
        self._path, self._file = path, _identity(path)

    def check_in_place(self) -> None:
        if self._path is not None and _identity(self._path) != self._file:
            raise StorageError(
                f"{self._path} is not the file that was opened, or its folder may not be looked into: it was deleted, "
                "moved or replaced meanwhile; nothing was changed. Put it back, or open a new MemoryManager"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path | None, options: Options) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST:
        raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer with FTS5 is needed")
    target = ":memory:" if path is None else f"file:{quote(str(path))}?mode={_mode(path, options)}"
    timeout = options.busy_timeout_ms / 1000
    # The driver's own transactions are switched off: it would run DDL and SELECT outside of them. Checking of
    # threads too: the pool hands a connection to one thread at a time.
    connection = sqlite3.connect(
        target, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, factory=_FileConnection
    )
    try:
        if path is not None:
            connection.has_opened(path)
        for pragma in _pragmas(options):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except UnicodeDecodeError:
        connection.close()
    except BaseException:
        connection.close()  # damaged: the error's traceback would keep it open, with -wal and -shm beside the file
        raise
    else:
        return connection
    # The driver could not read what SQLite had to say, since it quotes the damaged schema.
    raise Corrupt(_FAULTS[sqlite3.SQLITE_CORRUPT][1])


def _mode(path: Path, options: Options) -> str:
    if not options.read_only:
        return "rw"
    # On a file system that is mounted read-only SQLite cannot make the files that readers of a WAL database share; nor
    # are they needed, since nobody can write. What a log still holds would be passed over.
    log = path.with_name(path.name + "-wal")
    return "ro&immutable=1" if _is_mounted_read_only(path) and not log.exists() else "ro"


def _is_mounted_read_only(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _pragmas(options: Options) -> tuple[str, ...]:
    return (
        "foreign_keys=ON",
        f"synchronous={options.synchronous.upper()}",
        "fullfsync=ON",  # macOS: without it a sync does not reach the disk; elsewhere it does nothing
        "checkpoint_fullfsync=ON",
        "secure_delete=ON",
        "trusted_schema=OFF",
        # What a long reader has made of the WAL is given back to the disk by the first checkpoint after it.
        f"journal_size_limit={_WAL_BYTES}",
    )


def _begin_writing(connection: Connection) -> None:
    driver = _driver(connection)
    if not driver.in_transaction:
        driver.execute("BEGIN IMMEDIATE")


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def switch_to_wal(engine: Engine, *, wait: float) -> None:
    """Make the file a WAL one, once and for all connections. The switch ignores the busy timeout, hence the retry."""
    deadline = time.monotonic() + wait
    with engine.connect() as connection:
        driver = _driver(connection)
        while True:
            try:
                if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    driver.execute("PRAGMA journal_mode=WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
