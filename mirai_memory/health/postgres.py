"""Checks that are true of PostgreSQL only."""

from __future__ import annotations

import time
from datetime import timedelta

from sqlalchemy import text

from mirai_memory.database import Db
from mirai_memory.database.engine import driver_of
from mirai_memory.database.migrating import quoted
from mirai_memory.health.report import Finding, Skip, counted, error, ok, warning

OLDEST, NEWEST = 15, 18
# Of two billion, after which the server refuses to write; autovacuum begins at a tenth of that.
OLD_TRANSACTIONS = 1_000_000_000
DEAD_ROWS = 100_000
CLOCKS_APART = timedelta(minutes=1)

_INVALID = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND NOT i.indisvalid ORDER BY 1"
)
_AGE = (
    "SELECT coalesce(max(age(c.relfrozenxid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind = 'r'"
)
_BLOATED = (
    "SELECT relname FROM pg_stat_user_tables WHERE schemaname = :schema AND n_dead_tup >= :dead "
    "AND n_dead_tup > n_live_tup ORDER BY n_dead_tup DESC"
)
_USED = "SELECT sum(numbackends) FROM pg_stat_database"
_ALLOWED = (
    "SELECT sum(CASE name WHEN 'max_connections' THEN 1 ELSE -1 END * setting::integer) FROM pg_settings "
    "WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
)


def engine(db: Db) -> Finding:
    version = str(db.exec_driver_sql("SHOW server_version").scalar_one())
    major = int(db.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    detail = f"PostgreSQL {version}, {_channel(db)}, {_extension(db)}"
    if OLDEST <= major <= NEWEST:
        return ok(detail)
    return warning(f"{detail}, with which mirai-memory is not tested", f"use PostgreSQL {OLDEST} to {NEWEST}")


def _channel(db: Db) -> str:
    """How what is said is protected on its way: by what was agreed on, whatever the URL asks for."""
    driver = driver_of(db)
    if not driver.pgconn.ssl_in_use:
        return "through a local socket" if (driver.info.host or "/").startswith("/") else "not encrypted"
    # What the server speaks with a pooler may be something else than what the pooler speaks with us.
    return str(db.exec_driver_sql("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar() or "TLS")


def _extension(db: Db) -> str:
    version = db.exec_driver_sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'").scalar()
    return "without the extension vector" if version is None else f"with the extension vector {version}"


def connections(db: Db, pool_size: int) -> Finding:
    """Whether the server has enough for one more process."""
    used = int(db.exec_driver_sql(_USED).scalar_one())
    allowed = int(db.exec_driver_sql(_ALLOWED).scalar_one())
    detail = f"{used} of {allowed} are in use; a process of this memory may have {pool_size}"
    if used + pool_size <= allowed:
        return ok(detail)
    advice = "lower memory.pool_size, raise the server's max_connections, or put a pooler in between"
    return warning(f"{detail}, for which there is no room", advice)


def clock(db: Db) -> Finding:
    before = time.time()
    server = float(db.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    after = time.time()
    apart = max(before - server, server - after, 0.0)
    if apart <= CLOCKS_APART.total_seconds():
        return ok("that of the server and that of this machine agree")
    return warning(
        f"that of the server and that of this machine are {timedelta(seconds=round(apart))} apart",
        "set both by NTP: of several machines, each dates what it stores by its own clock",
    )


def tables(db: Db, schema: str) -> Finding:
    """Whether indexes are used and VACUUM keeps up: what the server knows without reading the tables."""
    place = {"schema": schema}
    invalid = db.execute(text(_INVALID), place).scalars().all()
    if invalid:
        mend = "; ".join(f"REINDEX INDEX CONCURRENTLY {quoted(schema)}.{quoted(name)}" for name in invalid)
        return warning(f"not valid, and not used: {', '.join(invalid)}", f"run: {mend}")
    age = int(db.execute(text(_AGE), place).scalar_one())
    if age > OLD_TRANSACTIONS:
        advice = "look for transactions, slots and prepared ones that are never ended; then run VACUUM (FREEZE)"
        return warning(f"not frozen for {age:,} transactions, of two billion at most", advice)
    bloated = db.execute(text(_BLOATED), {**place, "dead": DEAD_ROWS}).scalars().all()
    if bloated:
        mend = "; ".join(f"VACUUM (ANALYZE) {quoted(schema)}.{quoted(name)}" for name in bloated)
        return warning(f"more dead rows than living ones in {', '.join(bloated)}", f"run: {mend}")
    return ok(f"indexes are valid, dead rows are swept, frozen {age:,} transactions ago")


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
