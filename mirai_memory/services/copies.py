"""Rows of any table by ranges of their keys: read on one database, made the same on another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Table, Text, cast, collate, delete, func, insert, select, text, update
from sqlalchemy import bindparam as bind

from mirai_memory.database.chunks import chunks
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, PreferencesRow, SessionRow, StateRow, TaskRow
from mirai_memory.search import ItemKind
from mirai_memory.search.stored import entries
from mirai_memory.services.base import Service

_STATE = StateRow.table()
_MARK = "copied_from"
# Of one block: what both sides hold in memory of it at a time. A row may have a million characters several times over.
_ROWS, _CHARACTERS = 1_000, 1 << 21

Row = dict[str, Any]
Key = str | int


@dataclass(frozen=True, slots=True)
class Part:
    """A table that is copied: its key, the columns that may be long, and one that is set when all rows are there."""

    table: Table
    key: str
    texts: tuple[str, ...]
    numbered: bool
    link: str | None = None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def copied(self) -> list[str]:
        """The columns that a row is made with."""
        return [column.name for column in self.table.c if column.name != self.link]


# Parents before children. A fact may name one that comes after it: such links are set at the end.
PARTS = (
    Part(SessionRow.table(), "id", ("summary", "metadata"), numbered=False),
    Part(MessageRow.table(), "id", ("content", "tool_calls", "parts", "payload", "metadata"), numbered=True),
    Part(PreferencesRow.table(), "user_id", ("coding_style", "project_context", "metadata"), numbered=False),
    Part(TaskRow.table(), "id", ("description", "result", "metadata"), numbered=True),
    Part(KnowledgeRow.table(), "id", ("value", "metadata"), numbered=True, link="superseded_by"),
    Part(EmbeddingRow.table(), "id", ("vector",), numbered=True),
)

# What has its words in the index.
_KINDS: dict[str, ItemKind] = {"messages": "message", "knowledge": "knowledge"}


class Copies(Service):
    def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        return {
            part.name: int(self._db.execute(select(func.count()).select_from(part.table)).scalar_one())
            for part in PARTS
        }

    # Blocks of rows: those with a key behind ``after`` (None: from the first) and up to ``last`` (None: to the end)

    def block_end(self, part: Part, after: Key | None) -> Key | None:
        """The last key of the next block; None behind the last row."""
        key = self._key(part)
        lengths = [func.coalesce(func.length(_as_text(part.table.c[name])), 0) for name in part.texts]
        statement = select(part.table.c[part.key].label("key"), *lengths).order_by(key).limit(_ROWS)
        last: Key | None = None
        characters = 0
        for row in self._db.execute(statement.where(*self._between(part, after, None))).all():
            last = row[0]
            characters += sum(row[1:])
            if characters > _CHARACTERS:
                break
        return last

    def rows(self, part: Part, after: Key | None, last: Key | None) -> list[Row]:
        statement = select(part.table).where(*self._between(part, after, last)).order_by(self._key(part))
        return [dict(row._mapping) for row in self._db.execute(statement)]

    def keys(self, part: Part, after: Key | None, last: Key | None, *, limit: int | None = None) -> list[Key]:
        statement = select(part.table.c[part.key]).where(*self._between(part, after, last)).order_by(self._key(part))
        return list(self._db.execute(statement.limit(limit)).scalars())

    def _between(self, part: Part, after: Key | None, last: Key | None) -> list[ColumnElement[bool]]:
        key = self._key(part)
        return [
            *([] if after is None else [key > after]),
            *([] if last is None else [key <= last]),
        ]

    def _key(self, part: Part) -> ColumnElement[Any]:
        """In an order that both engines have: by bytes, whatever language the server's database speaks."""
        column = part.table.c[part.key]
        is_text = not part.numbered and self._db.dialect.name == "postgresql"
        return collate(column, "C") if is_text else column

    # Changes

    def delete(self, part: Part, keys: Sequence[Key]) -> None:
        """Delete rows with what the index and others have of them; their own children are gone by then."""
        if part.name in _KINDS:
            self._forget_projections(_KINDS[part.name], [int(key) for key in keys])
        if part.name == "embeddings":
            self._tell_of_vectors(keys, gone=True)
        column = part.table.c[part.key]
        for chunk in chunks(keys):
            self._db.execute(delete(part.table).where(column.in_(chunk)))

    def put(self, part: Part, rows: Sequence[Row], known: Iterable[Key]) -> None:
        """Store rows, in place of those whose keys are ``known``; the word index follows. Links are left alone."""
        there = set(known)
        if part.name == "embeddings":
            # Not changed in place: what others have of a vector goes with its row.
            self.delete(part, sorted(there & {row[part.key] for row in rows}))
            there = set()
        values = [{name: row[name] for name in part.copied} for row in rows]
        changed = [row for row in values if row[part.key] in there]
        if changed:
            self._change(part, changed)
        if len(changed) < len(values):
            self._db.execute(insert(part.table), [row for row in values if row[part.key] not in there])
        self._index_rows(part, [row[part.key] for row in rows])
        if part.name == "embeddings":
            self._index.vectors_stored(self._db, values)

    def _change(self, part: Part, rows: Sequence[Row]) -> None:
        columns: dict[str, Any] = {name: bind(f"new_{name}") for name in part.copied if name != part.key}
        anew = update(part.table).where(part.table.c[part.key] == bind("old_key")).values(columns)
        for row in rows:  # few: what has changed since an earlier run
            self._db.execute(anew, {"old_key": row[part.key]} | {f"new_{name}": row[name] for name in columns})

    def _index_rows(self, part: Part, keys: Sequence[Any]) -> None:
        if part.name == "embeddings":
            self._tell_of_vectors(keys, gone=False)
        if part.name not in _KINDS:
            return
        kind = _KINDS[part.name]
        self._index.remove(self._db, kind, keys)
        for chunk in chunks(keys):
            found = entries(self._db, kind, chunk)
            if found:
                self._index.add(self._db, kind, found)

    def _tell_of_vectors(self, ids: Sequence[Any], *, gone: bool) -> None:
        table = EmbeddingRow.table()
        tell = self._index.vectors_gone if gone else self._index.vectors_changed
        whose: set[tuple[Any, str]] = set()
        for chunk in chunks(ids):
            rows = self._db.execute(select(table.c.kind, table.c.user_id).where(table.c.id.in_(chunk)).distinct())
            whose.update((row.kind, row.user_id) for row in rows)
        for kind, user_id in sorted(whose):
            tell(self._db, kind, user_id)

    def link(self, part: Part, links: Mapping[Key, Any]) -> None:
        assert part.link is not None
        anew = update(part.table).where(part.table.c[part.key] == bind("old_key")).values({part.link: bind("new")})
        for key, value in links.items():
            self._db.execute(anew, {"old_key": key, "new": value})

    # Numbers that were given

    def last_number(self, part: Part) -> int:
        """The highest id that the table has ever given; it never comes back."""
        if self._db.dialect.name == "sqlite":
            given = text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = :name")
            return int(self._db.execute(given, {"name": part.name}).scalar_one())
        sequence = self._db.exec_driver_sql(f"SELECT pg_get_serial_sequence('{self._named(part)}', 'id')").scalar_one()
        last = f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}"  # noqa: S608 - ours
        return int(self._db.exec_driver_sql(last).scalar_one())

    def give_none_below(self, part: Part, number: int) -> None:
        """The next id is higher than ``number``, and than any that was given."""
        last = max(number, self.last_number(part))
        if not last:
            return
        if self._db.dialect.name == "sqlite":
            self._db.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": part.name})
            anew = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)")
            self._db.execute(anew, {"name": part.name, "seq": last})
        else:
            self._db.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{self._named(part)}', 'id'), {last})")

    def _named(self, part: Part) -> str:
        schema = self._db.get_execution_options()["schema_translate_map"][None]
        quote = self._db.dialect.identifier_preparer.quote
        return f"{quote(schema)}.{quote(part.name)}".replace("'", "''").replace("%", "%%")

    # Where this database was copied from

    @property
    def mark(self) -> dict[str, Any] | None:
        value = self._db.execute(select(_STATE.c.value).where(_STATE.c.name == _MARK)).scalar()
        return None if value is None else dict(json.loads(value))

    def set_mark(self, mark: Mapping[str, Any]) -> None:
        self._db.execute(delete(_STATE).where(_STATE.c.name == _MARK))
        self._db.execute(insert(_STATE).values(name=_MARK, value=json.dumps(dict(mark))))


def _as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """JSON has no length of its own on PostgreSQL."""
    return cast(column, Text) if isinstance(column.type, JSON) else column
