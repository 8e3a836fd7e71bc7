"""Word search on PostgreSQL: the postings are a GIN index over ``tsvector``s that hold the same tokens as SQLite's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, TSVECTOR
from sqlalchemy.dialects.postgresql import insert as upsert

from mirai_memory.database import Db
from mirai_memory.search.base import ItemKind
from mirai_memory.search.postings import SCOPES, WORDS, PostingsIndex

# A tsvector holds at most 1 MB of lexemes; what a longer text has beyond that is not found by words.
_MAX_LEXEME_BYTES = 900_000
_BATCH = 500  # rows that are compared at once

_MORE = MetaData()
_ROWS = {
    kind: Table(words.name, _MORE, Column("rowid", BigInteger), Column("terms", Text), Column("lexemes", TSVECTOR))
    for kind, words in WORDS.items()
}
_INSERT = {
    kind: insert(rows).values(
        rowid=bindparam("id"),
        terms=bindparam("terms"),
        lexemes=func.array_to_tsvector(bindparam("tokens", type_=ARRAY(Text))),
    )
    for kind, rows in _ROWS.items()
}


def _count_in_statement() -> Any:
    new = upsert(SCOPES).values(
        kind=bindparam("new_kind"),
        user_id=bindparam("new_user_id"),
        item_count=bindparam("new_items"),
        term_count=bindparam("new_terms"),
    )
    counts = {
        "item_count": SCOPES.c.item_count + new.excluded.item_count,
        "term_count": SCOPES.c.term_count + new.excluded.term_count,
    }
    return new.on_conflict_do_update(index_elements=["kind", "user_id"], set_=counts).returning(SCOPES.c.id)


_COUNT_IN = _count_in_statement()


class PostgresIndex(PostingsIndex):
    """The ``SearchIndex`` of a PostgreSQL schema."""

    def _count_in(self, db: Db, kind: ItemKind, user_id: str, items: int, terms: int) -> int:
        counts = {"new_kind": kind, "new_user_id": user_id, "new_items": items, "new_terms": terms}
        return int(db.execute(_COUNT_IN, counts).scalar_one())

    def _insert(self, db: Db, kind: ItemKind, rows: list[dict[str, Any]]) -> None:
        db.execute(_INSERT[kind], [{**row, "tokens": _distinct(row["terms"])} for row in rows])

    def _matches(self, kind: ItemKind) -> ColumnElement[bool]:
        return literal_column("lexemes", TSVECTOR).op("@@")(cast(bindparam("query", type_=Text), TSQUERY))

    def _query(self, term: str, suffixes: Sequence[str]) -> str:
        # Quoted, a lexeme is taken as it is; a term has neither quotes nor backslashes.
        return " | ".join(f"'{term}{suffix}'" for suffix in suffixes) if suffixes else f"'{term}@':*"

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        return False  # the server's VACUUM does it

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        return {row["id"] for wrong in _wrong(db, kind) for row in wrong}

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        rows = _ROWS[kind]
        anew = update(rows).where(rows.c.rowid == bindparam("id"))
        tokens = func.array_to_tsvector(bindparam("tokens", type_=ARRAY(Text)))
        for wrong in _wrong(db, kind):
            if wrong:
                db.execute(anew.values(lexemes=tokens), wrong)


def _wrong(db: Db, kind: ItemKind) -> Iterator[list[dict[str, Any]]]:
    """Rows whose lexemes are not their tokens, with those, batch by batch."""
    rows = _ROWS[kind]
    lexemes = func.tsvector_to_array(rows.c.lexemes, type_=ARRAY(Text))
    statement = select(rows.c.rowid, rows.c.terms, lexemes.label("found")).order_by(rows.c.rowid).limit(_BATCH)
    last = 0
    while batch := db.execute(statement.where(rows.c.rowid > last)).all():
        tokens = {row.rowid: _distinct(row.terms) for row in batch}
        wrong = [row.rowid for row in batch if set(row.found) != set(tokens[row.rowid])]
        yield [{"id": id, "tokens": tokens[id]} for id in wrong]
        last = batch[-1].rowid


def _distinct(tokens: str) -> list[str]:
    kept, size = [], 0
    for token in dict.fromkeys(tokens.split()):
        size += len(token.encode()) + 4
        if size > _MAX_LEXEME_BYTES:
            break
        kept.append(token)
    return kept
