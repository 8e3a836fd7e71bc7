"""Facts over time follow a model in plain Python, whatever is added, deleted and waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from bitemporal import Bitemporal, Policy, Row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirai_memory import Conflict, InvalidInput, Knowledge, MemoryManager
from mirai_memory.testing.clock import FrozenClock

KEYS = ("city", "town")
WORDS = ["Oslo", "Riga", "Rome"]


@dataclass(frozen=True)
class Add:
    """Hours are counted from the present of the step."""

    key: str
    value: str
    confidence: float
    since: int | None
    lasts: int | None
    expires: int | None
    policy: Policy


@dataclass(frozen=True)
class Delete:
    """The so-many-th of the rows that are left."""

    place: int


@dataclass(frozen=True)
class Merge:
    """The so-many-th of the rows into another one."""

    keep: int
    drop: int


Step = Add | Delete | Merge | int
HOURS = st.integers(-6, 4)
ADDS = st.builds(
    Add,
    key=st.sampled_from(KEYS),
    value=st.sampled_from(WORDS),
    confidence=st.sampled_from([0.2, 0.5, 0.9]),
    since=st.none() | HOURS,
    lasts=st.none() | st.none() | st.integers(0, 5),
    expires=st.none() | st.none() | st.integers(-1, 4),
    policy=st.sampled_from(["replace", "replace", "keep_higher_confidence", "reject"]),
)
DELETES = st.builds(Delete, st.integers(0, 6))
WAITS = st.integers(0, 4)
MERGES = st.builds(Merge, st.integers(0, 6), st.integers(0, 6))
STEPS = st.lists(st.one_of(ADDS, ADDS, ADDS, DELETES, MERGES, WAITS), max_size=12)


class Run:
    """The same steps, taken by the memory and by the model."""

    def __init__(self, memory: MemoryManager, clock: FrozenClock) -> None:
        self.memory, self.clock, self.model = memory, clock, Bitemporal()
        self.owner = memory.create_session("alice").id  # a name that no other example uses
        self.begun = clock()

    def take(self, step: Step) -> None:
        if isinstance(step, int):
            self.clock.advance(hours=step)
        elif isinstance(step, Add):
            self._add(step)
        elif self.model.rows and isinstance(step, Delete):
            id = self._row(step.place)
            assert self.memory.delete_knowledge(id, user_id=self.owner) == 1
            self.model.delete(id)
        elif self.model.rows and isinstance(step, Merge):
            self._merge(self._row(step.keep), self._row(step.drop))

    def _row(self, place: int) -> int:
        return sorted(self.model.rows)[place % len(self.model.rows)]

    def _merge(self, keep: int, drop: int) -> None:
        now = self.clock()
        if keep == drop or not (self.model.can_merge(keep, now) and self.model.can_merge(drop, now)):
            with pytest.raises(InvalidInput):
                self.memory.merge_knowledge(keep, drop)
            return
        assert self.memory.merge_knowledge(keep, drop).id == keep
        self.model.merge(keep, drop, now)

    def _add(self, step: Add) -> None:
        now = self.clock()
        since = None if step.since is None else now + timedelta(hours=step.since)
        until = None if step.lasts is None else (since or now) + timedelta(hours=step.lasts)
        expires = None if step.expires is None else now + timedelta(hours=step.expires)
        given: dict[str, Any] = {"key": step.key, "value": step.value, "confidence": step.confidence}
        fact = Knowledge(user_id=self.owner, valid_from=since, valid_to=until, expires_at=expires, **given)
        first = since or min(now, until or now)
        row = Row(id=0, created=now, updated=now, since=first, until=until, expires=expires, **given)
        holder = self.model.holder(row, step.policy, now)
        if holder == "refused":
            with pytest.raises(Conflict):
                self.memory.add_knowledge(fact, on_conflict=step.policy)
            return
        id = self.memory.add_knowledge(fact, on_conflict=step.policy)
        if holder == "new":
            assert id not in self.model.rows
            row.id = id
            self.model.store(row, now)
        else:
            assert id == holder
            self.model.refresh(id, row, now)

    def compare(self) -> None:
        now = self.clock()
        moments = [self.begun + timedelta(hours=hour) for hour in range(-7, 8, 3)] + [now]
        self._compare_histories()
        assert self._ids() == self.model.shown(now)
        for true in moments:
            assert self._ids(as_of=true) == self.model.shown(now, true)
            for known in moments:
                assert self._ids(as_of=true, known_at=known) == self.model.shown(now, true, known)
        for t1 in moments:
            for t2 in moments:
                if t1 <= t2:
                    assert self._changes(t1, t2) == sorted(self.model.changes(t1, t2), key=repr)
        found = self.memory.search_knowledge(" ".join(WORDS), 99, user_id=self.owner)
        assert {fact.id for fact in found} == self.model.found(now)

    def _ids(self, **times: datetime) -> list[int | None]:
        return [fact.id for fact in self.memory.get_knowledge(user_id=self.owner, **times)]

    def _changes(self, t1: datetime, t2: datetime) -> list[Any]:
        page = self.memory.diff(self.owner, t1, t2)
        values = [(c.key, c.old and c.old.value, c.new and c.new.value) for c in page.changes]
        assert [c.kind for c in page.changes] == [
            "added" if old is None else "removed" if new is None else "changed" for _, old, new in values
        ]
        return sorted(values, key=repr)

    def _compare_histories(self) -> None:
        for key in KEYS:
            rows = [row for _, row in sorted(self.model.rows.items()) if row.key == key]
            assert [_shown(fact) for fact in self.memory.knowledge_history(key, user_id=self.owner)] == [
                (r.id, r.value, r.confidence, r.created, r.updated, r.since, r.until, r.expires, r.replaced, r.later)
                for r in rows
            ]


def _shown(fact: Knowledge) -> tuple[Any, ...]:
    times = (fact.created_at, fact.updated_at, fact.valid_from, fact.valid_to, fact.expires_at)
    return (fact.id, fact.value, fact.confidence, *times, fact.superseded_at, fact.superseded_by)


def _follows_the_model(memory: MemoryManager, clock: FrozenClock, examples: int) -> Callable[[], None]:
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

    @settings(max_examples=examples, suppress_health_check=quiet, deadline=None)
    @given(steps=STEPS)
    def check(steps: list[Step]) -> None:
        run = Run(memory, clock)
        for step in steps:
            run.take(step)
        run.compare()
        assert memory.verify().ok

    return check


def test_facts_follow_the_model(memory: MemoryManager, clock: FrozenClock) -> None:
    _follows_the_model(memory, clock, 12)()


@pytest.mark.long
def test_facts_follow_the_model_for_long(memory: MemoryManager, clock: FrozenClock) -> None:
    _follows_the_model(memory, clock, 300)()
