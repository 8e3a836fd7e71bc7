"""Finding items again: one analyser, one seam, an index for each engine."""

from __future__ import annotations

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


def open_index(database: Database, *, cache_mb: int) -> SearchIndex:
    """The index that belongs to the engine, which may keep ``cache_mb`` megabytes of what it has read."""
    if database.url.get_backend_name() == "sqlite":
        from mirai_memory.search.sqlite import SQLiteIndex

        return Index(SQLiteIndex(), cache_mb=cache_mb)
    from mirai_memory.search.postgres import PostgresIndex

    return Index(PostgresIndex(), cache_mb=cache_mb)
