"""What is true of PostgreSQL only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from sqlalchemy import URL, Dialect, Engine, RootTransaction, create_engine, event, text

from mirai_memory.database import catalogue, vacuuming
from mirai_memory.database.engine import Compaction, Db, Options, Remains, driver_of, dump_json, load_json
from mirai_memory.database.seats import Seats
from mirai_memory.errors import (
    Busy,
    Conflict,
    Corrupt,
    InvalidInput,
    MiraiMemoryError,
    ReadOnly,
    SchemaOutOfDate,
    StorageError,
    StorageFull,
)

# Serialisation failure, deadlock; and a row that is there, or is gone, though the services have looked: another writer
# committed in between, and the second run finds what it did.
_RUN_AGAIN = frozenset({"40001", "40P01", "23505", "23503"})

_FAULTS: dict[str, tuple[type[MiraiMemoryError], str]] = {
    "40001": (Busy, "other writers were faster several times over; nothing was changed, try again"),
    "40P01": (Busy, "other writers were faster several times over; nothing was changed, try again"),
    "55P03": (Busy, "a lock was not free within memory.busy_timeout_ms; nothing was changed, try again"),
    "57014": (Busy, "the statement took longer than its time limit; nothing was changed"),
    "53300": (Busy, "the server has no connection to spare; try again"),
    "53100": (StorageFull, "the server's disk is full; nothing was changed"),
    "25006": (ReadOnly, "the server allows no writing here (a standby, or a read-only transaction)"),
    "42501": (
        StorageError,
        "the database role lacks a privilege that is needed; the README says which statements GRANT it",
    ),
    "42P01": (SchemaOutOfDate, "a table is missing; run: mirai-memory db upgrade --db URL"),
    "42703": (SchemaOutOfDate, "a column is missing; run: mirai-memory db upgrade --db URL"),
    "3F000": (SchemaOutOfDate, "the schema is missing; run: mirai-memory db upgrade --db URL"),
    "3D000": (StorageError, "the database does not exist on this server"),
    "28P01": (StorageError, "the server refused the password"),
    "28000": (StorageError, "the server refused the login"),
    "XX001": (Corrupt, "the server reports damaged data"),
    "XX002": (Corrupt, "the server reports a damaged index"),
}


# A connection that is refused has no SQLSTATE for the driver, only words. In another language than the server's default
# they are not known, and the fault is then the general one.
_REFUSALS = {
    "too many clients": "53300",
    "too many connections": "53300",
    "connection slots": "53300",
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
}

_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ"  # one view for all statements


def _begins(options: Options) -> dict[bool, str]:
    """What begins a transaction, by whether it writes. Limits hold for it alone: one of the connection would reach
    others through a pooler."""
    limit = f"SET LOCAL statement_timeout = {options.statement_timeout_ms}"
    # For a server, 0 is no limit; of a lock it means here what it means on SQLite, not to wait. A read waits for none
    # but that of a migration.
    lock = f"SET LOCAL lock_timeout = {max(1, options.busy_timeout_ms)}"
    return {True: f"BEGIN; {limit}; {lock}", False: f"{_BEGIN_READING}; {limit}"}


class _LostBeforeItBegan(psycopg.OperationalError):
    """A connection that had died in the pool: nothing of the transaction was seen."""


class _Connection(psycopg.Connection[Any]):
    """Sends what begins a read along with the first statement of it: a round trip less, of three for a short one."""

    unsent = ""

    def cursor(self, *args: Any, **options: Any) -> Any:
        if self.unsent and not args and not options:
            return _FirstCursor(self)
        self.begin_by_itself()
        return super().cursor(*args, **options)

    def begin_by_itself(self) -> None:
        begin, self.unsent = self.unsent, ""
        if begin:
            with self.beginning():
                super().cursor().execute(begin.encode())

    @contextmanager
    def beginning(self) -> Iterator[None]:
        try:
            yield
        except psycopg.OperationalError as error:
            if self.broken:
                raise _LostBeforeItBegan(str(error)) from error
            raise

    def rollback(self) -> None:
        self.unsent = ""
        super().rollback()


class _FirstCursor(psycopg.ClientCursor[Any]):
    """Several statements in one message cannot have their values beside them: this one writes them in, quoted."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection: Any = self.connection
        if not isinstance(query, str):
            connection.begin_by_itself()
        if not connection.unsent:
            return super().execute(query, params, **options)
        begin, connection.unsent = connection.unsent, ""
        with connection.beginning():
            super().execute(f"{begin}; {query}", params, **options)
        while self.nextset():
            pass
        return self

    def executemany(self, *args: Any, **options: Any) -> None:
        self.connection.begin_by_itself()  # type: ignore[attr-defined]
        super().executemany(*args, **options)


