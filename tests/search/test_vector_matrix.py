"""The vectors of a scope as a matrix: that keeping and growing it is the same as reading it anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from mirai_memory import Knowledge, MemoryManager, Settings, UnitOfWork, load_settings
from mirai_memory.database import Db
from mirai_memory.models import StateRow
from mirai_memory.search import vectors
from mirai_memory.search.base import Query, QueryVector
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.vectors import Vectors
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import new_session, said, say

OWNERS = ("alice", "bob")
WORDS = ("tea", "coffee", "river", "tower", "fence")


def _settings(**rag: Any) -> Settings:
    return load_settings(memory={"rag": {"embedder": "none", "background": False, "search_budget_ms": 60_000, **rag}})


@contextmanager
def _open(url: str, embedder: FakeEmbedder | None = None, **rag: Any) -> Iterator[MemoryManager]:
    embedder = embedder or FakeEmbedder(dim=32)
    with MemoryManager(url, clock=FrozenClock(), embedder=embedder, settings=_settings(**rag)) as memory:
        yield memory


def _found(memory: MemoryManager) -> list[Any]:
    """All that searches say, scores and parts included; the parts of meaning among them."""
    found: list[Any] = []
    for owner in OWNERS:
        for query in (*WORDS[:3], "tower of tea"):
            found += memory.search_messages(query, user_id=owner, limit=100, explain=True)
            found += memory.search_knowledge(query, 100, user_id=owner, explain=True)
        for given_ in ([1.0, 0.0], [0.0, 1.0]):
            mine = memory.search_knowledge(
                "", 100, user_id=owner, embedding=given_, embedding_model="mine", explain=True
            )
            found += mine
    return [(type(item).__name__, item.id, item.score, item.explanation) for item in found]


# --- grown, or read anew ----------------------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
OWNED = st.sampled_from(OWNERS)
GIVEN = st.sampled_from([None, [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0, 0.0]])
STEPS = st.one_of(
    st.tuples(st.just("say"), OWNED, st.lists(TEXTS, min_size=1, max_size=3)),
    st.tuples(st.just("update"), OWNED, TEXTS),
    st.tuples(st.just("delete"), OWNED, st.integers(0, 5)),
    st.tuples(st.just("trim"), OWNED, st.integers(0, 2)),
    st.tuples(
        st.just("know"),
        st.sampled_from([*OWNERS, None]),
        st.tuples(st.sampled_from("ab"), st.sampled_from(WORDS[:2]), GIVEN),
    ),
    st.tuples(st.just("unknow"), st.sampled_from([*OWNERS, None]), st.sampled_from("ab")),
    st.tuples(st.just("reindex"), OWNED, st.booleans()),
    st.tuples(st.just("search"), OWNED, TEXTS),
)


def _know(memory: MemoryManager, owner: str | None, key: str, value: str, given_: list[float] | None) -> int:
    model = None if given_ is None else "mine"
    return memory.add_knowledge(Knowledge(user_id=owner, key=key, value=value, embedding=given_, embedding_model=model))


def _one(memory: MemoryManager, session: str, number: int) -> int:
    stored = memory.get_messages(session)
    return (stored[number % len(stored)].id or 0) if stored else 0


def _change_one(memory: MemoryManager, session: str, what: Any) -> None:
    id = _one(memory, session, what if isinstance(what, int) else len(what))
    if id:
        memory.delete_message(id) if isinstance(what, int) else memory.update_message(id, what)


def _do(memory: MemoryManager, kind: str, owner: Any, what: Any) -> None:
    session = f"of-{owner}"
    acts: dict[str, Callable[[], Any]] = {
        "say": lambda: memory.add_messages([said(session, text) for text in what]),
        "update": lambda: _change_one(memory, session, what),
        "delete": lambda: _change_one(memory, session, what),
        "trim": lambda: memory.trim_old_messages(session, what),
        "know": lambda: _know(memory, owner, *what),
        "unknow": lambda: memory.delete_knowledge(key=what, user_id=owner),
        "reindex": lambda: memory.reindex(keep_old=what),
        "search": lambda: memory.search_messages(what, user_id=owner),
    }
    acts[kind]()


@pytest.fixture(scope="module")
def path(lasting_url: str) -> str:
    with MemoryManager(lasting_url) as memory:
        for owner in OWNERS:
            memory.create_session(owner, session_id=f"of-{owner}")
    return lasting_url


@pytest.fixture(scope="module")
def pair(path: str) -> Iterator[tuple[MemoryManager, MemoryManager]]:
    """Two that work on one database. All examples share it: nothing is forgotten between them."""
    with _open(path) as first, _open(path) as second:
        yield first, second


@pytest.mark.long
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(st.booleans(), STEPS), max_size=10))
def test_what_is_kept_and_grown_equals_what_is_read_anew(
    path: str, pair: tuple[MemoryManager, MemoryManager], steps: list[tuple[bool, Any]]
) -> None:
    for first, step in steps:
        _do(pair[0] if first else pair[1], *step)
        _found(pair[0])
    found = _found(pair[0])
    with _open(path) as fresh:
        assert found == _found(fresh)
    assert found == _found(pair[1])


@pytest.mark.parametrize("rag", [{"cache_mb": 1}, {"cache_mb": 512}])
def test_a_scope_too_large_for_the_cache_is_read_in_blocks(
    url: str, monkeypatch: pytest.MonkeyPatch, rag: dict[str, int]
) -> None:
    monkeypatch.setattr(vectors, "_BLOCK", 4)
    embedder = FakeEmbedder(dim=30_000)
    with _open(url, embedder) as kept:
        session = new_session(kept)
        say(kept, session, *(f"{word} {number}" for number in range(5) for word in WORDS[:3]))
        kept.reindex()
        expected = _found(kept)
        assert any("dense" in parts for *_, parts in expected)
    with _open(url, embedder, **rag) as memory:
        assert [_found(memory), _found(memory)] == [expected, expected]


# --- what it must not keep --------------------------------------------------------------------------------------------


def _dense(memory: MemoryManager, query: str, **options: Any) -> dict[str, float]:
    """How near each fact of alice's is, by its value."""
    found = memory.search_knowledge(query, 100, user_id="alice", explain=True, **options)
    return {fact.value: (fact.explanation or {}).get("dense", 0.0) for fact in found}


