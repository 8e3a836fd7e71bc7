"""The seam between services and an engine's word index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnElement

from mirai_memory.database import Db
from mirai_memory.errors import SchemaOutOfDate

ItemKind = Literal["message", "knowledge"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One item to index: its id, its owner ('' = shared) and its analysed terms, in order, with repeats."""

    id: int
    user_id: str
    terms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Hit:
    """One found item; ``score`` is comparable within one result."""

    id: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose items a search may see: those of ``owners``, or of everybody where it is None."""

    owners: tuple[str, ...] | None

    @classmethod
    def of(cls, owner: str | None, *, shared: bool = False) -> Scope:
        if owner is None:
            return cls(owners=None)
        return cls(owners=(owner, "") if shared and owner else (owner,))


class SearchIndex(Protocol):
    """A projection of messages and facts that is changed in the same transaction as they are."""

    def is_current(self, db: Db) -> bool:
        """Whether the index was made by this version's analyser."""

    def rebuild(self, db: Db) -> int:
        """Make the index anew from the rows; the number of items."""

    def add(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None: ...

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        """Ids that are not indexed are passed over."""

    def lexical(
        self,
        db: Db,
        kind: ItemKind,
        terms: Sequence[str],
        scope: Scope,
        *,
        limit: int,
        narrow: Sequence[ColumnElement[bool]] = (),
        always: Sequence[ColumnElement[bool]] = (),
    ) -> list[Hit]:
        """The best items that hold any of the terms, best first.

        ``narrow`` are conditions on the item's row that leave few of them and are looked at first; ``always`` are
        true of nearly all rows and looked at last. Both hold for everything returned.
        """


class StaleIndex:
    """In place of an index that another analyser made and that may not be written: a search says so, not nothing."""

    def is_current(self, db: Db) -> bool:
        return False

    def rebuild(self, db: Db) -> int:
        raise self._error()

    def add(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        raise self._error()

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        raise self._error()

    def lexical(self, db: Db, kind: ItemKind, terms: Sequence[str], scope: Scope, **options: Any) -> list[Hit]:
        raise self._error()

    def _error(self) -> SchemaOutOfDate:
        return SchemaOutOfDate("the word index was made by another version; open the memory once for writing")
