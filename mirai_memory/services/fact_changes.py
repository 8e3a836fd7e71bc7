"""What was learned between two moments: facts that held at one of them and not at the other, key by key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select

from mirai_memory import _checks
from mirai_memory.database.chunks import chunks
from mirai_memory.entities import ChangeKind, Knowledge, KnowledgeChange, KnowledgeDiff
from mirai_memory.errors import InvalidInput
from mirai_memory.services.fact_times import KEY, KNOWLEDGE, FactTimes, believed, not_expired, true_at


class FactChanges(FactTimes):
    def diff(
        self, t1: datetime, t2: datetime, *, user_id: str | None = None, limit: int, after: int | None = None
    ) -> KnowledgeDiff:
        """One page of ``limit`` keys: those whose newest change is of a row behind ``after``, in order of it."""
        first, second = _checks.moment("t1", t1), _checks.moment("t2", t2)
        if second < first:
            raise InvalidInput("t2", "is before t1")
        keys = self._changed_keys(first, second, user_id, 0 if after is None else _checks.after(after))
        page = sorted(keys.items(), key=lambda item: max(item[1]))[: limit + 1]
        shown = page[:limit]
        facts = self._facts([id for _, states in shown for id in states])
        changes = [change for _, states in shown for change in _paired(states, facts)]
        next = max(shown[-1][1]) if shown and len(page) > limit else None
        return KnowledgeDiff(t1=first, t2=second, changes=changes, next=next)

    def _changed_keys(
        self, t1: datetime, t2: datetime, user_id: str | None, after: int
    ) -> dict[tuple[str, str, str], dict[int, bool]]:
        """For each key the rows that hold at one of the moments only: whether at the second."""
        changed: dict[tuple[str, str, str], dict[int, bool]] = defaultdict(dict)
        held, holds = _holds(t1), _holds(t2)
        columns = (KNOWLEDGE.c.id, *(KNOWLEDGE.c[name] for name in KEY), holds.label("holds"))
        statement = select(*columns).where(_may_change(t1, t2), held != holds)
        for owner in self._visible_owners(user_id):
            for row in self._db.execute(statement.where(KNOWLEDGE.c.user_id == owner)):
                changed[row.user_id, row.category, row.key][row.id] = bool(row.holds)
        return {key: states for key, states in changed.items() if max(states) > after}

    def _facts(self, ids: list[int]) -> dict[int, Knowledge]:
        rows: list[Row[Any]] = []
        for chunk in chunks(ids):
            rows += self._db.execute(select(KNOWLEDGE).where(KNOWLEDGE.c.id.in_(chunk)))
        return {row.id: self._fact(row) for row in rows}


def _holds(moment: datetime) -> ColumnElement[bool]:
    return and_(*true_at(moment), *believed(moment, moment), not_expired(moment))


def _may_change(t1: datetime, t2: datetime) -> ColumnElement[bool]:
    """What is asked first, for it costs little: one of the row's times lies between, or it was replaced some time."""
    names = ("created_at", "valid_from", "valid_to", "expires_at")
    times = [and_(KNOWLEDGE.c[name] > t1, KNOWLEDGE.c[name] <= t2) for name in names]
    return or_(*times, KNOWLEDGE.c.superseded_at.is_not(None))


def _paired(states: dict[int, bool], facts: dict[int, Knowledge]) -> Iterator[KnowledgeChange]:
    """The key's changes. A value that is there at both moments, in whatever row, has not changed."""
    old = [facts[id] for id in sorted(states) if not states[id]]
    new = [facts[id] for id in sorted(states) if states[id]]
    for fact in list(new):
        same = next((other for other in old if other.value == fact.value), None)
        if same is not None:
            old.remove(same)
            new.remove(fact)
    for place in range(max(len(old), len(new))):
        before = old[place] if place < len(old) else None
        now = new[place] if place < len(new) else None
        kind: ChangeKind = "removed" if now is None else "added" if before is None else "changed"
        some = now or before
        assert some is not None
        yield KnowledgeChange(kind=kind, category=some.category, key=some.key or "", old=before, new=now)
