"""Checks that are true of PostgreSQL only."""

from __future__ import annotations

from mirai_memory.database import Db
from mirai_memory.health.report import Finding, Skip, counted, error, ok, warning

OLDEST, NEWEST = 15, 18


def engine(db: Db) -> Finding:
    version = str(db.exec_driver_sql("SHOW server_version").scalar_one())
    major = int(db.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    detail = f"PostgreSQL {version}"
    if OLDEST <= major <= NEWEST:
        return ok(detail)
    return warning(f"{detail}, with which mirai-memory is not tested", f"use PostgreSQL {OLDEST} to {NEWEST}")


def writing(db: Db) -> Finding:
    if db.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on":
        return warning("the server allows no writing here: a standby, or read-only by its settings", "use the primary")
    return ok("the server allows it")


def integrity(db: Db) -> Finding:
    """What the server itself has noticed; its pages cannot be read from here."""
    statement = "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
    failures = db.exec_driver_sql(statement).scalar()
    if failures is None:
        raise Skip("the server does not use checksums, and counts no damaged pages")
    if failures:
        return error(f"the server has met {counted(int(failures), 'damaged page')}", "restore a backup")
    return ok("the server has met no damaged page")
