"""What is true of PostgreSQL only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, RootTransaction, create_engine, text

from mirai_memory.database.engine import Db, Options, dump_json
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

# Of one process: a server takes a hundred unless it is told otherwise. Of these, so many stay open.
_CONNECTIONS, _KEPT = 15, 5
# Serialisation failure, deadlock; and a unique violation: the services look before they insert, so the other writer
# committed in between, and the second run finds its row.
_RUN_AGAIN = frozenset({"40001", "40P01", "23505"})

_FAULTS: dict[str, tuple[type[MiraiMemoryError], str]] = {
    "40001": (Busy, "other writers were faster several times over; nothing was changed, try again"),
    "40P01": (Busy, "other writers were faster several times over; nothing was changed, try again"),
    "55P03": (Busy, "a lock was not free in time; nothing was changed, try again"),
    "57014": (Busy, "the statement took longer than its time limit; nothing was changed"),
    "53300": (Busy, "the server has no connection to spare; try again"),
    "53100": (StorageFull, "the server's disk is full; nothing was changed"),
    "25006": (ReadOnly, "the server allows no writing here (a standby, or a read-only transaction)"),
    "42501": (StorageError, "the database role lacks a privilege that is needed"),
    "42P01": (SchemaOutOfDate, "a table is missing; run: mirai-memory db upgrade --db URL"),
    "42703": (SchemaOutOfDate, "a column is missing; run: mirai-memory db upgrade --db URL"),
    "3F000": (SchemaOutOfDate, "the schema is missing; run: mirai-memory db upgrade --db URL"),
    "3D000": (StorageError, "the database does not exist on this server"),
    "28P01": (StorageError, "the server refused the password"),
    "28000": (StorageError, "the server refused the login"),
    "XX001": (Corrupt, "the server reports damaged data"),
    "XX002": (Corrupt, "the server reports a damaged index"),
}


class PostgreSQL:
    """The dialect's part of ``database.engine``."""

    reading: Mapping[str, Any] = MappingProxyType({"isolation_level": "REPEATABLE READ"})
    forks = True

    def create_engine(self, url: URL, options: Options, **arguments: Any) -> Engine:
        engine = create_engine(
            url,
            hide_parameters=True,
            json_serializer=dump_json,
            # Found dead before a unit of work starts, a connection is replaced; in the middle of one it is an error.
            pool_pre_ping="poolclass" not in arguments,
            **({} if "poolclass" in arguments else {"pool_size": _KEPT, "max_overflow": _CONNECTIONS - _KEPT}),
            connect_args={"connect_timeout": 10},
            **arguments,
        )
        if not options.schema:
            return engine
        # Our tables live in our own schema. Written into the statements, since a search_path would be session-level
        # state, which a pooler in transaction mode mixes up.
        return engine.execution_options(schema_translate_map={None: options.schema})

    def begin(self, db: Db, *, write: bool) -> RootTransaction:
        return db.begin()

    def translate(self, error: BaseException) -> MiraiMemoryError | None:
        if not isinstance(error, psycopg.Error):
            return None
        state = error.sqlstate or ""
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

    def damages(self, db: Db) -> int:
        """What the server itself has noticed; its pages cannot be read from here."""
        noticed = text("SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()")
        return int(db.execute(noticed).scalar() or 0)

    def compact(self, db: Db) -> None:
        schema = db.get_execution_options()["schema_translate_map"][None]
        tables = text("SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY tablename")
        alone = db.execution_options(isolation_level="AUTOCOMMIT")
        quote = db.dialect.identifier_preparer.quote
        for name in alone.execute(tables, {"schema": schema}).scalars().all():
            alone.exec_driver_sql(f"VACUUM {quote(schema)}.{quote(name)}")

    def truncate_log(self, db: Db) -> bool:
        """The server's own business."""
        return True

    def writer_queue(self, url: URL, options: Options) -> None:
        """The server has locks of its own, which are fair."""
        return

    def seats(self, options: Options) -> Seats:
        return Seats(_CONNECTIONS, wait_s=options.busy_timeout_ms / 1000)

    def size_bytes(self, db: Db) -> int:
        schema = db.get_execution_options()["schema_translate_map"][None]
        statement = text(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
        )
        return int(db.execute(statement, {"schema": schema}).scalar_one())
