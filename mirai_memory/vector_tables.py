"""pgvector switched on and off: ``enable``, ``disable``, ``status`` of the tables of vectors of a PostgreSQL schema.

An administrator's work, as a migration is: an application neither makes nor drops tables. What a table is of, and how
it is used, stands in ``database.vector_tables``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from mirai_memory import _checks
from mirai_memory.database import migration_engine, resolve_url
from mirai_memory.database.engine import dialect_of, driver_error, driver_of
from mirai_memory.errors import InvalidInput, SchemaOutOfDate
from mirai_memory.schema import DEFAULT_SCHEMA, HEAD_REVISION, current

if TYPE_CHECKING:
    import psycopg

Progress = Callable[[int, int], object]
Url = str | os.PathLike[str] | URL


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStatus:
    """One table: whether searches use it (``ready``), its vectors, and how many of its model it does not have."""

    model: str
    dim: int
    table: str
    ready: bool
    vectors: int
    missing: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``available`` and ``installed`` are versions of pgvector: on the server, and in this database; None is none.

    ``without_table`` are models and dimensions that have vectors and no table: they are searched exactly.
    """

    available: str | None
    installed: str | None
    tables: tuple[TableStatus, ...]
    without_table: tuple[tuple[str, int], ...]

    @property
    def models(self) -> list[tuple[str, int]]:
        """All models and dimensions that have a table or vectors."""
        return sorted({*((table.model, table.dim) for table in self.tables), *self.without_table})

    @property
    def stored(self) -> list[tuple[str, int]]:
        """All models and dimensions that have vectors."""
        return sorted({*((t.model, t.dim) for t in self.tables if t.vectors or t.missing), *self.without_table})

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def enable(
    url: Url,
    *,
    schema: str = DEFAULT_SCHEMA,
    models: Sequence[tuple[str, int]] = (),
    progress: Progress | None = None,
) -> list[tuple[str, int]]:
    """Make, fill and index a table for each model and dimension; which these were.

    Without ``models``, for all that have vectors. Others go on reading and writing meanwhile, and what is done stays
    done: called again, it goes on from there, and brings in what is missing. ``progress(done, total)`` counts vectors.
    Raises StorageError where pgvector is missing and the role may not create it; Busy, InvalidInput, SchemaError.
    """
    from mirai_memory.database import vector_making as making
    from mirai_memory.database.vector_tables import MOST_DIMENSIONS

    for model, dim in models:
        _checks.name("model", model)
        if _checks.integer("dim", dim, least=1) > MOST_DIMENSIONS:
            raise InvalidInput("dim", f"is at most {MOST_DIMENSIONS}: pgvector indexes no more; others stay exact")
    with _connected(url, schema) as connection:
        making.create_extension(connection)
        stored = [(model, dim) for model, dim in making.stored_models(connection, schema) if dim <= MOST_DIMENSIONS]
        wanted = sorted(models) if models else stored
        for model, dim in wanted:
            table = making.make(connection, schema, model, dim)
            making.fill(connection, table, progress)
            making.index(connection, table)
            making.set_ready(connection, table)
    return wanted


def disable(url: Url, *, schema: str = DEFAULT_SCHEMA, models: Sequence[str] = ()) -> list[tuple[str, int]]:
    """Drop the tables, or those of ``models``; whose they were. The vectors stay in ``embeddings``."""
    from mirai_memory.database import vector_making as making
    from mirai_memory.database import vector_tables

    with _connected(url, schema) as connection:
        gone = [t for t in vector_tables.all_tables(connection, schema) if not models or t.model in models]
        for table in gone:
            making.drop(connection, table)
    return [(table.model, table.dim) for table in gone]


def status(url: Url, *, schema: str = DEFAULT_SCHEMA) -> Status:
    """What there is; changes nothing."""
    from mirai_memory.database import vector_making as making
    from mirai_memory.database import vector_tables

    with _connected(url, schema) as connection:
        available, installed = making.versions(connection)
        tables = vector_tables.all_tables(connection, schema)
        known = {(table.model, table.dim) for table in tables}
        states = []
        for table in tables:
            vectors, size = making.size(connection, table)
            states.append(
                TableStatus(
                    model=table.model,
                    dim=table.dim,
                    table=table.name,
                    ready=table.ready,
                    vectors=vectors,
                    missing=making.missing(connection, table),
                    size_bytes=size,
                )
            )
        others = tuple(one for one in making.stored_models(connection, schema) if one not in known)
    return Status(available=available, installed=installed, tables=tuple(states), without_table=others)


@contextmanager
def _connected(url: Url, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database at head that commits each statement by itself."""
    target = resolve_url(url)
    if target.get_backend_name() != "postgresql":
        raise InvalidInput("url", "is of SQLite, which needs no tables of vectors: all are searched exactly")
    revision = current(target, schema=schema)
    if revision != HEAD_REVISION:
        raise SchemaOutOfDate(
            f"the database is at revision {revision or 'none'}, this needs {HEAD_REVISION}; "
            "run: mirai-memory db upgrade --db URL"
        )
    engine = migration_engine(target)
    try:
        with engine.connect() as db:
            connection = driver_of(db)
            connection.autocommit = True
            yield connection
    except Exception as error:
        translated = dialect_of(target).translate(driver_error(error))
        if translated is None:
            raise
        raise translated from driver_error(error)
    finally:
        engine.dispose()
