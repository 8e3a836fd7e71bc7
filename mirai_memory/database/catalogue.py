"""What a server knows of our tables without reading them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, text

from mirai_memory.database.engine import Db

# The density that the last VACUUM or ANALYZE has found, by the size of today, as the planner reckons. Before the first
# one, reltuples is -1.
_ESTIMATES = text(
    "SELECT c.relname, c.reltuples::float8 / greatest(c.relpages, 1) * pg_relation_size(c.oid) "
    "/ current_setting('block_size')::integer, s.attname, s.null_frac::float8 "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname IN :columns "
    "WHERE n.nspname = :schema AND c.relname IN :tables AND c.relkind = 'r' AND c.reltuples >= 0"
).bindparams(bindparam("tables", expanding=True), bindparam("columns", expanding=True))


def schema_of(db: Db) -> str:
    """The schema in which the tables of this connection's statements are."""
    return str(db.get_execution_options()["schema_translate_map"][None])


def estimated_rows(db: Db, tables: Mapping[str, str | None]) -> dict[str, int]:
    """How many rows each table has, or those with NULL in the named column, as the server reckons."""
    columns = [column for column in tables.values() if column is not None]
    asked = {"schema": schema_of(db), "tables": list(tables), "columns": columns}
    found = {}
    for name, rows, column, nulls in db.execute(_ESTIMATES, asked):
        if tables[name] is None:
            found[name] = round(rows)
        elif column == tables[name]:
            found[name] = round(rows * nulls)
    return found
