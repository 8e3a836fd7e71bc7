"""The seam between services and an engine's index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlalchemy import CTE, ColumnElement

from mirai_memory.database import Db
from mirai_memory.errors import SchemaOutOfDate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ItemKind = Literal["message", "knowledge"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands and what it tells beyond its words, as the signals of context want it."""

    session: int
    position: int
    speaker: str
    cues: int
    time: int  # microseconds since 1970


@dataclass(frozen=True, slots=True)
class Entry:
    """One item to index: its id, its owner ('' = shared), its analysed terms with repeats, a message's place."""

    id: int
    user_id: str
    terms: Sequence[str]
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One found item; ``score`` is comparable within one result, and is the sum of what ``explain`` returns."""

    id: int
    score: float
    explain: Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class QueryVector:
    """What is asked as a vector of length 1, and the model that made it."""

    model: str
    values: NDArray[np.float32]

    @classmethod
    def of(cls, model: str, numbers: Sequence[float]) -> QueryVector:
        """From numbers of any length; nothing is near to zeros."""
        import numpy as np

        values = np.asarray(numbers, dtype=np.float32)
        return cls(model, values / max(float(np.linalg.norm(values)), 1e-30))


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: as text, and as a vector where there is an embedder."""

    text: str
    vector: QueryVector | None = None

    @classmethod
    def of(cls, query: Query | str) -> Query:
        return cls(query) if isinstance(query, str) else query


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Messages of one session, said from ``since`` on and before ``until`` (microseconds since 1970); None is any."""

    session_id: str | None = None
    since: int | None = None
    until: int | None = None


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

    def append_values(self, terms: Sequence[str], place: Place) -> dict[str, Any] | None:
        """The values of ``append_parts`` for a message that is found by ``terms``.

        None where it has to be added by itself: it is too large, or a statement of the engine changes one table only.
        """

    def append_parts(self, stored: CTE) -> list[CTE]:
        """Parts of one statement that index the message which its part ``stored`` inserts, and returns the ``id``,
        ``user_id`` and ``position`` of."""

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        """Ids that are not indexed are passed over."""

    def hold(self, db: Db, kind: ItemKind, owners: Collection[str]) -> None:
        """Nobody else changes the index of these owners until the transaction ends.

        For those who are about to hold rows of items in an order that only chance knows: of two such, each would else
        wait for what the other has.
        """

    def vectors_changed(self, db: Db, kind: ItemKind, user_id: str) -> None:
        """To be called before vectors of the owner are written, and in the same transaction."""

    def vectors_stored(self, db: Db, rows: Sequence[Mapping[str, Any]]) -> None:
        """To be called after rows of ``embeddings`` were written, and in the same transaction."""

    def vectors_gone(self, db: Db, kind: ItemKind, user_id: str) -> None:
        """To be called where vectors of the owner are deleted and their items stay, in the same transaction."""

    def forget(self, db: Db, user_id: str, *, limit: int) -> int:
        """Delete what the index has of the owner beyond their items, about ``limit`` rows; how many went."""

    def drop_cached(self) -> None:
        """Keep nothing in memory of what was read."""

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        """A step of bringing the engine's files in order, so that nothing deleted is left; whether there is more."""

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        """The items of which the engine finds other words than their rows of the index have."""

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        """Have the engine find exactly the words that the rows have."""

    def mend(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        """Write these items' rows anew; what the scopes count is left as it is."""

    def messages(
        self, db: Db, query: Query, scope: Scope, *, limit: int, only: MessageFilter, shared: bool
    ) -> list[Hit]:
        """The best messages, best first. ``shared``: what is read of the scope may be kept for later searches."""

    def knowledge(
        self,
        db: Db,
        query: Query,
        scope: Scope,
        *,
        limit: int,
        narrow: Sequence[ColumnElement[bool]],
        always: Sequence[ColumnElement[bool]],
        shared: bool,
    ) -> list[Hit]:
        """The best facts, best first.

        ``narrow`` are conditions on the fact's row that leave few of them and are looked at first; ``always`` are
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

    def append_parts(self, stored: CTE) -> list[CTE]:
        raise self._error()

    def append_values(self, terms: Sequence[str], place: Place) -> dict[str, Any] | None:
        raise self._error()

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        raise self._error()

    def hold(self, db: Db, kind: ItemKind, owners: Collection[str]) -> None:
        raise self._error()

    def vectors_changed(self, db: Db, kind: ItemKind, user_id: str) -> None:
        raise self._error()

    def vectors_stored(self, db: Db, rows: Sequence[Mapping[str, Any]]) -> None:
        raise self._error()

    def vectors_gone(self, db: Db, kind: ItemKind, user_id: str) -> None:
        raise self._error()

    def forget(self, db: Db, user_id: str, *, limit: int) -> int:
        raise self._error()

    def drop_cached(self) -> None:
        return

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        raise self._error()

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        raise self._error()

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        raise self._error()

    def mend(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        raise self._error()

    def messages(self, db: Db, query: Query, scope: Scope, **options: Any) -> list[Hit]:
        raise self._error()

    def knowledge(self, db: Db, query: Query, scope: Scope, **options: Any) -> list[Hit]:
        raise self._error()

    def _error(self) -> SchemaOutOfDate:
        return SchemaOutOfDate("the word index was made by another version; open the memory once for writing")
