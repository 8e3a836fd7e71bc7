"""One open database: its engine, and its dialect's part."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from sqlalchemy import URL, Connection, Engine, Pool, RootTransaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mirai_memory.database.queue import WriterQueue
from mirai_memory.database.seats import Seats
from mirai_memory.errors import Corrupt, MiraiMemoryError, MissingExtra, StorageError

Db = Connection
_NO_TURN = nullcontext()
# Cyrillic must stand in the file as itself, and what json would write as NaN is refused instead.
dump_json = partial(json.dumps, ensure_ascii=False, allow_nan=False)


def load_json(stored: str | bytes) -> Any:
    try:
        return {} if stored in ("{}", b"{}") else json.loads(stored)  # as nearly all metadata is
    except (TypeError, ValueError):
        pass  # not as the cause: a JSONDecodeError holds the whole text
    raise Corrupt("stored JSON is damaged; restore a backup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an engine needs to know of the settings."""

    schema: str = "mirai_memory"
    pool_size: int = 15
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout_ms: int = 10_000
    statement_timeout_ms: int = 30_000
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What became of the room of deleted rows: tables that were swept, and that the role may not sweep; who held it up.

    On SQLite, where all of the file is written anew, there is nothing to tell.
    """

    swept: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A place of a server where bytes of deleted rows may be for a while: what to do about it, and which statements."""

    place: Literal["pages", "log", "replicas", "backups"]
    advice: str
    statements: tuple[str, ...] = ()


class Dialect(Protocol):
    """What ``sqlite.py`` and ``postgres.py`` each say in their own way."""

    forks: bool  # whether a child may open a connection, though its parent had one open when it forked

    def create_engine(self, url: URL, options: Options, **arguments: Any) -> Engine: ...
    def begin(self, db: Db, *, write: bool, later: bool = False) -> RootTransaction | None:
        """Begin a transaction; None for a read that SQLAlchemy need not know of.

        ``later``: a read may begin with its first statement.
        """

    def never_began(self, error: BaseException) -> bool:
        """Whether a read that may begin later found its connection dead when it did."""

    def translate(self, error: BaseException) -> MiraiMemoryError | None: ...
    def is_transient(self, error: BaseException) -> bool: ...
    def size_bytes(self, db: Db) -> int: ...
    def estimated_rows(self, db: Db, tables: Mapping[str, str | None]) -> dict[str, int]:
        """How many rows the engine believes each table to have, or those with NULL in the named column.

        A table of which it knows nothing is left out.
        """

    def writer_queue(self, url: URL, options: Options) -> WriterQueue | None: ...
    def seats(self, options: Options) -> Seats | None: ...
    def damages(self, db: Db) -> int:
        """How many faults the engine itself finds in its files."""

    def compact(self, db: Db) -> Compaction:
        """Let go of what is deleted, outside of a transaction."""

    def remains(self, db: Db, done: Compaction) -> tuple[Remains, ...]:
        """Where else bytes of what was deleted may be, once that was done."""

    def truncate_log(self, db: Db) -> bool:
        """Empty the log of what was written, outside of a transaction; False where a reader still needs it."""


