"""Reading the layout of a scope, kept between searches; of a scope too large for that, the surroundings of some ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.database.chunks import chunks
from mirai_memory.database.hot import HotStatement
from mirai_memory.models import MessageRow
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.layout import Layout
from mirai_memory.search.postings import PLACES, Corpus, ScopeCounts

# A scope with more messages is not read as a whole: its layout would take over 20 MB, and most of a second to read.
MOST = 250_000
# How far from a found message its surroundings go: the turns that may be found with it, and the turns beside those.
REACH = 4

_MESSAGES = MessageRow.table()
_NEIGHBOURS = _MESSAGES.alias("neighbours")
_COLUMNS = [PLACES.c[name] for name in ("id", "session", "position", "speaker", "cues", "length", "time")]
_READ = HotStatement(select(*_COLUMNS).where(PLACES.c.scope == bind("scope"), PLACES.c.id > bind("after")))
# In two steps, each of which can be read in one way only: a join of all four tables was begun at the scope, and read
# every message of it for the few that were wanted (measured: 42 s among 200,000).
_AROUND = (
    select(_NEIGHBOURS.c.user_id, _NEIGHBOURS.c.id)
    .select_from(_MESSAGES)
    .join(
        _NEIGHBOURS,
        (_NEIGHBOURS.c.session_id == _MESSAGES.c.session_id)
        & _NEIGHBOURS.c.position.between(_MESSAGES.c.position - REACH, _MESSAGES.c.position + REACH),
    )
    .where(_MESSAGES.c.id.in_(bind("ids", expanding=True)))
)
_THESE = select(*_COLUMNS).where(PLACES.c.scope == bind("scope"), PLACES.c.id.in_(bind("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class _Known:
    removals: int
    last: int
    layout: Layout

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes


class Layouts:
    def __init__(self, cache: ScopeCache) -> None:
        self._cache = cache

    @staticmethod
    def reads_whole(corpus: Corpus) -> bool:
        return corpus.bounded and corpus.items <= MOST

    def whole(self, db: Db, corpus: Corpus, *, shared: bool) -> Layout | None:
        """All messages of the scope, or None where they are too many, or of many owners."""
        if not self.reads_whole(corpus):
            return None
        [scope] = corpus.scopes
        known = self._cache.get(("layout", scope.id)) if shared else None
        if known is None or known.removals != scope.removals or len(known.layout) > scope.items:
            known = _Known(scope.removals, 0, Layout.of(()))
        if len(known.layout) < scope.items:
            known = self._grown(db, known, scope)
            if shared:
                self._cache.put(("layout", scope.id), known)
        return known.layout

    def _grown(self, db: Db, known: _Known, scope: ScopeCounts) -> _Known:
        rows = _rows(db, scope, known.last)
        if len(known.layout) + len(rows) != scope.items:
            # A lower id was committed after a higher one.
            known, rows = _Known(scope.removals, 0, Layout.of(())), _rows(db, scope, 0)
        last = max((row[0] for row in rows), default=known.last)
        return _Known(scope.removals, last, known.layout.extended(rows))

    def around(self, db: Db, corpus: Corpus, ids: Sequence[int]) -> Layout:
        """These messages, and the ones near them in their sessions."""
        near: dict[str, set[int]] = defaultdict(set)
        for chunk in chunks(ids):
            for user_id, id in db.execute(_AROUND, {"ids": chunk}):
                near[user_id].add(id)
        rows: list[Row[Any]] = []
        scopes = {scope.user_id: scope.id for scope in corpus.scopes}
        for user_id, neighbours in near.items():
            for chunk in chunks(sorted(neighbours)):
                rows += db.execute(_THESE, {"scope": scopes[user_id], "ids": chunk}).all()
        return Layout.of([tuple(row) for row in rows])


def _rows(db: Db, scope: ScopeCounts, after: int) -> list[Any]:
    return _READ.tuples(db, {"scope": scope.id, "after": after})
