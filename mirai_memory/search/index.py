"""The ``SearchIndex``: an engine's words, and the searches over them. NumPy is loaded by the first search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import CTE, ColumnElement

from mirai_memory.database import Db
from mirai_memory.search import analyzer
from mirai_memory.search.base import Entry, Hit, ItemKind, MessageFilter, Place, Query, Scope
from mirai_memory.search.postings import PostingsIndex

if TYPE_CHECKING:
    from mirai_memory.search.cache import ScopeCache
    from mirai_memory.search.knowledge_search import KnowledgeSearch
    from mirai_memory.search.message_search import MessageSearch
    from mirai_memory.search.nearest import VectorStore
    from mirai_memory.search.vectors import Vectors

_MEGABYTE = 1_000_000


class Index:
    """``vectors`` makes another store of vectors of the built-in exact one, which answers where that one cannot."""

    def __init__(
        self,
        words: PostingsIndex,
        *,
        cache_mb: int,
        vectors: Callable[[Vectors], VectorStore] | None = None,
    ) -> None:
        self._words = words
        self._other_vectors = vectors
        self._cache_bytes = cache_mb * _MEGABYTE
        self._cache: ScopeCache | None = None

    @cached_property
    def _searches(self) -> tuple[MessageSearch, KnowledgeSearch]:
        from mirai_memory.search.cache import ScopeCache
        from mirai_memory.search.knowledge_search import KnowledgeSearch
        from mirai_memory.search.message_search import MessageSearch
        from mirai_memory.search.vectors import Vectors

        self._cache = cache = ScopeCache(self._cache_bytes)
        exact = Vectors(cache, self._cache_bytes)
        vectors = exact if self._other_vectors is None else self._other_vectors(exact)
        return MessageSearch(self._words, cache, vectors), KnowledgeSearch(self._words, vectors)

    def is_current(self, db: Db) -> bool:
        return self._words.is_current(db)

    def rebuild(self, db: Db) -> int:
        return self._words.rebuild(db)

    def add(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        self._words.add(db, kind, entries)

    def append_parts(self, stored: CTE) -> list[CTE]:
        return self._words.append_parts(stored)

    def append_values(self, terms: Sequence[str], place: Place) -> dict[str, Any] | None:
        return self._words.append_values(terms, place)

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        self._words.remove(db, kind, ids)

    def hold(self, db: Db, kind: ItemKind, owners: Collection[str]) -> None:
        self._words.hold(db, kind, owners)

    def vectors_changed(self, db: Db, kind: ItemKind, user_id: str) -> None:
        self._words.vectors_changed(db, kind, user_id)

    def vectors_stored(self, db: Db, rows: Sequence[Mapping[str, Any]]) -> None:
        self._words.vectors_stored(db, rows)

    def vectors_gone(self, db: Db, kind: ItemKind, user_id: str) -> None:
        self._words.vectors_gone(db, kind, user_id)

    def forget(self, db: Db, user_id: str, *, limit: int) -> int:
        return self._words.forget(db, user_id, limit=limit)

    def drop_cached(self) -> None:
        if self._cache is not None:
            self._cache.clear()
        analyzer.drop_cached()

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        return self._words.merge(db, kind, begin=begin)

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        return self._words.wrong_postings(db, kind)

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        self._words.mend_postings(db, kind)

    def mend(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        self._words.mend(db, kind, entries)

    def messages(
        self, db: Db, query: Query, scope: Scope, *, limit: int, only: MessageFilter, shared: bool
    ) -> list[Hit]:
        return self._searches[0].find(db, query, scope, limit=limit, only=only, shared=shared)

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
        return self._searches[1].find(db, query, scope, limit=limit, narrow=narrow, always=always, shared=shared)