@dataclass(slots=True, kw_only=True)
class Database:
    """An engine, how its transactions begin and end, and who says what failed."""

    url: URL
    options: Options
    dialect: Dialect
    engine: Engine
    # An in-memory database is one connection: its units of work take turns.
    turn: threading.RLock | None
    queue: WriterQueue | None
    # Of a server: one for each connection that this process may have.
    seats: Seats | None = None
    inherited: list[Pool] = field(default_factory=list)  # kept: what is collected is closed

    @contextmanager
    def begin(self, *, write: bool, later: bool = False) -> Iterator[Db]:
        """A transaction: committed at the end of a write, rolled back at the end of a read and on any error."""
        if self.turn is not None:
            with self.turn:
                yield from self._begin(write, later)
        else:
            yield from self._begin(write, later)

    @contextmanager
    def outside(self) -> Iterator[Db]:
        """A connection without a transaction, for what an engine does outside of any; writers wait their turn."""
        with self.turn or self.seats or _NO_TURN, self.engine.connect() as db, self._turn(write=True):
            yield db

    def _begin(self, write: bool, later: bool) -> Iterator[Db]:
        # The connection first: the write turn is held for nothing that can be done without it.
        with self.seats or _NO_TURN, self.engine.connect() as db, self._turn(write):
            transaction = self.dialect.begin(db, write=write, later=later)
            try:
                yield db
                if write and transaction is not None:
                    transaction.commit()
            except BaseException:
                _roll_back(db)
                raise
            finally:
                if transaction is None:
                    _roll_back(db)
                elif transaction.is_active:
                    transaction.rollback()

    def _turn(self, write: bool) -> AbstractContextManager[None]:
        return self.queue.turn() if write and self.queue is not None else _NO_TURN

    def before_fork(self, *, quiet: bool) -> bool:
        """Close what is open; whether a child can work with the database. ``quiet``: no connection is at work.

        SQLite keeps its locks in the kernel by process, and its books on them in memory. A child that inherits an
        open connection, used or not, has the books without the locks: a new connection of its own to that file, too,
        believes in locks that are not there. What it wrote was lost when the parent closed the file (seen), and after
        a fork in the middle of a write it waited for ever.
        """
        if quiet and self.turn is None:
            self.engine.dispose()
        return quiet or self.dialect.forks

    def after_fork_in_child(self) -> None:
        """A connection must not be used, nor closed, by a process that only inherited it."""
        if self.turn is None:
            self.inherited.append(self.engine.pool)
            self.seats = self.seats and self.seats.renewed()
            self.engine.dispose(close=False)
        else:
            self.turn = threading.RLock()  # the child has the in-memory database itself, and no other thread

    def translated(self, error: BaseException) -> BaseException:
        """Our error for what the driver or SQLAlchemy raised; anything else, ours included, as it is."""
        if isinstance(error, MiraiMemoryError):
            return error
        known = self.dialect.translate(driver_error(error))
        if known is not None:
            return known
        if isinstance(error, SQLAlchemyError):
            return StorageError(f"the database failed: {type(driver_error(error)).__name__}")
        return error

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same unit of work may succeed when it is run again."""
        return self.dialect.is_transient(driver_error(error))

    def never_began(self, error: BaseException) -> bool:
        """Whether nothing was seen of a read since the connection it was given had died: it may be run again."""
        return self.dialect.never_began(driver_error(error))

    def dispose(self) -> None:
        self.engine.dispose()
        if self.queue is not None:
            self.queue.close()


def _roll_back(db: Db) -> None:
    """Straight on the driver: SQLAlchemy takes a transaction whose COMMIT failed for ended, but SQLite keeps it open,
    and the connection would go back to the pool with the write lock."""
    if db.closed or db.invalidated:
        return
    try:
        db.connection.rollback()
    except Exception:
        db.invalidate()  # it cannot even roll back: it goes, and its transaction with it


def lift_time_limit(db: Db) -> None:
    """Let the statements of this transaction take as long as they need: for upkeep, which reads everything."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SET LOCAL statement_timeout = 0")


def at_once(db: Db) -> AbstractContextManager[Any]:
    """What psycopg executes in the block, the server gets without being waited for; the block ends with its answers.

    Where libpq is too old for that (before 14), each statement is waited for.
    """
    from psycopg import Pipeline

    pipeline: AbstractContextManager[Any] = driver_of(db).pipeline() if Pipeline.is_supported() else nullcontext()
    return pipeline


def driver_of(db: Db) -> Any:
    """The driver's own connection."""
    return db.connection.driver_connection


def driver_error(error: BaseException) -> BaseException:
    """What the driver raised, unwrapped."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error


def dialect_of(url: URL) -> Dialect:
    if url.get_backend_name() == "sqlite":
        from mirai_memory.database.sqlite import SQLite

        return SQLite()
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingExtra("postgres", "psycopg") from error
    from mirai_memory.database.postgres import PostgreSQL

    return PostgreSQL()


def open_database(url: URL, options: Options) -> Database:
    """Engines for ``url``; nothing is connected yet."""
    dialect = dialect_of(url)
    engine = dialect.create_engine(url, options)
    in_memory = url.get_backend_name() == "sqlite" and url.database == ":memory:"
    return Database(
        url=url,
        options=options,
        dialect=dialect,
        engine=engine,
        turn=threading.RLock() if in_memory else None,
        queue=dialect.writer_queue(url, options),
        seats=dialect.seats(options),
    )


def migration_engine(url: str | URL) -> Engine:
    """An engine for one migration run: no pool, no schema translation."""
    from sqlalchemy.pool import NullPool

    from mirai_memory.database.urls import resolve_url

    target = resolve_url(url)
    return dialect_of(target).create_engine(target, Options(schema=""), poolclass=NullPool)