def test_a_write_that_is_rolled_back_is_not_kept(url: str) -> None:
    with _open(url) as memory:
        for value in WORDS:
            _know(memory, "alice", value, value, [1.0, 0.0])
        before = _dense(memory, "", embedding=[0.0, 1.0], embedding_model="mine")

        def change_of_mind(uow: UnitOfWork) -> None:
            uow.knowledge.add(Knowledge(key="new", value="new", embedding=[0.0, 1.0], embedding_model="mine"))
            asked = Query("", QueryVector.of("mine", [0.0, 1.0]))
            assert uow.knowledge.search(asked, limit=5)[0].value == "new"
            raise LookupError

        with pytest.raises(LookupError):
            memory.for_user("alice").run(change_of_mind)
        assert _dense(memory, "", embedding=[0.0, 1.0], embedding_model="mine") == before
        _know(memory, "alice", "other", "other", [1.0, 0.0])  # under the id that was taken back
        after = _dense(memory, "", embedding=[0.0, 1.0], embedding_model="mine")
        assert "new" not in after
        assert set(after.values()) == {0.0}


def test_a_given_vector_that_is_replaced_is_not_found_any_more(url: str) -> None:
    with _open(url) as memory:
        for value in WORDS:
            _know(memory, "alice", value, value, [1.0, 0.0])
        asked = {"embedding": [0.0, 1.0], "embedding_model": "mine"}
        assert max(_dense(memory, "", **asked).values()) == 0
        _know(memory, "alice", "tea", "tea", [0.0, 1.0])
        found = _dense(memory, "", **asked)
        assert {value for value, near in found.items() if near > 0} == {"tea"}
        _know(memory, "alice", "tea", "tea", [1.0, 0.0])
        assert max(_dense(memory, "", **asked).values()) == 0


def test_owners_and_shared_facts_have_matrices_of_their_own(url: str) -> None:
    with _open(url) as memory:
        for owner in (*OWNERS, None):
            for word in WORDS:
                _know(memory, owner, word, f"{word} of {owner or 'all'}", None)
        for _ in range(2):
            for owner in OWNERS:
                found = memory.search_knowledge("tea", 100, user_id=owner)
                assert {fact.value for fact in found[:2]} == {f"tea of {owner}", "tea of all"}
                assert {fact.user_id for fact in found} == {owner, None}
            assert {fact.user_id for fact in memory.search_knowledge("tea", 100)} == {None}


