"""The postings of a scope's terms, kept between searches: the common ones cost most, and are asked for most often.

They are kept beside the layout of the scope, and hold for as long as it does. What has come since is looked at item by
item, by its tokens: a talk grows by a few messages from one search to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mirai_memory.database import Db
from mirai_memory.search import postings
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.layout import Ints, Layout
from mirai_memory.search.postings import Corpus, PostingsIndex, ScopeCounts

# Where more items have come than this, a term's postings are read again: their tokens would take longer.
_GROWN: Final = 200
# A longer text may have tokens that the engine does not find (search/postgres.py).
_LONGEST: Final = 100_000
_OVERHEAD: Final = 300  # bytes of an entry of the cache, beside its numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A term's newest items, newest first, when the scope had ``items`` up to the id ``last``."""

    removals: int
    items: int
    last: int
    ids: Ints

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + _OVERHEAD

    def grown(self, tokens: Mapping[int, set[str]], mark: str, items: int, last: int) -> _Kept:
        """With those of the newer items that have the token ``mark``."""
        if self.last == last:
            return self
        new = sorted((id for id, own in tokens.items() if id > self.last and mark in own), reverse=True)
        ids = np.concatenate([np.array(new, dtype=np.int64), self.ids]) if new else self.ids
        return _Kept(self.removals, items, last, ids[: postings.POSTINGS])


class KeptPostings:
    def __init__(self, words: PostingsIndex, cache: ScopeCache) -> None:
        self._words = words
        self._cache = cache

    def of(self, db: Db, corpus: Corpus, layout: Layout, terms: Sequence[str]) -> dict[str, Ints]:
        """As ``PostingsIndex.postings`` of each term. The corpus is one scope, and ``layout`` has all of it."""
        [scope] = corpus.scopes
        known = {term: self._known(scope, layout, term) for term in terms}
        oldest = min((kept.last for kept in known.values() if kept), default=layout.last)
        tokens = self._tokens(db, layout.after(oldest))
        unknown = [term for term, kept in known.items() if kept is None or (tokens is None and kept.last < layout.last)]
        read = self._words.postings(db, "message", corpus, unknown)
        found = {}
        for term, kept in known.items():
            if kept is None or term in read:
                now = _Kept(scope.removals, scope.items, layout.last, np.array(read[term], dtype=np.int64))
            else:
                now = kept.grown(tokens or {}, f"{term}@{scope.id}", scope.items, layout.last)
            if now is not kept:
                self._cache.put(("postings", scope.id, term), now)
            found[term] = now.ids
        return found

    def _known(self, scope: ScopeCounts, layout: Layout, term: str) -> _Kept | None:
        """What is kept of the term, unless items have gone, or a lower id was committed after a higher one."""
        kept: _Kept | None = self._cache.get(("postings", scope.id, term))
        if kept is None or kept.removals != scope.removals:
            return None
        return kept if kept.items + len(layout.after(kept.last)) == scope.items else None

    def _tokens(self, db: Db, ids: Ints) -> dict[int, set[str]] | None:
        """The tokens of each item, or None where it is better to ask for the terms."""
        if not len(ids):
            return {}
        if len(ids) > _GROWN:
            return None
        rows = self._words.tokens(db, "message", ids.tolist())
        if any(len(tokens) > _LONGEST for tokens in rows.values()):
            return None
        return {id: set(tokens.split()) for id, tokens in rows.items()}
