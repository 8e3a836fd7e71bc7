"""A migration on a server: whose turn it is, how long it waits, who is in its way, and what its role may do.

All of it is said to one transaction (``SET LOCAL``, locks that end with it): a pooler may give the connection to
somebody else after it, and a process that dies in the middle leaves the schema as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from mirai_memory.errors import Busy, ConfigurationError, StorageError

Tell = Callable[[str], object]

# Whoever comes after a statement that waits for a table waits too, readers included: it lets go and comes again.
TABLE_WAIT_S = 2.0
LOCK_NOT_AVAILABLE = "55P03"
_NAMED = 3  # of those who are in the way
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# That an administrator's time limits for programs cut a migration in two would help nobody.
_LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")

_HOLDERS = (
    "SELECT DISTINCT l.pid, a.application_name, a.usename FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (l.classid::bigint << 32) | l.objid::bigint = hashtext(:turn)::bigint ORDER BY l.pid"
)
_USERS = (
    "SELECT l.pid, a.application_name, a.usename, "
    "string_agg(DISTINCT c.relname, ', ' ORDER BY c.relname) FILTER (WHERE c.relkind IN ('r', 'p')) "
    "FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace "
    "LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'relation' AND l.granted AND n.nspname = :schema "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.pid IS DISTINCT FROM pg_backend_pid() GROUP BY 1, 2, 3 ORDER BY 1"
)
_OWNERS = (
    "SELECT DISTINCT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'S') AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a migration waits for others in all, and how long one statement of it may take (0: for ever)."""

    lock_s: float = 120.0
    statement_s: float = 0.0


def checked_schema(name: str) -> str:
    """The name of a schema that needs no quotes. Raises ConfigurationError for any other, and for the server's own."""
    if not _NAME.fullmatch(name) or name.startswith("pg_") or name == "information_schema":
        raise ConfigurationError(
            "the schema's name must be of small Latin letters, digits and underscores, at most 63, not begin with a "
            "digit, and be none of the server's own (pg_..., information_schema)"
        )
    return name


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def begin(db: Connection, schema: str, patience: Patience, tell: Tell) -> None:
    """In a transaction that has just begun: wait for our turn, make the schema, and bound what comes.

    Raises Busy where another migration of the schema takes too long, StorageError where the schema may not be made.
    """
    # What the migration before us has done must be seen, whatever isolation is the default of role or database.
    db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    for name in _LIMITS:
        _limit(db, name, patience.statement_s if name == "statement_timeout" else 0)
    _take_turn(db, schema, patience.lock_s, tell)
    if not inspect(db).has_schema(schema):
        _make_schema(db, schema)
    db.exec_driver_sql(f"SET LOCAL search_path TO {quoted(schema)}")
    _limit(db, "lock_timeout", max(0.001, min(TABLE_WAIT_S, patience.lock_s)))


def _limit(db: Connection, name: str, seconds: float) -> None:
    # Asked of the list of settings, since not every version has each.
    statement = text("SELECT set_config(name, :value, true) FROM pg_settings WHERE name = :name")
    db.execute(statement, {"name": name, "value": str(round(1000 * seconds))})


def _take_turn(db: Connection, schema: str, wait_s: float, tell: Tell) -> None:
    turn = {"turn": turn_of(schema)}
    if db.execute(text("SELECT pg_try_advisory_xact_lock(hashtext(:turn)::bigint)"), turn).scalar_one():
        return
    who = _named(db.execute(text(_HOLDERS), turn).all())
    tell(f"waiting for {who}, which migrates schema {schema}; {wait_s:g} s at most")
    _limit(db, "lock_timeout", max(0.001, wait_s))
    try:
        db.execute(text("SELECT pg_advisory_xact_lock(hashtext(:turn)::bigint)"), turn)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        late = f"{who} had not ended its migration of schema {schema} within {wait_s:g} s; nothing was changed"
        raise Busy(f"{late}. Wait for it, or give more time: --lock-timeout SECONDS") from None


