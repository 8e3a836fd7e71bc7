"""The layout of a scope: that keeping and growing it is the same as reading it anew, whoever changes what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from mirai_memory import MemoryManager, Message, UnitOfWork
from mirai_memory.database import Db
from mirai_memory.models import StateRow
from mirai_memory.search.cues import ASKS
from mirai_memory.search.layout import Layout
from mirai_memory.search.postings import PostingsIndex
from mirai_memory.testing.clock import FrozenClock

OWNERS = ("alice", "bob")
WORDS = ("tea", "coffee", "moved", "Kazan", "yesterday", "I", "what?", "when?")
QUERIES = ("tea", "coffee Kazan", "when moved Ann", "what tea yesterday")


def _found(memory: MemoryManager, queries: tuple[str, ...] = QUERIES, **options: Any) -> list[Any]:
    """All that searches say, scores and parts included."""
    return [
        (owner, query, found.id, found.content, found.score, found.explanation)
        for owner in OWNERS
        for query in queries
        for found in memory.search_messages(query, user_id=owner, limit=100, explain=True, **options)
    ]


@pytest.fixture(scope="module")
def pair(lasting_url: str) -> Iterator[tuple[str, MemoryManager, MemoryManager]]:
    """One database and two that work on it. All examples share it: nothing is forgotten between them."""
    url = lasting_url
    with MemoryManager(url, clock=FrozenClock()) as first, MemoryManager(url, clock=FrozenClock()) as second:
        for owner in OWNERS:
            for number in range(2):
                first.create_session(owner, session_id=f"{owner}-{number}")
        yield url, first, second


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
SESSIONS = st.sampled_from([f"{owner}-{number}" for owner in OWNERS for number in range(2)])
NAMES = st.sampled_from([None, "Ann", "Ben"])
STEPS = st.one_of(
    st.tuples(st.just("add"), SESSIONS, st.lists(st.tuples(TEXTS, NAMES), min_size=1, max_size=3)),
    st.tuples(st.just("roll back"), SESSIONS, st.lists(st.tuples(TEXTS, NAMES), min_size=1, max_size=3)),
    st.tuples(st.just("update"), SESSIONS, TEXTS),
    st.tuples(st.just("delete"), SESSIONS, st.integers(0, 5)),
    st.tuples(st.just("pop"), SESSIONS, st.none()),
    st.tuples(st.just("trim"), SESSIONS, st.integers(0, 3)),
    st.tuples(st.just("clear"), SESSIONS, st.none()),
    st.tuples(st.just("search"), SESSIONS, TEXTS),
)


class _RolledBack(Exception):
    pass


def _messages(session: str, texts: list[tuple[str, str | None]]) -> list[Message]:
    return [Message(session_id=session, role="user", content=text, name=name) for text, name in texts]


def _roll_back(memory: MemoryManager, session: str, texts: list[tuple[str, str | None]]) -> None:
    """Add, search inside, and take it all back."""

    def change_of_mind(uow: UnitOfWork) -> None:
        uow.messages.add_many(_messages(session, texts))
        uow.messages.search("tea Kazan", limit=5)
        raise _RolledBack

    with pytest.raises(_RolledBack):
        memory.for_user(session.split("-")[0]).run(change_of_mind)


def _one(memory: MemoryManager, session: str, number: int) -> int | None:
    stored = memory.get_messages(session)
    return stored[number % len(stored)].id if stored else None


def _do(memory: MemoryManager, kind: str, session: str, what: Any) -> None:
    if kind in ("update", "delete"):
        id = _one(memory, session, len(what) if kind == "update" else what)
        if id is not None:
            memory.update_message(id, what) if kind == "update" else memory.delete_message(id)
        return
    acts: dict[str, Callable[[], Any]] = {
        "add": lambda: memory.add_messages(_messages(session, what)),
        "roll back": lambda: _roll_back(memory, session, what),
        "pop": lambda: memory.pop_message(session),
        "trim": lambda: memory.trim_old_messages(session, what),
        "clear": lambda: memory.clear_session(session),
        "search": lambda: memory.search_messages(what, user_id=session.split("-")[0]),
    }
    acts[kind]()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.booleans(), STEPS), max_size=12))
@example(
    steps=[
        (True, ("add", "alice-0", [("tea", None), ("coffee", None), ("moved", None)])),
        (False, ("search", "alice-0", "tea")),
        (True, ("update", "alice-0", "Kazan")),
        (True, ("delete", "alice-0", 1)),
        (True, ("add", "alice-0", [("tea", None)])),  # there are as many again
    ]
)
def test_what_is_kept_and_grown_equals_what_is_read_anew(
    pair: tuple[str, MemoryManager, MemoryManager], steps: list[tuple[bool, Any]]
) -> None:
    url, *both = pair
    for first, step in steps:
        _do(both[0] if first else both[1], *step)
    with MemoryManager(url, clock=FrozenClock()) as fresh:
        expected = _found(fresh)
    assert _found(both[0]) == expected
    assert _found(both[1]) == expected


def test_a_write_that_is_rolled_back_is_not_kept(memory: MemoryManager) -> None:
    session, other = (memory.create_session("alice", session_id=f"alice-{n}").id for n in range(2))
    memory.add_messages(_messages(session, [("green tea", None), ("black coffee", None)]))
    before = _found(memory)
    _roll_back(memory, session, [("nobody's tea", "Nobody"), ("nobody's coffee", "Nobody")])
    assert _found(memory) == before
    _roll_back(memory, session, [("nobody's tea", "Nobody"), ("nobody's coffee", "Nobody")])
    # As many messages, under the ids that were taken back.
    memory.add_messages(_messages(other, [("snow", "Ann"), ("rain", "Ben")]))
    with MemoryManager(memory.url, clock=FrozenClock()) as fresh:
        assert _found(memory, (*QUERIES, "rain of Ann")) == _found(fresh, (*QUERIES, "rain of Ann"))


def test_a_lower_id_that_was_committed_later(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL ids become visible out of their order; what is kept must not stop at the highest."""
    inserted, may_go = threading.Event(), threading.Event()
    add = PostingsIndex.add

    def add_slowly(self: PostingsIndex, db: Db, kind: Any, entries: Any) -> None:
        if "slow" in entries[0].terms:
            inserted.set()
            assert may_go.wait(60)
        add(self, db, kind, entries)

    monkeypatch.setattr(PostingsIndex, "add", add_slowly)
    with MemoryManager(postgres_url) as memory, ThreadPoolExecutor(1) as pool:
        slow, quick = (memory.create_session("alice").id for _ in range(2))
        first = pool.submit(memory.add_messages, _messages(slow, [("slow tea", None), ("slow rain", None)]))
        assert inserted.wait(60)
        second = memory.add_message(_messages(quick, [("quick tea", None)])[0])
        assert [found.id for found in memory.search_messages("tea", user_id="alice")] == [second]
        may_go.set()
        late = first.result(60)[0]
        assert late < second
        assert {late, second} <= {found.id for found in memory.search_messages("tea", user_id="alice")}


