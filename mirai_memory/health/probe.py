"""What the checks look at: the settings, the place of the database, and a way to read it that changes nothing."""

from __future__ import annotations

import os
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from mirai_memory import schema
from mirai_memory.config import Settings
from mirai_memory.database import Database, Db, display, open_database, sqlite_path
from mirai_memory.database.engine import Options, driver_error, driver_of
from mirai_memory.health.report import Skip, Status, Unfinished

if TYPE_CHECKING:
    from mirai_memory.manager import MemoryManager

# The part of a check's time after which its statement is stopped, so that it can still say so itself.
PATIENCE = 0.8
_QUERY_CANCELED = "57014"


class Probe:
    """One look at one memory. ``settings`` and ``url`` are there once the check of the settings has found them."""

    def __init__(
        self,
        settings: Settings | None,
        given: str | os.PathLike[str] | URL | None,
        config: str | os.PathLike[str] | None,
        manager: MemoryManager | None,
        timeout_s: float,
    ) -> None:
        self.given_settings = settings
        self.given = given
        self.config = config
        self.manager = manager
        self.timeout_s = timeout_s
        self.statuses: dict[str, Status] = {}
        self._loaded: tuple[Settings, URL | None] | None = None
        self._running: dict[int, sqlite3.Connection] = {}
        self._lock = threading.Lock()

    def found(self, settings: Settings, url: URL | None) -> None:
        """What the check of the settings found; without ``url`` nothing is kept anywhere."""
        self._loaded = settings, url

    def require(self, *names: str) -> None:
        """Raise Skip unless these checks found what the next one needs."""
        for name in names:
            if self.statuses.get(name) in ("error", "skipped"):
                raise Skip(f"needs the check {name} to pass")

    @property
    def settings(self) -> Settings:
        if self._loaded is None:
            raise Skip("needs the check settings to pass")
        return self._loaded[0]

    @property
    def url(self) -> URL:
        if self._loaded is None or self._loaded[1] is None:
            raise Skip("memory.enabled is false: there is no database")
        return self._loaded[1]

    @property
    def on_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of the database; None in memory and on a server."""
        return sqlite_path(self.url)

    @property
    def in_memory(self) -> bool:
        return self.on_sqlite and self.path is None

    @property
    def patience(self) -> float:
        """Seconds that one statement may take."""
        return PATIENCE * self.timeout_s

    def command(self, words: str) -> str:
        """A command line for this very database."""
        target = "" if self.given is None and self.manager is None else f" --db {shlex.quote(display(self.url))}"
        return f"mirai-memory {words}{target}"

    @cached_property
    def database(self) -> Database:
        """The database of the checks' own: where a program uses it, that goes on undisturbed."""
        path = self.path
        return open_database(self.url, self.options(read_only=path is not None and _must_be_left_alone(path)))

    def options(self, *, read_only: bool) -> Options:
        memory = self.settings.memory
        wait = min(memory.busy_timeout_ms, int(500 * self.timeout_s))
        return Options(schema=memory.schema_, busy_timeout_ms=wait, read_only=read_only)

    @contextmanager
    def begin(self) -> Iterator[Db]:
        """A transaction that only reads, and whose statements are stopped when the check's time is up.

        Raises Unfinished then, and our own errors for what the database says.
        """
        try:
            with self._transaction() as db, self._bounded(db):
                yield db
        except Exception as error:
            cause = driver_error(error.__cause__ or error)
            if _was_stopped(cause):
                raise Unfinished from None
            raise self.database.translated(error) from None

    @contextmanager
    def _transaction(self) -> Iterator[Db]:
        if self.manager is not None and self.in_memory:
            with self.manager._store.transaction(write=False) as uow:
                yield uow.db
        else:
            with self.database.begin(write=False) as db:
                yield db

    @contextmanager
    def _bounded(self, db: Db) -> Iterator[None]:
        driver = driver_of(db)
        if not isinstance(driver, sqlite3.Connection):
            # For this transaction alone: a pooler may give the connection to somebody else after it.
            limit = max(1, int(1000 * self.patience))
            db.exec_driver_sql(f"SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = 0")
            yield
            return
        thread = threading.get_ident()
        with self._lock:
            self._running[thread] = driver
        try:
            yield
        finally:
            with self._lock:
                del self._running[thread]

    def interrupt(self, thread: int | None) -> None:
        """Stop the statement that this thread runs, and no other: an in-memory database is everybody's connection."""
        with self._lock:
            driver = self._running.get(thread) if thread is not None else None
            if driver is not None:
                driver.interrupt()

    def revision(self, db: Db) -> str | None:
        return schema.read_version(db, self.settings.memory.schema_)

    def require_head(self, db: Db) -> None:
        """Raise Skip unless the tables are those that this version knows."""
        revision = self.revision(db)
        if revision != schema.HEAD_REVISION:
            raise Skip(f"the schema is at revision {revision or 'none'}, not {schema.HEAD_REVISION}")

    def close(self) -> None:
        if "database" in vars(self):
            self.database.dispose()


def _must_be_left_alone(path: Path) -> bool:
    """Whether the file is opened in a way that cannot write.

    A connection that may write takes back what a crash left unfinished, which is not for a check to do, least of all
    in a stranger's file. But one that may not leaves -wal and -shm beside a WAL file that had none: so it is used
    where there are such files, or where writing is not allowed.
    """
    leftovers = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    return leftovers or not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _was_stopped(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_INTERRUPT
    return getattr(error, "sqlstate", None) == _QUERY_CANCELED