def test_an_index_made_anew_keeps_the_vectors(url: str) -> None:
    with _open(url) as memory, _open(url) as other:
        say(memory, new_session(memory), *WORDS)
        _know(memory, "alice", "drink", "green tea", None)
        memory.reindex()
        before = _found(memory)
        assert _found(other) == before
        assert any("dense_sess" in parts for *_, parts in before)
        old = update(StateRow.table()).where(StateRow.table().c.name == "analyzer_version").values(value="old")
        memory.run(lambda uow: uow.db.execute(old) and None)
        with _open(url) as fresh:
            assert _found(fresh) == before
        assert _found(memory) == before
        assert _found(other) == before


def test_a_transaction_that_began_earlier_takes_nothing_from_later_ones(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the scope as it was; the matrix that others have grown meanwhile is neither used nor cut back."""
    with _open(url) as memory:
        session = new_session(memory)
        old, *_ = say(memory, session, "tea", "river two", "fence three")
        memory.reindex()
        memory.search_messages("tea", user_id="alice")
        begun, may_go = threading.Event(), threading.Event()
        find = Vectors._of_scope

        def wait_first(self: Vectors, db: Db, *arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name.startswith("early"):
                begun.set()
                assert may_go.wait(60)
            return find(self, db, *arguments, **options)

        monkeypatch.setattr(Vectors, "_of_scope", wait_first)
        with ThreadPoolExecutor(1, thread_name_prefix="early") as pool:
            early = pool.submit(memory.search_messages, "tea", user_id="alice", explain=True)
            assert begun.wait(60)
            memory.delete_message(old)
            say(memory, session, "coffee four", "tower five")
            memory.reindex()
            expected = _found(memory)
            may_go.set()
            assert {message.content for message in early.result(60)} == {"tea", "river two", "fence three"}
        assert _found(memory) == expected
        with _open(url) as fresh:
            assert _found(fresh) == expected


# --- the cache --------------------------------------------------------------------------------------------------------


class _Sized:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_the_longest_unused_goes_first() -> None:
    cache = ScopeCache(100)
    small = [_Sized(40) for _ in range(3)]
    cache.put("a", small[0])
    cache.put("b", small[1])
    assert cache.get("a") is small[0]
    cache.put("c", small[2])
    assert [cache.get(key) for key in "abc"] == [small[0], None, small[2]]


def test_what_alone_is_too_large_is_not_kept_and_drives_nothing_out() -> None:
    cache = ScopeCache(100)
    kept = _Sized(60)
    cache.put("a", kept)
    cache.put("b", _Sized(101))
    assert (cache.get("a"), cache.get("b")) == (kept, None)
    cache.put("a", _Sized(101))
    assert cache.get("a") is None
    cache.put("c", _Sized(100))  # all of the room is free again
    assert cache.get("c") is not None


def test_a_value_that_takes_the_place_of_another_gives_its_room_back() -> None:
    cache = ScopeCache(100)
    for size in (90, 10, 50):
        cache.put("a", _Sized(size))
    cache.put("b", _Sized(50))
    assert cache.get("a") is not None
    assert cache.get("b") is not None


def test_scores_do_not_depend_on_how_many_vectors_are_read_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _open(url) as memory:
        say(memory, new_session(memory), *(f"{word} {number}" for number in range(40) for word in WORDS))
        memory.reindex()
        expected = _found(memory)
    monkeypatch.setattr(vectors, "_BLOCK", 7)
    with _open(url) as memory:
        assert _found(memory) == expected


def test_a_vector_s_length_is_no_matter(url: str) -> None:
    with _open(url) as memory:
        for number, size in enumerate((1e-3, 1.0, 60_000.0, 0.0)):
            _know(memory, "alice", str(number), f"fact {number}", [size, 0.0])
        _know(memory, "alice", "beside", "beside", [0.0, 1.0])
        for size in (1e-3, 60_000.0):
            found = _dense(memory, "", embedding=[size, 0.0], embedding_model="mine")
            nearest = found["fact 1"]
            assert nearest > 0
            assert found == pytest.approx({f"fact {n}": nearest for n in range(3)} | {"fact 3": 0.0, "beside": 0.0})
        assert max(_dense(memory, "", embedding=[0.0, 0.0], embedding_model="mine").values()) == 0