def test_an_owner_s_layout_is_the_owner_s_own(memory: MemoryManager) -> None:
    """Scopes that are read in turn, of equal size: none is taken for the other."""
    for owner in OWNERS:
        session = memory.create_session(owner).id
        memory.add_messages(_messages(session, [(f"tea of {owner}", owner), ("coffee", None)]))
    for _ in range(2):
        for owner in OWNERS:
            found = memory.search_messages("tea", user_id=owner)
            assert [message.content for message in found] == [f"tea of {owner}", "coffee"]
            assert {message.session_id for message in found} == {memory.list_sessions(owner)[0].id}


def test_another_manager_s_messages_are_in_the_next_search(url: str) -> None:
    with MemoryManager(url) as one, MemoryManager(url) as other:
        session = one.create_session("alice").id
        for number in range(1, 4):
            one.add_message(Message(session_id=session, role="user", content=f"tea {number}"))
            assert len(other.search_messages("tea", user_id="alice")) == number
        id = one.add_message(Message(session_id=session, role="user", content="tea 4"))
        assert len(other.search_messages("tea", user_id="alice")) == 4
        one.delete_message(id)
        one.add_message(Message(session_id=session, role="user", content="tea 5"))
        found = other.search_messages("tea", user_id="alice")  # as many as before, and others
        assert {message.content for message in found} == {"tea 1", "tea 2", "tea 3", "tea 5"}


