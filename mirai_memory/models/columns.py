"""Column types that mean the same on both engines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from mirai_memory.errors import Corrupt

# SQLite gives a rowid (and AUTOINCREMENT) only to a column declared INTEGER.
BigId: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

# JSON as text on both engines: JSONB would return 1e22 as an integer and reorder keys, and nothing queries inside.
Json: TypeEngine[Any] = JSON(none_as_null=True)

Str = Text  # lengths are rules of the façade, the same on both engines, and not of the schema


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time in, an aware UTC time out; SQLite stores it naive, since it has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return _from_sqlite

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: pass one with a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _from_sqlite(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        pass
    raise Corrupt("a stored time is damaged; restore a backup")