def _connect(dialect: Dialect, record: object, args: list[Any], values: dict[str, Any]) -> _Connection:
    return _Connection.connect(*args, **values)


class PostgreSQL:
    """The dialect's part of ``database.engine``."""

    forks = True

    def __init__(self) -> None:
        self._begin, self._most = _begins(Options()), Options().pool_size

    def create_engine(self, url: URL, options: Options, **arguments: Any) -> Engine:
        migrates = not options.schema
        engine = create_engine(
            url,
            hide_parameters=True,
            json_serializer=dump_json,
            json_deserializer=load_json,
            # Statements that are prepared belong to a connection, and a pooler gives the next transaction another one.
            connect_args=_unless_named(url, connect_timeout=10, fallback_application_name="mirai_memory")
            | {"prepare_threshold": None},
            # We begin and end our transactions ourselves.
            **({} if migrates else {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}),
            **({} if "poolclass" in arguments else {"pool_size": options.pool_size, "max_overflow": 0}),
            **arguments,
        )
        if migrates:
            return engine
        self._begin, self._most = _begins(options), options.pool_size
        event.listen(engine, "do_connect", _connect)
        # Our tables live in our own schema. Written into the statements, since a search_path would be session-level
        # state, which a pooler in transaction mode mixes up.
        return engine.execution_options(schema_translate_map={None: options.schema})

    def begin(self, db: Db, *, write: bool, later: bool = False) -> RootTransaction | None:
        """In one round trip, with the time-outs of the settings, and straight on the driver.

        That is where a connection shows that it has died in the pool: it is replaced. In the middle of a unit of work
        it is an error.
        """
        begin = self._begin[write]
        if later:
            driver_of(db).unsent = begin
            return None
        for _ in range(self._most):
            try:
                driver_of(db).execute(begin)
                break
            except psycopg.OperationalError:
                if not driver_of(db).broken:
                    raise
                db.invalidate()  # the next one may have died with it; those that are at work may not
        else:
            driver_of(db).execute(begin)
        return db.begin() if write else None

    def translate(self, error: BaseException) -> MiraiMemoryError | None:
        if not isinstance(error, psycopg.Error):
            return None
        state = error.sqlstate or _refusal(error)
        if state in _FAULTS:
            fault, message = _FAULTS[state]
            return fault(message)
        if state.startswith("23"):
            return Conflict("row", "", "a rule of the schema would be broken; nothing was changed")
        if state.startswith("22"):
            return InvalidInput("value", f"is outside what the server stores (SQLSTATE {state})")
        if state.startswith(("08", "57")) or not state:
            return StorageError("the server cannot be reached, or closed the connection")
        return StorageError(f"the server failed with SQLSTATE {state}")

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, psycopg.Error) and error.sqlstate in _RUN_AGAIN

    def never_began(self, error: BaseException) -> bool:
        return isinstance(error, _LostBeforeItBegan)

    def damages(self, db: Db) -> int:
        """What the server itself has noticed; its pages cannot be read from here."""
        noticed = text("SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()")
        return int(db.execute(noticed).scalar() or 0)

    def compact(self, db: Db) -> Compaction:
        return vacuuming.vacuum(db)

    def remains(self, db: Db, done: Compaction) -> tuple[Remains, ...]:
        return vacuuming.remains(db, done)

    def truncate_log(self, db: Db) -> bool:
        """The server's own business."""
        return True

    def writer_queue(self, url: URL, options: Options) -> None:
        """The server has locks of its own, which are fair."""
        return

    def seats(self, options: Options) -> Seats:
        return Seats(options.pool_size, wait_s=options.busy_timeout_ms / 1000)

    def estimated_rows(self, db: Db, tables: Mapping[str, str | None]) -> dict[str, int]:
        return catalogue.estimated_rows(db, tables)

    def size_bytes(self, db: Db) -> int:
        statement = text(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
        )
        return int(db.execute(statement, {"schema": catalogue.schema_of(db)}).scalar_one())


def _unless_named(url: URL, **parameters: str | int) -> dict[str, str | int]:
    """What libpq is told beside the URL, which wins: arguments would win over it."""
    return {name: value for name, value in parameters.items() if name not in url.query}


def _refusal(error: psycopg.Error) -> str:
    """The SQLSTATE that goes with the words of a connection that was refused; empty where it is not known."""
    said = str(error)
    state = next((state for words, state in _REFUSALS.items() if words in said), "")
    return state or ("3D000" if 'database "' in said and "does not exist" in said else "")