def test_an_index_made_anew_is_read_anew(url: str) -> None:
    """Scopes are filled in another order than they were: what was kept of one would be another's."""
    with MemoryManager(url) as memory:
        for owner in ("bob", "alice", "bob"):
            session = memory.create_session(owner).id
            memory.add_messages(_messages(session, [(f"tea of {owner}", None), ("coffee", None)]))
        memory.delete_message(memory.search_messages("tea", user_id="bob")[-1].id or 0)
        before = _found(memory)
        old = update(StateRow.table()).where(StateRow.table().c.name == "analyzer_version").values(value="old")
        memory.run(lambda uow: uow.db.execute(old) and None)
        with MemoryManager(url) as other:
            assert _found(other) == before
        assert _found(memory) == before


# --- columns ----------------------------------------------------------------------------------------------------------

# id, session, position, speaker, cues, length, time
TALK = [
    (11, 7, 1, "role:user", ASKS, 3, 100),
    (12, 7, 2, "role:assistant", 0, 3, 200),
    (13, 7, 3, "role:assistant", 0, 3, 300),
    (14, 7, 4, "role:user", 0, 3, 400),
    (21, 5, 1, "name:Ann", ASKS, 3, 150),
    (22, 5, 2, "name:Ann", 0, 3, 250),
]


def test_a_layout_that_grew_equals_one_of_all_rows() -> None:
    whole, grown = Layout.of(TALK), Layout.of(TALK[3:5]).extended(TALK[:3]).extended(TALK[5:])
    for name in ("ids", "sessions", "positions", "cues", "lengths", "times", "replied", "opens", "has_speakers"):
        assert np.array_equal(getattr(whole, name), getattr(grown, name)), name
    spoken = [[layout.names[number] for number in layout.speakers] for layout in (whole, grown)]
    assert spoken[0] == spoken[1]


def test_what_a_turn_replies_to() -> None:
    layout = Layout.of(TALK)
    places = zip(layout.ids.tolist(), layout.replied.tolist(), strict=True)
    replied = {id: int(layout.ids[place]) for id, place in places if place >= 0}
    # 14 replies to the assistant, who does not ask. In the other session nobody answers Ann: without speakers, the
    # turn before counts.
    assert replied == {12: 11, 13: 11, 22: 21}


def test_a_reply_is_to_what_another_said_last() -> None:
    layout = Layout.of([(1, 1, 0, "a", ASKS, 1, 0), (2, 1, 1, "a", 0, 1, 0), (3, 1, 2, "b", 0, 1, 0)])
    assert layout.replied.tolist() == [-1, -1, -1]


def test_a_question_too_far_back_is_not_replied_to() -> None:
    rows = [(1, 1, 0, "a", ASKS, 1, 0), *((n + 1, 1, n, "b", 0, 1, 0) for n in range(1, 7))]
    layout = Layout.of(rows)
    assert [int(place) for place in layout.replied] == [-1, 0, 0, 0, 0, -1, -1]


def test_a_session_of_one_speaker_has_none() -> None:
    layout = Layout.of(TALK)
    assert dict(zip(layout.ids.tolist(), layout.has_speakers.tolist(), strict=True)) == {
        11: True, 12: True, 13: True, 14: True, 21: False, 22: False,
    }  # fmt: skip


def test_ids_are_found_wherever_they_stand() -> None:
    layout = Layout.of(TALK)
    assert layout.find([22, 11, 99, -1]).tolist() == [
        int(np.flatnonzero(layout.ids == 22)[0]),
        int(np.flatnonzero(layout.ids == 11)[0]),
        -1,
        -1,
    ]
    assert layout.places([99]).tolist() == layout.find([]).tolist() == Layout.of(()).places([1]).tolist() == []


def test_a_layout_of_nothing_and_of_one() -> None:
    nothing, one = Layout.of(()), Layout.of(TALK[:1])
    assert len(nothing) == len(nothing.starts) == len(nothing.session_numbers) == len(nothing.replied) == 0
    assert nothing.widened(nothing.starts, 2).tolist() == []
    assert one.replied.tolist() == [-1]
    assert one.widened(one.starts, 2).tolist() == one.starts.tolist() == [0]
    assert one.opens.tolist() == [True]
    assert Layout.of(()).extended(TALK[:1]).ids.tolist() == [11]


def test_what_is_widened_stays_in_its_session() -> None:
    layout = Layout.of(TALK)
    assert {*layout.ids[layout.widened(layout.places([22]), 2)].tolist()} == {21, 22}
    assert {*layout.ids[layout.widened(layout.places([12]), 1)].tolist()} == {11, 12, 13}
