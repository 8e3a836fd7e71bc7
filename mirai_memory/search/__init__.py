"""Finding items again: one analyser, one seam, an index for each engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mirai_memory.database import Database
from mirai_memory.search.base import (
    Entry,
    Hit,
    ItemKind,
    MessageFilter,
    Place,
    Query,
    QueryVector,
    Scope,
    SearchIndex,
    StaleIndex,
)
from mirai_memory.search.index import Index

if TYPE_CHECKING:
    from mirai_memory.search.nearest import VectorStore
    from mirai_memory.search.vectors import Vectors

__all__ = [
    "Entry",
    "Hit",
    "ItemKind",
    "MessageFilter",
    "Place",
    "Query",
    "QueryVector",
    "Scope",
    "SearchIndex",
    "StaleIndex",
    "open_index",
]


def open_index(
    database: Database, *, cache_mb: int, vectors: Callable[[Vectors], VectorStore] | None = None
) -> SearchIndex:
    """The index that belongs to the engine, which may keep ``cache_mb`` megabytes of what it has read.

    ``vectors`` makes another store of vectors of the built-in one.
    """
    if database.url.get_backend_name() == "sqlite":
        from mirai_memory.search.sqlite import SQLiteIndex

        return Index(SQLiteIndex(), cache_mb=cache_mb, vectors=vectors)
    from mirai_memory.search.postgres import PostgresIndex

    return Index(PostgresIndex(), cache_mb=cache_mb, vectors=vectors or _in_tables)


def _in_tables(exact: Vectors) -> VectorStore:
    from mirai_memory.search.table_vectors import TableVectors

    return TableVectors(exact)
