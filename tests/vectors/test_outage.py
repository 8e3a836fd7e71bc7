"""An embedder that fails, hangs or answers nonsense costs the vector, never the text, and is left alone for a while."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from mirai_memory import EmbeddingError, Knowledge, MemoryManager
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.contract.making import contents, new_session, say

Faults = dict[str, Callable[[FakeEmbedder], None]]
FAULTS: Faults = {
    "fails": lambda embedder: embedder.fail(),
    "fails with an exit": lambda embedder: embedder.fail(EmbeddingError("no")),
    "hangs": lambda embedder: embedder.hang(),
    "answers None": lambda embedder: embedder.answer_with(None),
    "answers too few": lambda embedder: embedder.answer_with([]),
    "answers NaN": lambda embedder: embedder.answer_with([[math.nan] * 256]),
    "answers another dimension": lambda embedder: embedder.answer_with([[1.0, 2.0]]),
    "answers words": lambda embedder: embedder.answer_with("vectors"),
}


def _fact(memory: MemoryManager, value: str) -> int:
    return memory.add_knowledge(Knowledge(user_id="alice", key=value.split()[-1], value=value))


@pytest.mark.parametrize("fault", FAULTS)
def test_texts_are_stored_and_found_by_their_words_and_get_their_vectors_later(
    opened: Any, embedder: FakeEmbedder, vectors: Any, lines: list[str], monotonic: Any, eventually: Any, fault: str
) -> None:
    with opened(timeout_s=0.02) as memory:
        assert embedder.dim == 256
        FAULTS[fault](embedder)
        _fact(memory, "green tea")
        session = new_session(memory)
        say(memory, session, "green tea in the morning")
        for _ in range(3):
            monotonic.advance(0.3)
            assert [fact.value for fact in memory.search_knowledge("tea", user_id="alice")] == ["green tea"]
            assert contents(memory.search_messages("tea", user_id="alice")) == ["green tea in the morning"]
            assert len(memory.recall("tea", user_id="alice")) == 2
            assert len(memory.build_context(session, "tea").knowledge) == 1
        assert vectors(memory) == {"pending": 2}
        with pytest.raises(EmbeddingError):
            memory.reindex()
        assert len([line for line in lines if line.startswith("WARNING")]) == 1
        assert "tea" not in "".join(lines)

        embedder.recover()
        monotonic.advance(300)

        def is_well() -> bool:
            monotonic.advance(300)
            return "dense" in (memory.search_messages("tea", user_id="alice", explain=True)[0].explanation or {})

        eventually(is_well)  # a call that has hung comes back on a thread of its own
        assert vectors(memory) == {"ready": 2}
        assert [line for line in lines if line.startswith("INFO")] == ["INFO embedder 'fake' works again\n"]


def test_an_embedder_that_cannot_even_say_its_dimension(opened: Any, vectors: Any) -> None:
    class Unsure(FakeEmbedder):
        known = False

        @property
        def dim(self) -> int:
            if not self.known:
                raise ConnectionError("no connection")
            return 256

        @dim.setter
        def dim(self, value: int) -> None: ...

    embedder = Unsure()
    with opened(embedder) as memory:
        _fact(memory, "green tea")
        say(memory, new_session(memory), "green tea")
        assert len(memory.recall("tea", user_id="alice")) == 2
        assert vectors(memory) == {"pending": 2}
        embedder.known = True
        assert memory.reindex() == 2


# --- when it is tried again -------------------------------------------------------------------------------------------


def test_it_rests_twice_as_long_after_each_failure_up_to_five_minutes(
    memory: MemoryManager, embedder: FakeEmbedder, lines: list[str], monotonic: Any
) -> None:
    def tried() -> bool:
        before = embedder.calls
        memory.search_messages("tea", user_id="alice")
        return embedder.calls > before

    embedder.fail()
    assert tried()
    for rest in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
        monotonic.advance(rest - 0.01)
        assert not tried()
        monotonic.advance(0.02)
        assert tried()
    assert len(lines) == 1
    embedder.recover()
    monotonic.advance(301)
    assert tried()
    assert tried()
    embedder.fail()
    assert tried()
    monotonic.advance(1.01)  # it begins anew
    assert tried()
    assert [line.split()[0] for line in lines] == ["WARNING", "INFO", "WARNING"]


def test_an_outage_may_last_for_ever(memory: MemoryManager, embedder: FakeEmbedder, monotonic: Any) -> None:
    embedder.fail()
    for _ in range(1_100):
        assert memory.search_messages("tea", user_id="alice") == []
        monotonic.advance(301)


def test_of_many_that_try_at_once_one_failure_counts(opened: Any, embedder: FakeEmbedder, monotonic: Any) -> None:
    """Else eight threads would make it a rest of minutes."""
    with opened() as memory:
        embedder.fail()
        barrier = threading.Barrier(8, timeout=60)

        def search(_: int) -> list[Any]:
            barrier.wait()
            return memory.search_messages("tea", user_id="alice")

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(search, range(8))) == [[]] * 8
        embedder.recover()
        monotonic.advance(1.01)
        before = embedder.calls
        memory.search_messages("tea", user_id="alice")
        assert embedder.calls == before + 1


def test_what_needs_no_embedder_is_no_sign_that_it_works(
    memory: MemoryManager, embedder: FakeEmbedder, lines: list[str], monotonic: Any
) -> None:
    """Nothing is wanted, or all of it was embedded before: the outage goes on."""
    _fact(memory, "green tea")
    embedder.fail()
    memory.search_knowledge("tea", user_id="alice")
    for _ in range(5):
        monotonic.advance(301)
        _fact(memory, "green tea")
        memory.search_knowledge("tea", user_id="alice")
        memory.reindex()
    assert len(lines) - len([line for line in lines if "made anew" in line]) == 1


def test_a_reindex_that_works_ends_the_outage(
    memory: MemoryManager, embedder: FakeEmbedder, dense: Any, monotonic: Any
) -> None:
    session = new_session(memory)
    say(memory, session, "tea", "coffee")
    embedder.fail()
    for _ in range(10):
        memory.search_messages("tea", user_id="alice")
        monotonic.advance(200)
    memory.search_messages("tea", user_id="alice")
    embedder.recover()
    assert memory.reindex() == 2
    assert dense(memory, "tea")["tea"] > 0


# --- one text at fault ------------------------------------------------------------------------------------------------


class Picky(FakeEmbedder):
    """Refuses texts of poison."""

    def embed_documents(self, texts: Any) -> Any:
        if any("poison" in text for text in texts):
            self.texts += texts
            raise ValueError("I will not read this")
        return super().embed_documents(texts)


@pytest.mark.parametrize("poison", [(0,), (1,), (0, 1), (2,), (0, 1, 2)])
def test_a_text_that_the_embedder_refuses_stops_no_other(
    opened: Any, vectors: Any, dense: Any, lines: list[str], poison: tuple[int, ...]
) -> None:
    with opened(Picky()) as memory:
        texts = [f"poison {n}" if n in poison else f"tea {n}" for n in range(3)]
        say(memory, new_session(memory), *texts, "coffee")
        found = dense(memory, "coffee")
        assert found["coffee"] > 0
        assert vectors(memory) == {"failed": len(poison), "ready": 4 - len(poison)}
        assert f"poison {poison[0]}" in contents(memory.search_messages("poison", user_id="alice"))
        assert "poison" not in "".join(lines)
        assert len(lines) == len(poison)


def test_a_text_that_is_refused_alone_does_not_pass_for_an_outage(opened: Any, vectors: Any, dense: Any) -> None:
    with opened(Picky()) as memory:
        session = new_session(memory)
        say(memory, session, "tea", "coffee")
        memory.reindex()
        say(memory, session, "poison")
        assert dense(memory, "tea")["tea"] > 0
        assert vectors(memory) == {"failed": 1, "ready": 2}


def test_what_was_given_up_is_tried_again_by_reindex(opened: Any, vectors: Any) -> None:
    with opened(Picky()) as memory:
        say(memory, new_session(memory), "poison", "tea")
        memory.reindex()
        assert vectors(memory) == {"failed": 1, "ready": 1}
        memory.reindex()
        assert vectors(memory) == {"failed": 1, "ready": 1}
    with opened(FakeEmbedder()) as memory:
        assert memory.reindex() == 1
        assert vectors(memory) == {"ready": 2}


def test_an_embedder_that_breaks_down_midway_gives_up_no_text(opened: Any, vectors: Any) -> None:
    class Mortal(Picky):
        lives = 6

        def embed_documents(self, texts: Any) -> Any:
            self.lives -= 1
            if self.lives < 0:
                raise ConnectionError
            return super().embed_documents(texts)

    with opened(Mortal()) as memory:
        # The batch, the test, two texts, the poison and its test: then it ends.
        say(memory, new_session(memory), "tea", "coffee", "poison", "river", "tower")
        with pytest.raises(EmbeddingError):
            memory.reindex()
        assert vectors(memory) == {"failed": 1, "pending": 2, "ready": 2}
    with opened(FakeEmbedder()) as memory:
        assert memory.reindex() == 3


# --- the database at fault --------------------------------------------------------------------------------------------


def test_a_search_that_cannot_store_vectors_searches_all_the_same(
    opened: Any, url: str, embedder: FakeEmbedder, request: pytest.FixtureRequest
) -> None:
    if "postgres" in request.node.callspec.id:
        url = ""
    with opened(busy_timeout_ms=1) as memory:
        say(memory, new_session(memory), "green tea")
        if not url:  # one writer at a time is SQLite's way
            assert len(memory.search_messages("tea", user_id="alice")) == 1
            return
        with closing(sqlite3.connect(url, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert contents(memory.search_messages("tea", user_id="alice")) == ["green tea"]
            assert embedder.texts == ["tea", "green tea"]
            other.execute("ROLLBACK")
        [found] = memory.search_messages("tea", user_id="alice", explain=True)
        assert found.explanation is not None
        assert "dense" in found.explanation
