"""Word search on SQLite: the postings are FTS5's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, bindparam, insert, literal_column, text

from mirai_memory.database import Db
from mirai_memory.database.hot import HotStatement
from mirai_memory.search.base import ItemKind
from mirai_memory.search.postings import WORDS, PostingsIndex

_COUNT_IN = HotStatement(
    text(
        "INSERT INTO word_scopes (kind, user_id, item_count, term_count) VALUES (:kind, :user_id, :items, :terms) "
        "ON CONFLICT (kind, user_id) DO UPDATE SET item_count = item_count + excluded.item_count, "
        "term_count = term_count + excluded.term_count RETURNING id"
    )
)
_INSERT = {
    kind: HotStatement(insert(words).values(rowid=bindparam("id"), terms=bindparam("terms")))
    for kind, words in WORDS.items()
}


class SQLiteIndex(PostingsIndex):
    """The ``SearchIndex`` of a SQLite file."""

    def _count_in(self, db: Db, kind: ItemKind, user_id: str, items: int, terms: int) -> int:
        counts = {"kind": kind, "user_id": user_id, "items": items, "terms": terms}
        return int(_COUNT_IN.tuples(db, counts)[0][0])

    def _insert(self, db: Db, kind: ItemKind, rows: list[dict[str, Any]]) -> None:
        _INSERT[kind].many(db, rows)

    def _matches(self, kind: ItemKind) -> ColumnElement[bool]:
        return literal_column(WORDS[kind].name).op("MATCH")(bindparam("query", type_=Text))

    def _query(self, term: str, suffixes: Sequence[str]) -> str:
        # A quoted string is one token, whatever it holds, and a term has no quotes: the analyser makes letters,
        # digits and marks only. So nothing that a user writes is query syntax.
        return " OR ".join(f'"{term}{suffix}"' for suffix in suffixes) if suffixes else f'"{term}@"*'
