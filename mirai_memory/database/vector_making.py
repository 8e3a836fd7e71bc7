"""Making, filling and indexing a table of vectors, over an administrator's connection that commits each statement."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql

from mirai_memory.database import vector_tables
from mirai_memory.database.vector_tables import KINDS, VectorTable
from mirai_memory.errors import StorageError

Connection = psycopg.Connection[Any]
Progress = Callable[[int, int], object]

_BATCH: Final = 500  # vectors of one transaction
_LOCK_MS: Final = 1_000
_TRIES: Final = 10
_CREATE = (
    "CREATE TABLE {table} (embedding_id bigint PRIMARY KEY REFERENCES {embeddings} (id) ON DELETE CASCADE, "
    "kind text NOT NULL, user_id text NOT NULL, item_id bigint NOT NULL, vector {half} NOT NULL)"
)
_BY_OWNER = "CREATE INDEX CONCURRENTLY {index} ON {table} (user_id, kind, item_id)"
# One for each kind: a search is for one, and would pass over all of the other.
_NEAREST = (
    "CREATE INDEX CONCURRENTLY {index} ON {table} USING hnsw (vector {extension}.halfvec_cosine_ops) "
    "WHERE kind = {kind}"
)
_INDEXES = (
    "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE i.indrelid = {name}::regclass"
)
_NOT_THERE = (
    "FROM {embeddings} AS e WHERE e.model = {model} AND e.dim = {dim} AND e.status = 'ready' "
    "AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.embedding_id = e.id)"
)
_COUNT_MISSING = f"SELECT count(*) {_NOT_THERE}"
_MISSING = (
    f"SELECT e.id, e.kind, e.item_id, e.model, e.vector {_NOT_THERE} AND e.id > {{last}} ORDER BY e.id LIMIT {_BATCH}"
)
_SIZE = "SELECT count(*), pg_total_relation_size({name}::regclass) FROM {table}"


def versions(connection: Connection) -> tuple[str | None, str | None]:
    """Of pgvector: what the server could create, and what this database has."""
    found = connection.execute(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    return (None, None) if found is None else (found[0], found[1])


def create_extension(connection: Connection) -> None:
    """Raises StorageError, which says who has to do what."""
    available, installed = versions(connection)
    if installed is not None:
        return
    if available is None:
        raise StorageError(
            "the server does not have pgvector; without it vectors are searched exactly. Have it installed on the "
            "server, then run this again"
        )
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege as error:
        raise StorageError(
            "the role may not create the extension; without it vectors are searched exactly. Have an administrator "
            "run in this database: CREATE EXTENSION vector"
        ) from error


def stored_models(connection: Connection, schema: str) -> list[tuple[str, int]]:
    """Models and dimensions that have vectors."""
    statement = sql.SQL("SELECT DISTINCT model, dim FROM {} WHERE status = 'ready' ORDER BY model, dim")
    rows = connection.execute(statement.format(sql.Identifier(schema, "embeddings"))).fetchall()
    return [(str(model), int(dim)) for model, dim in rows]


def make(connection: Connection, schema: str, model: str, dim: int) -> VectorTable:
    """The table, which is made where there is none; it is written from now on, and not searched yet."""
    name = vector_tables.table_name(model, dim)
    for table in vector_tables.all_tables(connection, schema):
        if table.name == name:
            return table
    of_extension = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    found = connection.execute(f"{of_extension} WHERE e.extname = 'vector'".encode()).fetchone()
    assert found is not None
    table = VectorTable(schema, name, model, dim, ready=False, extension=str(found[0]), rows=0)
    _locked(connection, table, "SHARE ROW EXCLUSIVE", _formed(_CREATE, table), _comment(table, ready=False))
    return table


def drop(connection: Connection, table: VectorTable) -> None:
    _locked(connection, table, "ACCESS EXCLUSIVE", _formed("DROP TABLE IF EXISTS {table}", table))


def _locked(connection: Connection, table: VectorTable, mode: str, *statements: sql.Composed) -> None:
    """Run statements while nobody else is at ``embeddings``; whoever comes meanwhile waits, so it is tried briefly."""
    lock = sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(table.schema, "embeddings"), sql.SQL(mode))
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}".encode())
                for statement in (lock, *statements):
                    connection.execute(statement)
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
            time.sleep(random.uniform(0, 2 * _LOCK_MS / 1000))
        else:
            return


def set_ready(connection: Connection, table: VectorTable) -> None:
    """From now on searches use it."""
    connection.execute(_comment(table, ready=True))


def _comment(table: VectorTable, *, ready: bool) -> sql.Composed:
    comment = vector_tables.comment(table.model, table.dim, ready=ready)
    return _formed("COMMENT ON TABLE {table} IS {comment}", table, comment=sql.Literal(comment))


def fill(connection: Connection, table: VectorTable, progress: Progress | None = None) -> int:
    """Vectors that were stored before the table was there; how many. Later ones come by themselves."""
    total = missing(connection, table)
    done, last = 0, 0
    while rows := connection.execute(_formed(_MISSING, table, last=sql.Literal(last))).fetchall():
        last = rows[-1][0]
        names = ("id", "kind", "item_id", "model", "vector")
        _put(connection, table, [dict(zip(names, row, strict=True)) for row in rows])
        done += len(rows)
        if progress is not None:
            progress(done, max(done, total))
    return done


def _put(connection: Connection, table: VectorTable, rows: list[dict[str, Any]]) -> None:
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                vector_tables.put(connection, table, rows)
        except psycopg.errors.DeadlockDetected:  # with whoever deletes several of these vectors
            if not left:
                raise
        else:
            return


def index(connection: Connection, table: VectorTable) -> None:
    """While others write. An index that was left unfinished is made anew."""
    wanted = {f"{table.name}_owner": _formed(_BY_OWNER, table, index=sql.Identifier(f"{table.name}_owner"))}
    for kind in KINDS:
        name = f"{table.name}_{kind}"
        wanted[name] = _formed(_NEAREST, table, index=sql.Identifier(name), kind=sql.Literal(kind))
    valid: dict[str, bool] = dict(connection.execute(_formed(_INDEXES, table)).fetchall())
    for name, create in wanted.items():
        if valid.get(name) is False:
            place = sql.Identifier(table.schema, name)
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(place))
        if not valid.get(name):
            connection.execute(create)
    connection.execute(_formed("ANALYZE {table}", table))


def missing(connection: Connection, table: VectorTable) -> int:
    """How many vectors of its model the table does not have."""
    found = connection.execute(_formed(_COUNT_MISSING, table)).fetchone()
    return int(found[0]) if found else 0


def size(connection: Connection, table: VectorTable) -> tuple[int, int]:
    """How many vectors it has, and how many bytes with its indexes."""
    found = connection.execute(_formed(_SIZE, table)).fetchone()
    return (int(found[0]), int(found[1])) if found else (0, 0)


def _formed(statement: str, table: VectorTable, **more: sql.Composable) -> sql.Composed:
    return sql.SQL(statement).format(
        table=table.place,
        name=sql.Literal(f'"{table.schema}"."{table.name}"'),
        embeddings=sql.Identifier(table.schema, "embeddings"),
        extension=sql.Identifier(table.extension),
        half=vector_tables.half_type(table),
        model=sql.Literal(table.model),
        dim=sql.Literal(table.dim),
        **more,
    )