def turn_of(schema: str) -> str:
    """The name of the lock under which a schema is migrated; its hash is the key."""
    return f"mirai:{schema}"


def _make_schema(db: Connection, schema: str) -> None:
    role, database = db.execute(text("SELECT current_user, current_database()")).one()
    if not db.execute(text("SELECT has_database_privilege(current_database(), 'CREATE')")).scalar_one():
        raise StorageError(
            f"role {role} may not make the schema {schema} in database {database}; an administrator has to run: "
            f"CREATE SCHEMA {quoted(schema)} AUTHORIZATION {quoted(role)}"
        )
    db.exec_driver_sql(f"CREATE SCHEMA {quoted(schema)}")


def require_rights(db: Connection, schema: str) -> None:
    """Raise StorageError, with the statement for an administrator, where the role may not change the tables."""
    role = str(db.execute(text("SELECT current_user")).scalar_one())
    owners = db.execute(text(_OWNERS), {"schema": schema}).scalars().all()
    if owners:
        grants = "; ".join(f"GRANT {quoted(owner)} TO {quoted(role)}" for owner in owners)
        raise StorageError(
            f"the tables of schema {schema} belong to role {', '.join(owners)}; migrate as that role, or an "
            f"administrator runs: {grants}"
        )
    allowed = "SELECT has_schema_privilege(:schema, 'USAGE') AND has_schema_privilege(:schema, 'CREATE')"
    if not db.execute(text(allowed), {"schema": schema}).scalar_one():
        raise StorageError(
            f"role {role} may make no tables in schema {schema}; an administrator has to run: "
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)}"
        )


def users_of(db: Connection, schema: str) -> str:
    """Who has tables of the schema locked, in words."""
    return _named(db.execute(text(_USERS), {"schema": schema}).all())


def _named(found: Sequence[Any]) -> str:
    named = [_process(*row) for row in found[:_NAMED]]
    if len(found) > _NAMED:
        named.append(f"{len(found) - _NAMED} more")
    return " and ".join(named) or "another transaction"


def _process(pid: int | None, application: str | None, role: str | None, tables: str | None = None) -> str:
    of = ", ".join(f"{noun} {name}" for noun, name in (("application", application), ("role", role)) if name)
    who = "a prepared transaction" if pid is None else f"process {pid}" + (f" ({of})" if of else "")
    return f"{who} in {tables}" if tables else who


# What a script for an administrator says beside the migration itself.


def script_head(schema: str, start: str | None, version_table: str) -> list[str]:
    """The statements before those of the migration: the same lock and limits, and a refusal where it would not fit."""
    place = quoted(schema)
    turn = turn_of(schema)  # of checked letters
    if start is None:
        fits = f"to_regclass('{place}.parked_sessions') IS NULL"
        otherwise = "rows are parked in this schema: upgrade with mirai-memory db upgrade, which takes them back"
    else:
        fits = f"(SELECT version_num FROM {place}.{version_table}) = '{start}'"  # noqa: S608 - names of ours
        otherwise = f"the schema is not at revision {start}, from which this script goes on"
    steps = [
        f"PERFORM pg_advisory_xact_lock(hashtext('{turn}'))",
        f"IF ({fits}) IS NOT TRUE THEN RAISE EXCEPTION '{otherwise}'; END IF",
    ]
    if start is None:
        steps.append(f"IF to_regnamespace('{place}') IS NULL THEN CREATE SCHEMA {place}; END IF")
    return [
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        *(f"SET LOCAL {name} = 0" for name in _LIMITS[:2]),
        f"DO $$ BEGIN {'; '.join(steps)}; END $$",
        f"SET LOCAL search_path TO {place}",
        f"SET LOCAL lock_timeout = {round(1000 * TABLE_WAIT_S)}",
    ]
