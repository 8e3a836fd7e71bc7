"""What was learned between two moments."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from mirai_memory import InvalidInput, Knowledge, KnowledgeDiff, MemoryManager, load_settings
from mirai_memory.testing.clock import FrozenClock

pytestmark = pytest.mark.usefixtures("owner_canary")

Know = Callable[..., int]


@pytest.fixture
def know(memory: MemoryManager, clock: FrozenClock) -> Know:
    """Stores a fact an hour after the last one."""

    def know(key: str, value: str, **more: Any) -> int:
        clock.advance(hours=1)
        return memory.add_knowledge(Knowledge(key=key, value=value, **{"user_id": "alice", **more}))

    return know


def told(diff: KnowledgeDiff) -> list[tuple[str, str, str | None, str | None]]:
    return [(c.kind, c.key, c.old and c.old.value, c.new and c.new.value) for c in diff.changes]


def test_what_came_changed_and_went(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    for key in ("stays", "moves", "expires", "returns", "ends"):
        more = {"expires_at": clock() + timedelta(days=1)} if key in ("expires", "returns") else {}
        know(key, f"{key} here", **more)
    before = clock.advance(hours=1)
    know("moves", "moves there")
    know("comes", "is new")
    know("stays", "stays here")
    clock.advance(days=2)
    know("returns", "returns here")  # it had expired
    closed = before - timedelta(hours=2)
    know("ends", "ends here", valid_from=closed, valid_to=before + timedelta(hours=1))
    after = clock.advance(days=2)
    assert told(memory.diff("alice", before, after)) == [
        ("removed", "expires", "expires here", None),
        ("changed", "moves", "moves here", "moves there"),
        ("added", "comes", None, "is new"),
    ]
    assert told(memory.diff("alice", before, before)) == []
    assert memory.diff("alice", before, after) == memory.for_user("alice").diff(before, after)


def test_both_rows_are_told(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    first = know("city", "Perm", source="chat")
    before = clock()
    second = know("city", "Riga", source="mail", confidence=0.5)
    [change] = memory.diff("alice", before, clock()).changes
    old, new = memory.knowledge_history("city", user_id="alice")
    assert (change.old, change.new) == (old, new)
    assert (old.id, new.id) == (first, second)


def test_shared_facts_are_told_to_everybody(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    before = clock()
    know("city", "Perm")
    know("city", "Oslo", user_id="bob")
    know("hq", "Riga", user_id=None)
    assert told(memory.diff("alice", before, clock())) == [
        ("added", "city", None, "Perm"),
        ("added", "hq", None, "Riga"),
    ]
    assert told(memory.diff(None, before, clock())) == [("added", "hq", None, "Riga")]


def test_what_was_deleted_is_not_told(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    gone = know("city", "Perm")
    before = clock()
    memory.delete_knowledge(gone)
    assert told(memory.diff("alice", before, clock.advance(days=1))) == []


def test_a_merge_is_told(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    keep, drop = know("employer", "Acme"), know("firm", "works for Acme")
    before = clock()
    clock.advance(hours=1)
    memory.merge_knowledge(keep, drop)
    assert told(memory.diff("alice", before, clock())) == [("removed", "firm", "works for Acme", None)]


def test_pages_hold_every_key_once(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    for number in range(7):
        know(f"k{number}", "old")
    before = clock()
    for number in (3, 1, 6, 0, 2):
        know(f"k{number}", "new")
    whole = memory.diff("alice", before, clock())
    assert [change.key for change in whole.changes] == ["k3", "k1", "k6", "k0", "k2"]
    assert whole.next is None
    seen, after = [], None
    for _ in range(3):
        page = memory.diff("alice", before, clock(), limit=2, after=after)
        assert len(page.changes) <= 2
        seen += page.changes
        after = page.next
    assert seen == whole.changes
    assert after is None
    assert memory.diff("alice", before, clock(), limit=0).changes == []


def test_it_is_json_ready(memory: MemoryManager, clock: FrozenClock, know: Know) -> None:
    before = clock()
    know("city", "Perm")
    data = json.loads(json.dumps(memory.diff("alice", before, clock()).to_dict()))
    assert data["t1"] == before.isoformat()
    assert data["changes"][0]["new"]["value"] == "Perm"
    assert data["changes"][0]["old"] is None


def test_moments_are_checked(memory: MemoryManager, clock: FrozenClock) -> None:
    with pytest.raises(InvalidInput) as caught:
        memory.diff("alice", clock(), clock() - timedelta(seconds=1))
    assert caught.value.field == "t2"
    with pytest.raises(InvalidInput):
        memory.diff("alice", datetime(2025, 1, 1), clock())  # noqa: DTZ001 - it is refused


def test_switched_off_there_is_nothing(url: str, clock: FrozenClock) -> None:
    with MemoryManager(url, settings=load_settings(memory={"long_term": {"enabled": False}})) as memory:
        assert memory.diff("alice", clock(), clock()).changes == []
        assert memory.find_duplicates("alice") == []


def test_a_value_true_already_takes_the_place_of_the_same_one_true_later(
    memory: MemoryManager, clock: FrozenClock, know: Know
) -> None:
    know("city", "Perm")
    later = know("city", "Riga", valid_from=clock() + timedelta(days=9))
    now = memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Riga"), on_conflict="reject")
    assert now != later
    assert [fact.id for fact in memory.get_knowledge(user_id="alice")] == [now]


def test_deleting_brings_nothing_back_that_was_hidden_before(
    memory: MemoryManager, clock: FrozenClock, know: Know
) -> None:
    """Perm was to be followed by Riga only later; Oslo hid it. Without Oslo, Perm stays hidden, then and now."""
    know("city", "Perm")
    know("city", "Riga", valid_from=clock() + timedelta(days=9))
    oslo = know("city", "Oslo")
    moved = clock()
    clock.advance(hours=1)
    memory.delete_knowledge(oslo)
    assert memory.get_knowledge(user_id="alice") == memory.get_knowledge(user_id="alice", as_of=moved) == []
    assert memory.search_knowledge("Perm Riga Oslo", user_id="alice") == []
    before = memory.get_knowledge(user_id="alice", as_of=moved - timedelta(minutes=1))
    assert [fact.value for fact in before] == ["Perm"]
