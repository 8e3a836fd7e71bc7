"""Tables of vectors on PostgreSQL with pgvector: one for each model and dimension, a projection of ``embeddings``.

A row goes with its row of ``embeddings``, by cascade, and comes with it, by whoever stores that. So nothing has to be
brought up to date, and a table that is dropped can be made again.

Whoever looks for a table has a lock on ``embeddings`` until its transaction ends: a reader one that keeps a table
from being dropped, a writer, which has written there before, one that keeps it from being made. So whoever has seen no
table has committed what the table is then filled with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from mirai_memory.database.catalogue import schema_of
from mirai_memory.database.engine import Db, driver_of

PREFIX: Final = "mirai_vec_"
MOST_DIMENSIONS: Final = 4_000  # of an HNSW index over halfvec
KINDS: Final = ("message", "knowledge")


@dataclass(frozen=True, slots=True)
class VectorTable:
    """One that is there. ``ready``: filled and indexed; until then it is written, and not searched.

    ``extension`` is the schema of pgvector's types and operators, which need not be in the search path; ``rows`` is
    the server's estimate.
    """

    schema: str
    name: str
    model: str
    dim: int
    ready: bool
    extension: str
    rows: int

    @property
    def place(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def table_name(model: str, dim: int) -> str:
    """A model's name may be too long for a table's, and may be any text."""
    return f"{PREFIX}{hashlib.sha256(model.encode()).hexdigest()[:16]}_{dim}"


_EXTENSION = (
    "(SELECT n.nspname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "JOIN pg_namespace n ON n.oid = t.typnamespace WHERE a.attrelid = c.oid AND a.attname = 'vector')"
)
_TABLES = (
    f"SELECT c.relname, c.reltuples, {_EXTENSION}, obj_description(c.oid, 'pg_class') FROM pg_class c "  # noqa: S608
    "WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema}) AND c.relkind = 'r'"
)
# Two statements in one round trip: the second one looks once the lock is held.
_FIND = sql.SQL(f"LOCK TABLE {{embeddings}} IN ACCESS SHARE MODE; {_TABLES} AND c.relname = {{name}}")
_ALL = sql.SQL(f"{_TABLES} AND starts_with(c.relname, {{prefix}}) ORDER BY c.relname")
_INSERT = (
    "INSERT INTO {table} (embedding_id, kind, user_id, item_id, vector) "
    "SELECT id, kind, user_id, item_id, {vector} FROM {embeddings} "
    "WHERE kind = %(kind)s AND item_id = %(item_id)s AND model = %(model)s AND status = 'ready' FOR KEY SHARE "
    "ON CONFLICT (embedding_id) DO UPDATE SET vector = excluded.vector"
)


def find(db: Db, model: str, dim: int) -> VectorTable | None:
    """The table of a model, which stays as it is until the transaction ends."""
    schema, name = schema_of(db), table_name(model, dim)
    embeddings = sql.Identifier(schema, "embeddings")
    cursor = driver_of(db).execute(
        _FIND.format(schema=sql.Literal(schema), name=sql.Literal(name), embeddings=embeddings)
    )
    cursor.nextset()
    row = cursor.fetchone()
    return None if row is None else _table(schema, row, {"model": model, "dim": dim})


def all_tables(connection: psycopg.Connection[Any], schema: str) -> list[VectorTable]:
    rows = connection.execute(_ALL.format(schema=sql.Literal(schema), prefix=sql.Literal(PREFIX))).fetchall()
    return [_table(schema, row, {}) for row in rows]


def _table(schema: str, row: tuple[Any, ...], known: Mapping[str, Any]) -> VectorTable:
    name, rows, extension, comment = row
    # The comment may be younger than what the transaction sees; the table itself is always seen as it is.
    told = {"model": "", "dim": 0, "ready": False} | json.loads(comment or "{}") | known
    return VectorTable(schema, name, told["model"], told["dim"], told["ready"], str(extension), max(0, int(rows)))


def comment(model: str, dim: int, *, ready: bool) -> str:
    return json.dumps({"model": model, "dim": dim, "ready": ready})


def store(db: Db, rows: Iterable[Mapping[str, Any]]) -> None:
    """Have vectors that were just stored in ``embeddings`` in the tables of their models, where there are any."""
    by_model: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ready":
            by_model.setdefault((row["model"], row["dim"]), []).append(row)
    for (model, dim), of_model in sorted(by_model.items(), key=lambda item: item[0]):
        table = find(db, model, dim) if dim <= MOST_DIMENSIONS else None
        if table is not None:
            put(driver_of(db), table, of_model)


def put(connection: psycopg.Connection[Any], table: VectorTable, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows of ``embeddings``: their kind, item_id, model and vector."""
    statement = sql.SQL(_INSERT).format(
        table=table.place,
        embeddings=sql.Identifier(table.schema, "embeddings"),
        vector=sql.SQL("CAST(%(vector)s AS {})").format(half_type(table)),
    )
    values = [
        {"kind": row["kind"], "item_id": row["item_id"], "model": row["model"], "vector": as_text(row["vector"])}
        for row in rows
    ]
    connection.cursor().executemany(statement, values)


def half_type(table: VectorTable) -> sql.Composed:
    return sql.SQL("{}({})").format(sql.Identifier(table.extension, "halfvec"), sql.Literal(table.dim))


def as_text(packed: bytes) -> str:
    """float16 bytes as pgvector reads a vector."""
    import numpy as np

    return str(np.frombuffer(packed, dtype="<f2").astype(np.float32).tolist())
