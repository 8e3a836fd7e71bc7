"""Engines, and what is true of one database system only."""

from __future__ import annotations

from mirai_memory.database.engine import Database, Db, migration_engine, open_database
from mirai_memory.database.urls import MEMORY, display, resolve_url, sqlite_path

__all__ = ["MEMORY", "Database", "Db", "display", "migration_engine", "open_database", "resolve_url", "sqlite_path"]
