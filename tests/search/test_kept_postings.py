"""Postings kept between searches: read once, grown by what has come, and always what a fresh look would find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from mirai_memory import MemoryManager, load_settings
from mirai_memory.search import kept_postings, postings
from mirai_memory.search.postings import PostingsIndex
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, said, say

QUERIES = ("green tea", "tea", "rain", "nothing")


def _found(memory: MemoryManager, owner: str = "alice") -> list[Any]:
    """All that searches say, scores and parts included."""
    return [
        (query, found.id, found.score, found.explanation)
        for query in QUERIES
        for found in memory.search_messages(query, user_id=owner, limit=1_000, explain=True)
    ]


def _fresh(memory: MemoryManager, owner: str = "alice") -> list[Any]:
    with MemoryManager(memory.url, clock=FrozenClock()) as other:
        return _found(other, owner)


@contextmanager
def _looked_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The terms whose postings the engine is asked for."""
    asked: list[str] = []
    ask = PostingsIndex.postings

    def noted(
        self: PostingsIndex, db: Any, kind: Any, corpus: Any, terms: Sequence[str], narrow: Sequence[Any] = ()
    ) -> dict[str, list[int]]:
        asked.extend(terms)
        return ask(self, db, kind, corpus, terms, narrow)

    with monkeypatch.context() as patched:
        patched.setattr(PostingsIndex, "postings", noted)
        yield asked


def test_the_engine_is_asked_for_a_term_once(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session(memory)
    say(memory, session, "green tea", "rain")
    with _looked_up(monkeypatch) as asked:
        for number in range(3):
            say(memory, session, f"tea {number}")
            found = memory.search_messages("green tea", user_id="alice")
            assert found[0].content == "green tea"
            assert {f"tea {n}" for n in range(number + 1)} < {*contents(found)}
    assert sorted(asked) == ["green", "tea"]


@pytest.mark.parametrize("more", [1, 30])
def test_what_has_come_since_is_found(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(kept_postings, "_GROWN", 20)
    session = new_session(memory)
    say(memory, session, "green tea", "rain", "tea")
    before = _found(memory)
    say(memory, session, *(f"tea of day {number}" for number in range(more)), "rain and tea")
    after = _found(memory)
    assert len(after) > len(before)
    assert after == _fresh(memory)


def test_terms_that_were_kept_at_different_times(memory: MemoryManager) -> None:
    session = new_session(memory)
    for query in ("tea", "rain", "green"):
        say(memory, session, "green tea", "rain")
        memory.search_messages(query, user_id="alice")
    say(memory, session, "green rain", "black tea")
    assert _found(memory) == _fresh(memory)


@pytest.mark.parametrize("most", [2, 5])
def test_a_common_term_keeps_its_newest(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(postings, "POSTINGS", most)
    monkeypatch.setattr(postings, "SAMPLE", 4)
    session = new_session(memory)
    for number in range(4):
        say(memory, session, f"tea {number}", "rain", "green tea")
        assert _found(memory) == _fresh(memory)


def test_terms_that_the_engine_does_not_have(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL keeps so many lexemes of a text and no more; what is kept has no others either."""
    monkeypatch.setattr("mirai_memory.search.postgres._MAX_LEXEME_BYTES", 300)
    monkeypatch.setattr(kept_postings, "_LONGEST", 300)
    with MemoryManager(postgres_url, clock=FrozenClock()) as memory:
        session = new_session(memory)
        say(memory, session, "tea", "coffee", "snow", "fog")
        _found(memory)
        words = " ".join(f"word{number}" for number in range(100))
        # Two at once, which are stored piece by piece: one alone is counted in the statement that stores it.
        memory.add_messages([said(session, f"{words} tea"), said(session, "rain")])
        assert _found(memory) == _fresh(memory)


def test_what_is_deleted_and_written_anew(memory: MemoryManager) -> None:
    session = new_session(memory)
    ids = say(memory, session, "green tea", "rain", "tea")
    _found(memory)
    memory.update_message(ids[0], "rain")
    assert _found(memory) == _fresh(memory)
    memory.delete_message(ids[2])
    say(memory, session, "tea again")
    assert _found(memory) == _fresh(memory)


def test_nobody_s_postings_serve_another(memory: MemoryManager) -> None:
    for owner in ("alice", "bob"):
        say(memory, new_session(memory, owner), f"tea of {owner}", "green", "rain")
    for _ in range(2):
        for owner in ("alice", "bob"):
            assert _found(memory, owner) == _fresh(memory, owner)


def test_without_room_nothing_is_kept(url: str, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirai_memory.search.index._MEGABYTE", 100)  # bytes
    settings = load_settings(memory={"rag": {"cache_mb": 1}})
    with MemoryManager(url, clock=clock, settings=settings) as memory:
        say(memory, new_session(memory), "green tea", "rain")
        with _looked_up(monkeypatch) as asked:
            for _ in range(2):
                assert _found(memory) == _fresh(memory)
        assert asked.count("green") == 4  # two of them by the fresh ones
