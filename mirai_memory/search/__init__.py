"""Finding items again: one analyser, one seam, an index for each engine."""

from __future__ import annotations

from mirai_memory.database import Database
from mirai_memory.search.base import Entry, Hit, ItemKind, Scope, SearchIndex, StaleIndex

__all__ = ["Entry", "Hit", "ItemKind", "Scope", "SearchIndex", "StaleIndex", "open_index"]


def open_index(database: Database) -> SearchIndex:
    """The index that belongs to the engine."""
    if database.url.get_backend_name() == "sqlite":
        from mirai_memory.search.sqlite import SQLiteIndex

        return SQLiteIndex()
    from mirai_memory.search.postgres import PostgresIndex

    return PostgresIndex()
