"""Facts: one current value a key, every earlier one kept, true then and believed then told apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mirai_memory import Conflict, Knowledge, MemoryManager, NotFound
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import new_session, say

_JANUARY, _APRIL, _MAY, _JUNE, _JULY = (datetime(2025, month, 1, tzinfo=UTC) for month in (1, 4, 5, 6, 7))


def _know(memory: MemoryManager, value: str, **fields: Any) -> int:
    policy = fields.pop("on_conflict", None)
    return memory.add_knowledge(
        Knowledge(value=value, **{"key": "city", "user_id": "alice", **fields}), on_conflict=policy
    )


def _values(memory: MemoryManager, **fields: Any) -> list[str]:
    return [fact.value for fact in memory.get_knowledge(**{"user_id": "alice", **fields})]


def _history(memory: MemoryManager) -> list[str]:
    return [fact.value for fact in memory.knowledge_history("city", user_id="alice")]


class KnowledgeContract:
    def test_a_fact_comes_back_exactly(self, memory: MemoryManager, clock: FrozenClock) -> None:
        [message] = say(memory, new_session(memory), "I moved to Осло")
        fact = Knowledge(
            value="Осло 🇳🇴\n",
            key="город",
            category="места",
            user_id="alice",
            source="chat",
            source_kind="assistant",
            confidence=0.1,
            valid_from=_MAY,
            expires_at=clock() + timedelta(days=1),
            message_id=message,
            metadata={"p": [0.1, 1e22, None]},
        )
        id = memory.add_knowledge(fact)
        expected = replace(fact, id=id, created_at=clock(), updated_at=clock())
        assert memory.get_knowledge(user_id="alice") == [expected]
        assert memory.knowledge_history("город", category="места", user_id="alice") == [expected]

    def test_a_new_value_supersedes_and_the_old_one_is_kept(self, memory: MemoryManager, clock: FrozenClock) -> None:
        first = _know(memory, "Oslo")
        clock.advance(days=1)
        second = _know(memory, "Riga")
        assert second > first
        assert _values(memory) == ["Riga"]
        old, new = memory.knowledge_history("city", user_id="alice")
        assert (old.id, old.value, old.superseded_at, old.superseded_by) == (first, "Oslo", clock(), second)
        assert (new.id, new.value, new.superseded_at, new.superseded_by) == (second, "Riga", None, None)

    def test_the_same_value_again_refreshes(self, memory: MemoryManager, clock: FrozenClock) -> None:
        first = _know(memory, "Oslo", confidence=0.5)
        clock.advance(days=1)
        assert _know(memory, "Oslo", confidence=0.9) == first
        assert _know(memory, "Oslo", confidence=0.2) == first
        [fact] = memory.knowledge_history("city", user_id="alice")
        assert (fact.confidence, fact.updated_at, fact.created_at) == (0.9, clock(), clock() - timedelta(days=1))

    def test_owner_category_and_key_tell_facts_apart(self, memory: MemoryManager) -> None:
        _know(memory, "Oslo")
        _know(memory, "Riga", key="birthplace")
        _know(memory, "Rome", category="travel")
        _know(memory, "Bonn", user_id="bob")
        assert _values(memory) == ["Oslo", "Riga", "Rome"]
        assert _values(memory, category="travel") == ["Rome"]
        assert _values(memory, key="city") == ["Oslo", "Rome"]
        assert _values(memory, user_id="bob") == ["Bonn"]
        assert _values(memory, user_id=None) == []

    def test_without_a_key_the_same_text_is_one_fact(self, memory: MemoryManager) -> None:
        first = _know(memory, "likes green tea", key=None)
        assert _know(memory, "likes green tea", key=None) == first
        assert _know(memory, "likes black tea", key=None) != first
        assert _know(memory, "likes green tea", key=None, user_id="bob") != first
        assert _values(memory) == ["likes green tea", "likes black tea"]

    def test_shared_facts_stand_beside_own_ones(self, memory: MemoryManager) -> None:
        shared = _know(memory, "HQ is in Oslo", user_id=None)
        own = _know(memory, "Riga")
        assert [(fact.id, fact.user_id) for fact in memory.get_knowledge(user_id="alice")] == [
            (shared, None),
            (own, "alice"),
        ]
        assert _values(memory, user_id=None) == ["HQ is in Oslo"]
        assert [fact.id for fact in memory.knowledge_history("city", user_id="bob")] == [shared]

    def test_the_policy_of_a_call(self, memory: MemoryManager) -> None:
        first = _know(memory, "Oslo", confidence=0.8)
        with pytest.raises(Conflict):
            _know(memory, "Riga", on_conflict="reject")
        assert _know(memory, "Riga", confidence=0.7, on_conflict="keep_higher_confidence") == first
        assert _values(memory) == ["Oslo"]
        assert _know(memory, "Riga", confidence=0.8, on_conflict="keep_higher_confidence") > first
        assert _values(memory) == ["Riga"]
        _know(memory, "Rome", confidence=0.0, on_conflict="replace")
        assert _values(memory) == ["Rome"]

    def test_what_a_policy_refuses_leaves_nothing(self, memory: MemoryManager) -> None:
        _know(memory, "Oslo", confidence=0.8)
        before = memory.knowledge_history("city", user_id="alice")
        _know(memory, "Riga", confidence=0.1, on_conflict="keep_higher_confidence")
        assert memory.knowledge_history("city", user_id="alice") == before
        assert memory.search_knowledge("Riga", user_id="alice") == []

    def test_rejecting_does_not_reject_the_same_value(self, memory: MemoryManager) -> None:
        first = _know(memory, "Oslo")
        assert _know(memory, "Oslo", on_conflict="reject") == first

    def test_many_are_stored_in_order_or_not_at_all(self, memory: MemoryManager) -> None:
        facts = [Knowledge(value=value, key="city", user_id="alice") for value in ("Oslo", "Riga", "Riga")]
        first, second, again = memory.add_knowledge_many(facts)
        assert first < second == again
        assert _history(memory) == ["Oslo", "Riga"]
        with pytest.raises(Conflict):
            memory.add_knowledge_many([replace(facts[0], key="x"), facts[0]], on_conflict="reject")
        assert _values(memory) == ["Riga"]
        assert memory.add_knowledge_many([]) == []

    def test_expired_facts_are_gone_but_for_the_history(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo", expires_at=clock() + timedelta(hours=1))
        clock.advance(minutes=59)
        assert _values(memory) == ["Oslo"]
        clock.advance(minutes=1)
        assert _values(memory) == _values(memory, as_of=clock() - timedelta(minutes=30)) == []
        assert memory.search_knowledge("Oslo", user_id="alice") == []
        assert _history(memory) == ["Oslo"]

    @pytest.mark.parametrize("policy", ["reject", "keep_higher_confidence"])
    def test_an_expired_fact_gives_way_whatever_the_policy(
        self, memory: MemoryManager, clock: FrozenClock, policy: str
    ) -> None:
        _know(memory, "Oslo", expires_at=clock() + timedelta(hours=1))
        clock.advance(hours=1)
        _know(memory, "Riga", confidence=0.1, on_conflict=policy)
        assert _values(memory) == ["Riga"]

    def test_the_same_value_lives_on_after_it_expired(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo", expires_at=clock() + timedelta(hours=1))
        clock.advance(hours=2)
        _know(memory, "Oslo")
        assert _values(memory) == ["Oslo"]

    def test_a_closed_fact_stands_beside_the_open_one(self, memory: MemoryManager) -> None:
        open_one = _know(memory, "Oslo", valid_from=_JUNE)
        closed = _know(memory, "Riga", valid_from=_JANUARY, valid_to=_MAY)
        assert closed != open_one
        assert _values(memory) == ["Oslo"]
        assert _history(memory) == ["Oslo", "Riga"]
        assert _values(memory, as_of=_APRIL) == ["Riga"]
        assert _values(memory, as_of=_MAY) == []  # valid_to is the first moment when it is no longer true
        assert _values(memory, as_of=_JUNE) == ["Oslo"]
        assert memory.search_knowledge("Riga", user_id="alice") == []

    def test_as_of_tells_what_was_true_then(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo")
        moved = clock.advance(days=10)
        _know(memory, "Riga")
        clock.advance(days=10)
        assert _values(memory, as_of=moved - timedelta(days=11)) == []
        assert _values(memory, as_of=moved - timedelta(seconds=1)) == ["Oslo"]
        assert _values(memory, as_of=moved) == ["Riga"]

    def test_known_at_tells_what_was_believed_then(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo", valid_from=_JANUARY)
        learned = clock.advance(days=10)
        _know(memory, "Riga", valid_from=_MAY)
        clock.advance(days=10)
        before = learned - timedelta(seconds=1)
        assert _values(memory, known_at=before) == ["Oslo"]
        assert _values(memory, known_at=learned) == ["Riga"]
        assert _values(memory, known_at=learned - timedelta(days=11)) == []
        # The move in May, learned much later, leaves the old address true for April.
        assert _values(memory, as_of=_APRIL) == _values(memory, as_of=_JUNE, known_at=before) == ["Oslo"]
        assert _values(memory, as_of=_JUNE) == ["Riga"]

    def test_a_backdated_correction_replaces_from_when_it_is_true(
        self, memory: MemoryManager, clock: FrozenClock
    ) -> None:
        _know(memory, "Oslo", valid_from=_JUNE)
        clock.advance(days=1)
        _know(memory, "Riga", valid_from=_APRIL)
        assert _values(memory, as_of=_MAY) == _values(memory, as_of=_JULY) == _values(memory) == ["Riga"]
        assert _values(memory, as_of=_JULY, known_at=clock() - timedelta(hours=1)) == ["Oslo"]

    def test_a_value_of_tomorrow_does_not_hide_today_s(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo")
        _know(memory, "Riga", valid_from=clock() + timedelta(days=1))
        assert _values(memory) == _values(memory, as_of=clock()) == ["Oslo"]
        clock.advance(days=1)
        assert _values(memory) == _values(memory, as_of=clock()) == ["Riga"]

    def test_without_times_the_present_is_meant(self, memory: MemoryManager, clock: FrozenClock) -> None:
        for value in ("Oslo", "Riga", "Rome"):
            _know(memory, value)
            clock.advance(days=1)
        _know(memory, "Bonn", key="birthplace", valid_from=_MAY)
        now = clock()
        expected = ["Rome", "Bonn"]
        assert _values(memory) == _values(memory, as_of=now) == _values(memory, as_of=now, known_at=now) == expected

    def test_deleting_never_revives_an_older_value(self, memory: MemoryManager, clock: FrozenClock) -> None:
        _know(memory, "Oslo")
        moved = clock.advance(days=1)
        second = _know(memory, "Riga")
        clock.advance(days=1)
        memory.delete_knowledge(second)
        assert _values(memory) == _values(memory, as_of=clock()) == _values(memory, as_of=moved) == []
        assert _values(memory, as_of=moved - timedelta(hours=1)) == ["Oslo"]
        assert memory.search_knowledge("Oslo Riga", user_id="alice") == []
        assert _history(memory) == ["Oslo"]

    def test_a_key_is_free_after_its_value_was_deleted(self, memory: MemoryManager) -> None:
        first = _know(memory, "Oslo")
        memory.delete_knowledge(first)
        assert _know(memory, "Oslo", on_conflict="reject") > first
        assert _values(memory) == ["Oslo"]

    def test_deleting_by_conditions_takes_earlier_values_too(self, memory: MemoryManager) -> None:
        _know(memory, "Oslo", source="a.md", source_kind="document")
        _know(memory, "Riga", source="b.md", source_kind="document")
        _know(memory, "tea", key="drink", source="a.md", source_kind="document")
        _know(memory, "Bonn", user_id="bob", source="a.md", source_kind="document")
        _know(memory, "HQ", user_id=None, source="a.md", source_kind="document")
        assert memory.delete_knowledge(key="city", source_kind="user", user_id="alice") == 0
        assert memory.delete_knowledge(key="city", user_id="alice") == 2
        assert _history(memory) == ["HQ"]
        assert memory.delete_knowledge(source="a.md", user_id="alice") == 1
        assert _values(memory, user_id="bob") == ["Bonn", "HQ"]
        assert memory.delete_knowledge(source_kind="document") == 1  # without an owner: the shared ones
        assert _values(memory, user_id="bob") == ["Bonn"]

    def test_a_dry_run_only_counts(self, memory: MemoryManager) -> None:
        id = _know(memory, "Oslo")
        _know(memory, "Riga")
        before = memory.knowledge_history("city", user_id="alice")
        assert memory.delete_knowledge(key="city", user_id="alice", dry_run=True) == 2
        assert memory.delete_knowledge(id, dry_run=True) == 1
        assert memory.knowledge_history("city", user_id="alice") == before
        assert len(memory.search_knowledge("Riga", user_id="alice")) == 1

    def test_an_unknown_fact_is_not_found(self, memory: MemoryManager) -> None:
        bobs = _know(memory, "Bonn", user_id="bob")
        deletes: list[Callable[[], int]] = [
            lambda: memory.delete_knowledge(404),
            lambda: memory.delete_knowledge(404, dry_run=True),
            lambda: memory.delete_knowledge(bobs, user_id="alice"),
            lambda: memory.delete_knowledge(bobs, key="another"),
        ]
        for delete in deletes:
            with pytest.raises(NotFound) as error:
                delete()
            assert error.value.kind == "knowledge"
        assert _values(memory, user_id="bob") == ["Bonn"]

    def test_the_id_of_a_deleted_fact_is_never_used_again(self, memory: MemoryManager) -> None:
        first = _know(memory, "Oslo")
        memory.delete_knowledge(first)
        assert _know(memory, "Riga") > first

    def test_a_fact_names_a_message_that_is_there_and_its_owner_s(self, memory: MemoryManager) -> None:
        [message] = say(memory, new_session(memory, "bob"), "secret")
        for fields in ({"message_id": 404}, {"message_id": message}):
            with pytest.raises(NotFound) as error:
                _know(memory, "Oslo", **fields)
            assert error.value.kind == "message"
        assert _values(memory) == []
        assert _know(memory, "HQ", user_id=None, message_id=message)

    def test_a_deleted_message_leaves_the_fact_without_its_link(self, memory: MemoryManager) -> None:
        [message] = say(memory, new_session(memory), "I live in Oslo")
        _know(memory, "Oslo", message_id=message)
        memory.delete_message(message)
        [fact] = memory.get_knowledge(user_id="alice")
        assert (fact.value, fact.message_id) == ("Oslo", None)

    def test_pages_hold_every_fact_once(self, memory: MemoryManager) -> None:
        ids = [_know(memory, str(number), key=str(number)) for number in range(5)]
        found: list[int | None] = []
        while page := memory.get_knowledge(user_id="alice", limit=2, after=found[-1] if found else None):
            found += [fact.id for fact in page]
        assert found == ids
        assert _values(memory, limit=0) == []

    def test_an_embedding_comes_back_when_asked_for(self, memory: MemoryManager) -> None:
        vector = [math.sin(number) * 10 ** (number % 5 - 2) for number in range(1, 65)]
        _know(memory, "Oslo", embedding=vector, embedding_model="mine")
        _know(memory, "tea", key="drink")
        with_vector, without = memory.get_knowledge(user_id="alice", with_embedding=True)
        assert with_vector.embedding == pytest.approx(vector, rel=1e-3)
        assert with_vector.embedding_model == "mine"
        assert (without.embedding, without.embedding_model) == (None, None)
        assert memory.get_knowledge(user_id="alice")[0].embedding is None

    def test_a_refresh_may_bring_another_embedding(self, memory: MemoryManager) -> None:
        _know(memory, "Oslo", embedding=[1.0, 2.0], embedding_model="mine")
        _know(memory, "Oslo", embedding=[3.0], embedding_model="mine")
        [fact] = memory.get_knowledge(user_id="alice", with_embedding=True)
        assert fact.embedding == [3.0]
