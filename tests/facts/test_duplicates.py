"""Facts that may say the same: which pairs are proposed, and what joining two of them keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import select

from mirai_memory import Conflict, InvalidInput, Knowledge, MemoryManager, NotFound, UnitOfWork
from mirai_memory.search.postings import WORDS
from mirai_memory.testing.clock import FrozenClock

pytestmark = pytest.mark.usefixtures("owner_canary")


def know(memory: MemoryManager, key: str, value: str, **more: Any) -> int:
    return memory.add_knowledge(Knowledge(key=key, value=value, **{"user_id": "alice", **more}))


def pairs(memory: MemoryManager, **options: Any) -> list[tuple[str | None, str | None, list[str]]]:
    found = memory.find_duplicates(options.pop("user_id", "alice"), **options)
    return [(pair.first.key, pair.second.key, list(pair.reasons)) for pair in found]


def axis(number: int, *, lean: float = 0.0) -> list[float]:
    """Of twenty directions that have nothing in common; one that leans a little towards the last."""
    return [1.0 if place == number else lean if place == 19 else 0.0 for place in range(20)]


def pointing(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]


# --- which are proposed -----------------------------------------------------------------------------------------------


def test_equal_values_come_first(memory: MemoryManager) -> None:
    know(memory, "favourite drink", "green tea with honey")
    know(memory, "employer", "Acme")
    know(memory, "firm", "Acme")
    know(memory, "preferred drink", "green tea with honey and milk")
    assert pairs(memory) == [
        ("employer", "firm", ["value"]),  # the only word of three that both have
        ("favourite drink", "preferred drink", ["words"]),
    ]
    first, second = memory.find_duplicates("alice")
    assert first.similarity == 1
    assert 0.5 <= second.similarity < 1


def test_stems_are_compared_in_any_language(memory: MemoryManager) -> None:
    know(memory, "чай", "Алиса любит зелёный чай")
    know(memory, "чаи", "Алиса любила зеленые чаи")
    know(memory, "кофе", "Алиса не пьёт кофе")
    assert pairs(memory) == [("чай", "чаи", ["words"])]


def test_the_threshold_and_the_limit(memory: MemoryManager) -> None:
    know(memory, "xa", "one two three four five")
    know(memory, "xb", "one two three four six")
    know(memory, "xc", "one two seven eight nine")
    assert pairs(memory, threshold=0.9) == []
    assert len(pairs(memory, threshold=0.1)) == 3
    assert pairs(memory, threshold=0.1, limit=1) == [("xa", "xb", ["words"])]
    assert pairs(memory, limit=0) == []
    for bad in ({"threshold": 1.1}, {"threshold": math.nan}, {"limit": -1}, {"threshold": "high"}):
        with pytest.raises(InvalidInput):
            memory.find_duplicates("alice", **bad)


def test_close_vectors_are_proposed(memory: MemoryManager) -> None:
    for number in range(12):
        know(memory, f"other {number}", f"nothing{number}", embedding=axis(number), embedding_model="m")
    know(memory, "home", "lives in Perm", embedding=axis(13, lean=0.1), embedding_model="m")
    know(memory, "residence", "is there mostly", embedding=axis(13, lean=0.2), embedding_model="m")
    know(memory, "abroad", "of another model", embedding=axis(13, lean=0.1), embedding_model="n")
    assert pairs(memory) == [("home", "residence", ["meaning"])]


def test_how_near_is_near_depends_on_what_is_usual_for_the_model(memory: MemoryManager) -> None:
    """All texts in a narrow cone: what would be near elsewhere is nothing special here."""
    for number in range(40):
        know(memory, f"fact {number}", f"word{number}", embedding=pointing(number), embedding_model="m")
    found = memory.find_duplicates("alice", threshold=0.99)
    assert found
    assert all(abs(int(str(p.first.key)[5:]) - int(str(p.second.key)[5:])) <= 2 for p in found)


def test_only_current_facts_of_one_owner_are_compared(memory: MemoryManager, clock: FrozenClock) -> None:
    now = clock()
    know(memory, "firm", "works for Acme")
    know(memory, "old", "works for Acme")
    know(memory, "old", "changed")
    know(memory, "ended", "works for Acme", valid_from=now - timedelta(days=9), valid_to=now + timedelta(days=9))
    know(memory, "later", "works for Acme", valid_from=now + timedelta(days=1))
    know(memory, "expired", "works for Acme", expires_at=now)
    know(memory, "bobs", "works for Acme", user_id="bob")
    know(memory, "everybodys", "works for Acme", user_id=None)
    assert pairs(memory) == pairs(memory, user_id="bob") == pairs(memory, user_id=None) == []
    know(memory, "all", "works for Acme", user_id=None)
    assert pairs(memory, user_id=None) == [("everybodys", "all", ["value", "words"])]
    assert memory.for_user("alice").find_duplicates() == []


def test_a_fact_that_came_in_between_is_passed_over(memory: MemoryManager) -> None:
    """Comparing is done outside of any transaction: others may write meanwhile."""
    from mirai_memory.duplicates import find_duplicates

    know(memory, "firm", "Acme")
    gone = know(memory, "employer", "Acme")
    alice = memory.for_user("alice")
    calls = 0

    def read(fn: Callable[[Any], Any]) -> Any:
        nonlocal calls
        calls += 1
        result = alice._read(fn)
        if calls == 1:
            memory.delete_knowledge(gone)
        return result

    assert find_duplicates(read, limit=10, threshold=0.6) == []
    assert calls == 2


@pytest.mark.long
def test_very_many_alike_take_no_time_of_all_pairs(memory: MemoryManager) -> None:
    """One word that all have, and values of which many are equal: neither makes it compare each with each."""
    facts = [
        Knowledge(user_id="alice", key=f"k{number}", value=f"likes item{number % 4_000} very much indeed")
        for number in range(20_000)
    ]
    memory.add_knowledge_many(facts)
    found = memory.find_duplicates("alice", limit=50)
    assert len(found) == 50
    assert all(pair.similarity == 1 for pair in found)


# --- joining two ------------------------------------------------------------------------------------------------------


def test_merging_keeps_one_and_the_history_of_both(memory: MemoryManager, clock: FrozenClock) -> None:
    keep = know(memory, "employer", "Acme", confidence=0.4, source="chat", metadata={"a": 1})
    drop = know(memory, "firm", "works for Acme", confidence=0.9, source="page", metadata={"b": 2})
    before = clock()
    merged = clock.advance(days=1)
    kept = memory.merge_knowledge(keep, drop)
    assert (kept.id, kept.value, kept.confidence, kept.source, kept.metadata) == (keep, "Acme", 0.9, "chat", {"a": 1})
    assert kept.updated_at == merged
    assert memory.get_knowledge(user_id="alice") == [kept]
    assert [fact.id for fact in memory.search_knowledge("works Acme firm employer", user_id="alice")] == [keep]
    assert pairs(memory) == []
    [dropped] = memory.knowledge_history("firm", user_id="alice")
    assert (dropped.superseded_by, dropped.superseded_at, dropped.source) == (keep, merged, "page")
    assert [fact.id for fact in memory.get_knowledge(user_id="alice", known_at=before)] == [keep, drop]
    assert memory.verify().ok


def test_merging_leaves_no_words_of_the_dropped_one(memory: MemoryManager) -> None:
    keep, drop = know(memory, "employer", "Acme"), know(memory, "firm", "works for Acme")
    memory.merge_knowledge(keep, drop)

    def indexed(uow: UnitOfWork) -> list[int]:
        words = WORDS["knowledge"]
        return list(uow.db.execute(select(words.c.rowid)).scalars())

    assert keep in memory.run(indexed)
    assert drop not in memory.run(indexed)


def test_it_stays_true_for_the_time_before_the_one_that_took_its_place(
    memory: MemoryManager, clock: FrozenClock
) -> None:
    now = clock()
    drop = know(memory, "firm", "works for Acme", valid_from=now - timedelta(days=90))
    keep = know(memory, "employer", "Acme", valid_from=now - timedelta(days=30))
    memory.merge_knowledge(keep, drop)
    for days, expected in ((60, [drop]), (30, [keep]), (1, [keep])):
        found = memory.get_knowledge(user_id="alice", as_of=now - timedelta(days=days))
        assert [fact.id for fact in found] == expected


def test_nothing_brings_the_dropped_one_back(memory: MemoryManager, clock: FrozenClock) -> None:
    drop, keep = know(memory, "firm", "works for Acme"), know(memory, "employer", "Acme")
    memory.merge_knowledge(keep, drop)
    clock.advance(days=1)
    memory.delete_knowledge(keep)
    assert memory.get_knowledge(user_id="alice") == []
    assert memory.search_knowledge("Acme", user_id="alice") == []
    assert memory.verify().ok
    [dropped] = memory.knowledge_history("firm", user_id="alice")
    assert dropped.superseded_by is None


def test_its_key_is_free_for_another_value(memory: MemoryManager) -> None:
    drop, keep = know(memory, "firm", "works for Acme"), know(memory, "employer", "Acme")
    memory.merge_knowledge(keep, drop)
    new = memory.add_knowledge(Knowledge(user_id="alice", key="firm", value="Initech"), on_conflict="reject")
    assert [fact.id for fact in memory.get_knowledge(user_id="alice")] == [keep, new]
    with pytest.raises(Conflict):
        memory.add_knowledge(Knowledge(user_id="alice", key="firm", value="Globex"), on_conflict="reject")


def test_one_after_the_other_into_one(memory: MemoryManager) -> None:
    first, second, third = (know(memory, key, "Acme") for key in ("employer", "firm", "company"))
    memory.merge_knowledge(second, third)
    memory.merge_knowledge(first, second)
    assert [fact.id for fact in memory.get_knowledge(user_id="alice")] == [first]
    assert memory.verify().ok


def test_what_cannot_be_merged(memory: MemoryManager, clock: FrozenClock) -> None:
    now = clock()
    keep = know(memory, "employer", "Acme")
    others = {
        "closed": know(memory, "a", "Acme", valid_from=now - timedelta(1), valid_to=now + timedelta(1)),
        "later": know(memory, "b", "Acme", valid_from=now + timedelta(days=1)),
        "expired": know(memory, "c", "Acme", expires_at=now),
        "superseded": know(memory, "d", "Acme"),
        "bobs": know(memory, "e", "Acme", user_id="bob"),
        "shared": know(memory, "f", "Acme", user_id=None),
        "itself": keep,
    }
    know(memory, "d", "Initech")
    before = [memory.knowledge_history(key, user_id="alice") for key in ("employer", *"abcdef")]
    for other in others.values():
        for one, two in ((keep, other), (other, keep)):
            with pytest.raises(InvalidInput):
                memory.merge_knowledge(one, two)
    for wrong in ("1", None, True, 1.0):
        with pytest.raises(InvalidInput):
            memory.merge_knowledge(keep, wrong)  # type: ignore[arg-type]
    for one, two in ((keep, 404), (404, keep)):
        with pytest.raises(NotFound):
            memory.merge_knowledge(one, two)
    alice = memory.for_user("alice")
    for foreign in (others["bobs"], others["shared"]):
        with pytest.raises(NotFound):
            alice.merge_knowledge(keep, foreign)
    assert [memory.knowledge_history(key, user_id="alice") for key in ("employer", *"abcdef")] == before


def test_a_merged_fact_moves_with_its_owner(memory: MemoryManager, clock: FrozenClock) -> None:
    """Out and in again: what was merged into an older fact, and into a newer one, is told as before."""
    ids = [know(memory, key, f"{key} of Acme") for key in ("employer", "firm", "company", "job")]
    clock.advance(days=1)
    memory.merge_knowledge(ids[0], ids[1])
    memory.merge_knowledge(ids[3], ids[2])
    file = BytesIO()
    memory.export_user("alice", file)

    def told() -> list[tuple[Any, ...]]:
        histories = [memory.knowledge_history(key, user_id="alice") for key in ("employer", "firm", "company", "job")]
        keys = {fact.id: fact.key for history in histories for fact in history}
        return [
            (f.key, f.value, f.superseded_at, keys.get(f.superseded_by or 0)) for history in histories for f in history
        ]

    before, first = told(), memory.get_knowledge(user_id="alice")
    memory.delete_knowledge(category="general", user_id="alice")
    file.seek(0)
    memory.import_user(file)
    assert told() == before
    assert {key for *_, key in before} == {None, "employer", "job"}
    assert [replace(fact, id=None) for fact in memory.get_knowledge(user_id="alice")] == [
        replace(fact, id=None) for fact in first
    ]
    assert memory.verify().ok
    file.seek(0)
    assert memory.import_user(file).facts_added == 0
