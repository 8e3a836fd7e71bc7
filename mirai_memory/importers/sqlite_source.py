"""Databases of others as sources: opened read-only by SQLite itself, read row by row, types as they come."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mirai_memory import _checks
from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import SourceError
from mirai_memory.importers.json_text import MAX_VALUE, NotJson, decode

Tables = Mapping[str, frozenset[str]]

_REASONS = {
    "SQLITE_BUSY": "another process is writing to it; try again",
    "SQLITE_CORRUPT": "the database is damaged here",
    "SQLITE_NOTADB": "the file is damaged or is no SQLite database",
    "SQLITE_TOOBIG": f"a value of more than {MAX_VALUE >> 20} MiB",
    "SQLITE_FULL": "no space is left for temporary files",
}


def tables(path: Path) -> Tables | None:
    """The columns of every table; None where the file is no SQLite database, or none that can be opened."""
    try:
        with opened(path) as connection:
            return _tables(connection)
    except SourceError:
        return None


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection that sees one unchanging state. Raises SourceError, for what is done inside too."""
    try:
        with closing(_connect(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise SourceError(_reason(error)) from None


def _connect(path: Path) -> sqlite3.Connection:
    target = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        return _begun(target)
    except sqlite3.OperationalError as error:
        # A WAL needs files beside it, which a read-only folder has no place for; without one nothing is missed.
        log = path.with_name(path.name + "-wal")
        if not path.is_file() or _name(error) != "SQLITE_CANTOPEN" or (log.exists() and log.stat().st_size):
            raise
    return _begun(target + "&immutable=1")


def _begun(target: str) -> sqlite3.Connection:
    connection = sqlite3.connect(target, uri=True, isolation_level=None)
    try:
        # Text as bytes: one that is no UTF-8 is then the fault of its row. Values are bounded like those of JSON.
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _tables(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    statement = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(statement):
        found.setdefault(table.decode("utf-8", "replace").lower(), set()).add(column.decode("utf-8", "replace").lower())
    return {table: frozenset(columns) for table, columns in found.items()}


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    return name in _tables(connection)


def _name(error: sqlite3.Error) -> str:
    name = str(getattr(error, "sqlite_errorname", ""))
    return "_".join(name.split("_")[:2])  # SQLITE_CORRUPT_VTAB is one more SQLITE_CORRUPT


def _reason(error: sqlite3.Error) -> str:
    return _REASONS.get(_name(error), f"SQLite cannot read it: {error}")


def missing(connection: sqlite3.Connection, expected: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What is wrong with each expected table."""
    found, wrong = _tables(connection), {}
    for table, columns in expected.items():
        absent = [column for column in columns if column not in found.get(table, ())]
        if table not in found:
            wrong[table] = "the table is missing"
        elif absent:
            wrong[table] = f"the table has no column {', '.join(absent)}"
    return wrong


def rows(connection: sqlite3.Connection, statement: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, one at a time. Raises SourceError."""
    try:
        yield from connection.execute(statement, values)
    except sqlite3.Error as error:
        raise SourceError(_reason(error)) from None


def index_rows(connection: sqlite3.Connection, statement: str, name: str = "by_session") -> None:
    """Make the table ``name`` (session, place), so that a source without an index is not searched once per session.

    ``statement`` selects its rows. The table is temporary: SQLite keeps it in a file of its own.
    """
    columns = "session TEXT, place INTEGER, PRIMARY KEY (session, place)"
    try:
        connection.execute(f"CREATE TEMP TABLE {name} ({columns}) WITHOUT ROWID")
        connection.execute(f"INSERT INTO {name} {statement}")
    except sqlite3.Error as error:
        raise SourceError(_reason(error)) from None


def text(field: str, value: Any) -> str | None:
    """A text, however the source has stored it."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
        raise InvalidInput(field, "has bytes that are no UTF-8")
    return None if value is None else str(value)


def integer(field: str, value: Any) -> int | None:
    if isinstance(value, bytes) and value.strip():
        with suppress(ValueError):
            value = float(value) if b"." in value else int(value)
    if value is None or value == b"":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _checks.integer(field, value)


def number(field: str, value: Any) -> float | None:
    if isinstance(value, bytes) and value.strip():
        with suppress(ValueError):
            value = float(value)
    return None if value is None or value == b"" else _checks.number(field, value, least=-1e308, most=1e308)


def json_value(field: str, value: Any) -> Any:
    """What a column of JSON holds; None where it is empty."""
    found = text(field, value)
    if found is None or not found.strip():
        return None
    try:
        return decode(found)
    except NotJson as error:
        raise InvalidInput(field, str(error)) from None


def moment(field: str, value: Any, zone: tzinfo | None) -> datetime | None:
    """A time in UTC: a text without a zone is of ``zone`` (None: the machine's), a number counts seconds since 1970."""
    if isinstance(value, (int, float)):
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(value, UTC)
        raise InvalidInput(field, "must be seconds since 1970 (these may be milliseconds)")
    found = text(field, value)
    if found is None or not found.strip():
        return None
    with suppress(ValueError, OverflowError, OSError):
        naive = datetime.fromisoformat(found.strip())
        return (naive if naive.tzinfo or zone is None else naive.replace(tzinfo=zone)).astimezone(UTC)
    raise InvalidInput(field, "is no ISO 8601 time")


def listed(value: Any) -> str:
    """An id of the source as a place is named by it."""
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return json.dumps(shown[:80], ensure_ascii=False)[1:-1]
