"""Facts found by words and by meaning, within what was asked for; vectors of the caller's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mirai_memory import InvalidInput, Knowledge, MemoryManager, load_settings
from mirai_memory.search import knowledge_search
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


@pytest.fixture
def embedded(url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    """A memory with an embedder, once per engine."""
    settings = load_settings(memory={"rag": {"background": False, "search_budget_ms": 60_000}})
    with MemoryManager(url, clock=clock, embedder=FakeEmbedder(), settings=settings) as memory:
        yield memory


def _know(memory: MemoryManager, value: str, **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(value=value, **{"user_id": "alice", **fields}))


def _found(memory: MemoryManager, query: str = "", **options: Any) -> list[str]:
    return [fact.value for fact in memory.search_knowledge(query, **{"user_id": "alice", **options})]


def _near(memory: MemoryManager, **options: Any) -> set[str]:
    """What stands out by meaning, asked without words."""
    found = memory.search_knowledge("", **{"user_id": "alice", "explain": True, **options})
    return {fact.value for fact in found if (fact.explanation or {}).get("dense", 0.0) > 0}


# --- words and meaning ------------------------------------------------------------------------------------------------


def test_a_score_is_the_sum_of_what_is_explained(embedded: MemoryManager) -> None:
    for value in ("green tea", "black tea", "a tower", "tea"):
        _know(embedded, value)
    names: set[str] = set()
    for fact in embedded.search_knowledge("green tea", user_id="alice", explain=True):
        assert fact.explanation is not None
        assert fact.score == pytest.approx(sum(fact.explanation.values()), abs=1e-3)
        names |= fact.explanation.keys()
    assert names == {"bm", "sess", "near", "dense"}
    assert [fact.explanation for fact in embedded.search_knowledge("tea", user_id="alice")] == [None] * 4


def test_a_fact_is_found_by_its_meaning_alone(embedded: MemoryManager) -> None:
    _know(embedded, "green tea", embedding=EAST, embedding_model="mine")
    _know(embedded, "a tower", embedding=NORTH, embedding_model="mine")
    assert _found(embedded, "?!")  # no word to look for
    assert _near(embedded, embedding=EAST, embedding_model="mine") == {"green tea"}


@pytest.mark.parametrize(
    "narrowed",
    [
        {"category": "drinks"},
        {"source_kind": "document"},
        {"min_confidence": 0.75},
        {"category": "drinks", "source_kind": "document", "min_confidence": 0.75},
    ],
)
def test_filters_hold_inside_the_search_by_meaning_too(
    embedded: MemoryManager, monkeypatch: pytest.MonkeyPatch, narrowed: dict[str, Any]
) -> None:
    """Not applied to its results: however many others are nearer, what is wanted is found."""
    monkeypatch.setattr(knowledge_search, "CANDIDATES", 2)
    wanted: dict[str, Any] = {"category": "drinks", "source_kind": "document", "confidence": 0.75}
    for number in range(40):
        _know(embedded, f"tea {number}", category="other", source_kind="user", confidence=0.7)
    _know(embedded, "a cup of tea in the evening, with milk", **wanted)
    _know(embedded, "nothing of the kind", **wanted)
    assert _found(embedded, "tea", limit=1, **narrowed) == ["a cup of tea in the evening, with milk"]
    assert set(_found(embedded, "tea", **narrowed)) == {"a cup of tea in the evening, with milk", "nothing of the kind"}
    assert len(_found(embedded, "?!", **narrowed)) == 2


def test_what_is_gone_is_not_found_by_meaning(embedded: MemoryManager, clock: FrozenClock) -> None:
    now = clock()
    asked: dict[str, Any] = {"embedding": EAST, "embedding_model": "mine"}
    for number in range(4):
        _know(embedded, f"far {number}", embedding=NORTH, embedding_model="mine")
    _know(embedded, "superseded", key="a", **asked)
    _know(embedded, "current", key="a", **asked)
    _know(embedded, "expired", key="b", expires_at=now + timedelta(hours=1), **asked)
    _know(embedded, "closed", key="c", valid_from=now - timedelta(days=2), valid_to=now - timedelta(days=1), **asked)
    _know(embedded, "to come", key="d", valid_from=now + timedelta(days=1), **asked)
    deleted = _know(embedded, "deleted", key="e", **asked)
    assert _near(embedded, **asked) == {"current", "expired", "deleted"}
    embedded.delete_knowledge(deleted)
    clock.advance(hours=1)
    assert _near(embedded, **asked) == {"current"}
    assert "expired" not in _found(embedded, "expired superseded closed deleted")
    clock.advance(days=1)
    assert _near(embedded, **asked) == {"current", "to come"}


def test_own_and_shared_facts_and_nobody_else_s(embedded: MemoryManager) -> None:
    for owner in ("alice", "bob", None):
        _know(embedded, f"tea of {owner}", user_id=owner)
    assert set(_found(embedded, "tea")) == {"tea of alice", "tea of None"}
    assert _found(embedded, "tea", user_id=None) == ["tea of None"]
    assert _found(embedded, "tea", user_id="nobody") == ["tea of None"]
    assert {fact.value for fact in embedded.for_user("bob").search_knowledge("?!")} == {"tea of bob", "tea of None"}


def test_the_limit_and_nothing(embedded: MemoryManager) -> None:
    for number in range(5):
        _know(embedded, f"tea {number}")
    assert len(_found(embedded, "tea", limit=3)) == 3
    assert _found(embedded, "tea", limit=0) == []
    assert _found(embedded, "") == _found(embedded, " \n") == []
    assert len(_found(embedded, "tea", limit=1_000)) == 5


def test_more_facts_than_are_looked_at_may_be_asked_for(
    embedded: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge_search, "CANDIDATES", 3)
    for number in range(12):
        _know(embedded, f"tea {number}")
    assert len(_found(embedded, "tea", limit=12)) == 12
    assert _found(embedded, "tea 7", limit=1) == ["tea 7"]


# --- vectors of the caller's own --------------------------------------------------------------------------------------


def test_a_given_vector_serves_where_its_model_is_the_embedder_s(url: str) -> None:
    embedder = FakeEmbedder(dim=2, name="mine")
    with MemoryManager(url, embedder=embedder) as memory:
        _know(memory, "far", embedding=NORTH, embedding_model="mine")
        _know(memory, "near", embedding=EAST, embedding_model="mine")
        assert embedder.texts == []
        embedder.answer_with(EAST)
        found = memory.search_knowledge("?!", user_id="alice", explain=True)
        assert [fact.value for fact in found if "dense" in (fact.explanation or {})] == ["near"]


def test_a_given_vector_of_another_model_stands_beside_the_embedder_s(embedded: MemoryManager) -> None:
    _know(embedded, "green tea", embedding=NORTH, embedding_model="mine")
    _know(embedded, "a tower", embedding=EAST, embedding_model="mine")
    embedded.reindex()
    assert _near(embedded, embedding=EAST, embedding_model="mine") == {"a tower"}
    found = embedded.search_knowledge("green", user_id="alice", explain=True)
    assert [fact.value for fact in found if "dense" in (fact.explanation or {})] == ["green tea"]


def test_a_given_vector_comes_back_as_it_was_given(embedded: MemoryManager) -> None:
    _know(embedded, "tea", embedding=[0.5, -0.25], embedding_model="mine")
    for _ in range(2):
        [fact] = embedded.get_knowledge(user_id="alice", with_embedding=True)
        assert (fact.embedding, fact.embedding_model) == ([0.5, -0.25], "mine")
        embedded.reindex()  # the embedder's own stands beside it


def test_without_a_model_the_embedder_s_vectors_are_asked(embedded: MemoryManager) -> None:
    vector = FakeEmbedder().embed_query("green tea")
    for value in ("green tea", "a tower", "a bridge"):
        _know(embedded, value)
    _know(embedded, "of another model", embedding=vector, embedding_model="mine")
    found = embedded.search_knowledge("", user_id="alice", embedding=vector, explain=True)
    assert found[0].explanation is not None
    assert found[0].value.endswith("green tea")
    assert found[0].explanation["dense"] > 0


def test_without_an_embedder_the_only_model_there_is_is_asked(url: str) -> None:
    with MemoryManager(url) as memory:
        assert _found(memory, "", embedding=EAST) == []
        _know(memory, "east", embedding=EAST, embedding_model="mine")
        _know(memory, "north", embedding=NORTH, embedding_model="mine")
        _know(memory, "bob's", user_id="bob", embedding=EAST, embedding_model="bob's")
        assert _near(memory, embedding=EAST) == {"east"}
        assert _found(memory, "north", embedding=EAST)[0] == "north"  # words count as well
        _know(memory, "another", embedding=EAST, embedding_model="theirs")
        with pytest.raises(InvalidInput, match="embedding_model"):
            memory.search_knowledge("", user_id="alice", embedding=EAST)
        assert _found(memory, "", embedding=EAST, embedding_model="theirs") == ["another"]


@pytest.mark.parametrize("with_embedder", [True, False])
def test_a_vector_of_a_dimension_that_nothing_has_leaves_the_words(url: str, with_embedder: bool) -> None:
    with MemoryManager(url, embedder=FakeEmbedder() if with_embedder else None) as memory:
        _know(memory, "green tea", embedding=EAST, embedding_model="mine")
        for model in (None, "mine", "nobody's"):
            for vector in ([1.0], [1.0, 0.0, 0.0]):
                options: dict[str, Any] = {"embedding": vector, "embedding_model": model}
                assert _found(memory, "tea", **options) == ["green tea"]
                assert _found(memory, "", **options) == []


@pytest.mark.parametrize(
    "vector", [[math.nan], [1.0, math.inf], [], [70_000.0], ["1"], "12", 5, {1.0: 2.0}, [True], [10**400]], ids=str
)
def test_what_is_no_vector_is_refused(embedded: MemoryManager, vector: Any) -> None:
    with pytest.raises(InvalidInput, match="embedding"):
        embedded.search_knowledge("tea", user_id="alice", embedding=vector)
    with pytest.raises(InvalidInput, match="embedding"):
        _know(embedded, "tea", embedding=vector, embedding_model="mine")
    assert embedded.get_knowledge(user_id="alice") == []


def test_a_user_s_own_view_takes_a_vector_too(embedded: MemoryManager) -> None:
    _know(embedded, "east", embedding=EAST, embedding_model="mine")
    _know(embedded, "bob's east", user_id="bob", embedding=EAST, embedding_model="mine")
    found = embedded.for_user("alice").search_knowledge("", embedding=EAST, embedding_model="mine")
    assert [fact.value for fact in found] == ["east"]


def test_a_fact_that_is_said_again_keeps_the_vector_it_was_given(url: str) -> None:
    embedder = FakeEmbedder(dim=2, name="mine")
    settings = load_settings(memory={"rag": {"background": False}})
    with MemoryManager(url, embedder=embedder, settings=settings) as memory:
        _know(memory, "east", key="a", embedding=EAST, embedding_model="mine")
        _know(memory, "east", key="a")
        [fact] = memory.get_knowledge(user_id="alice", with_embedding=True)
        assert fact.embedding == EAST
        memory.reindex()
        [fact] = memory.get_knowledge(user_id="alice", with_embedding=True)
        assert fact.embedding == EAST
        _know(memory, "east", key="a", embedding=NORTH, embedding_model="mine")
        [fact] = memory.get_knowledge(user_id="alice", with_embedding=True)
        assert fact.embedding == NORTH
