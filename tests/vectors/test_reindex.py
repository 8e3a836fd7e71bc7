"""``reindex``: every vector that is missing, of another model, or of another dimension, and nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from mirai_memory import EmbeddingError, Knowledge, MemoryManager, Message, ReadOnly
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import new_session, say

EAST = [1.0, 0.0]


def _fact(memory: MemoryManager, value: str, **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(user_id="alice", key=value, value=value, **fields))


def _fill(memory: MemoryManager) -> None:
    say(memory, new_session(memory), "green tea", "a tower")
    _fact(memory, "coffee")


def test_what_was_stored_without_an_embedder_gets_its_vectors(
    opened: Any, embedder: FakeEmbedder, vectors: Any, dense: Any
) -> None:
    with opened(None) as memory:
        _fill(memory)
        assert memory.reindex() == 0
        assert vectors(memory) == {}
    with opened() as memory:
        assert dense(memory, "tea") == {"green tea": 0, "a tower": 0}
        assert memory.reindex() == 3
        assert dense(memory, "tea")["green tea"] > 0
        assert memory.reindex() == 0
        assert sorted(embedder.texts[1:4]) == ["a tower", "coffee: coffee", "green tea"]


def test_only_what_can_be_found_is_embedded(
    opened: Any, embedder: FakeEmbedder, clock: FrozenClock, vectors: Any
) -> None:
    with opened(None) as memory:
        session = new_session(memory)
        memory.add_message(Message(session_id=session, kind="item", payload={"a": 1}, content="an item"))
        _fact(memory, "closed", valid_from=clock() - timedelta(2), valid_to=clock() - timedelta(1))
        for value in ("superseded", "current"):
            memory.add_knowledge(Knowledge(user_id="alice", key="k", value=value))
        _fill(memory)
    with opened() as memory:
        memory.reindex()
        assert sorted(embedder.texts) == ["a tower", "coffee: coffee", "green tea", "k: current"]


# --- another model ----------------------------------------------------------------------------------------------------


def test_another_model_s_vectors_go_and_given_ones_stay(opened: Any, vectors: Any, dense: Any) -> None:
    with opened(FakeEmbedder(name="old")) as memory:
        _fill(memory)
        _fact(memory, "given", embedding=EAST, embedding_model="mine")
        _fact(memory, "given too", embedding=[1.0] * 256, embedding_model="old")
        memory.reindex()
        assert vectors(memory) == {"ready": 6}  # the one that was given for "mine" has the embedder's beside it
    with opened(FakeEmbedder(name="new")) as memory:
        assert vectors(memory) == {"ready": 6}
        assert dense(memory, "tea") == {"green tea": 0, "a tower": 0}  # by its words, until the new ones are made
        assert memory.reindex() == 5
        assert vectors(memory) == {"ready": 7}
        assert dense(memory, "tea")["green tea"] > 0
        found = memory.search_knowledge("", user_id="alice", embedding=EAST, embedding_model="mine")
        assert [fact.value for fact in found] == ["given"]
        old = memory.search_knowledge("", user_id="alice", embedding=[1.0] * 256, embedding_model="old")
        assert [fact.value for fact in old] == ["given too"]


def test_old_vectors_serve_their_model_until_the_new_ones_are_made(opened: Any, dense: Any) -> None:
    """Another process may not have been started anew yet."""
    old, new = FakeEmbedder(name="old"), FakeEmbedder(name="new")
    with opened(old) as before, opened(new) as after:
        _fill(before)
        before.reindex()
        new.fail()
        with pytest.raises(EmbeddingError):
            after.reindex()
        assert dense(before, "tea")["green tea"] > 0
        new.recover()
        after.reindex(keep_old=True)
        assert dense(before, "tea")["green tea"] > 0
        assert dense(after, "tea")["green tea"] > 0
        after.reindex()
        assert dense(before, "tea") == {"green tea": 0, "a tower": 0}


def test_what_waits_for_a_model_that_is_gone_waits_no_longer(opened: Any, vectors: Any) -> None:
    with opened(FakeEmbedder(name="old")) as memory:
        say(memory, new_session(memory), "green tea")
        assert vectors(memory) == {"pending": 1}
    with opened(FakeEmbedder(name="new")) as memory:
        memory.reindex()
        assert vectors(memory) == {"ready": 1}


def test_another_dimension_under_the_same_name(opened: Any, vectors: Any, dense: Any) -> None:
    with opened(FakeEmbedder(dim=32)) as memory:
        _fill(memory)
        memory.reindex()
    with opened(FakeEmbedder(dim=64)) as memory, opened(FakeEmbedder(dim=32)) as before:
        assert dense(memory, "tea") == {"green tea": 0, "a tower": 0}
        assert dense(before, "tea")["green tea"] > 0
        assert memory.reindex() == 3
        assert vectors(memory) == {"ready": 3}
        assert dense(memory, "tea")["green tea"] > 0
        assert dense(before, "tea") == {"green tea": 0, "a tower": 0}
        assert memory.reindex() == 0


# --- cut short, and beside others -------------------------------------------------------------------------------------


class Counting(FakeEmbedder):
    """Fails after so many batches, and does something between them."""

    batch_texts = 1_000

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches
        self.between: Any = None

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.batches -= 1
        if self.batches < 0:
            raise ConnectionError
        vectors = super().embed_documents(texts)
        if self.between is not None:
            self.between()
        return vectors


def test_what_was_cut_short_is_taken_up_where_it_ended(opened: Any, vectors: Any) -> None:
    with opened(None) as memory:
        say(memory, new_session(memory), *(f"tea {number}" for number in range(200)))
    embedder = Counting(2)
    with opened(embedder) as memory:
        with pytest.raises(EmbeddingError):
            memory.reindex()
        assert vectors(memory) == {"pending": 72, "ready": 128}
        embedder.batches = 100
        assert memory.reindex() == 72
        assert sorted(embedder.texts) == sorted(f"tea {number}" for number in range(200))


def test_it_says_how_far_it_is(opened: Any) -> None:
    with opened(None) as memory:
        say(memory, new_session(memory), *(f"tea {number}" for number in range(130)))
    said: list[tuple[int, int]] = []
    with opened() as memory:
        assert memory.reindex(progress=lambda made, wanted: said.append((made, wanted))) == 130
    assert said == [(64, 66), (128, 2), (130, 0)]


def test_a_text_that_changes_or_goes_meanwhile_gets_no_old_vector(opened: Any, vectors: Any, dense: Any) -> None:
    embedder = Counting(100)
    with opened(embedder) as memory, opened(None) as other:
        changed, gone, *_ = say(memory, new_session(memory), "green tea", "black tea", "a tower", "a river")

        def meddle() -> None:
            embedder.between = None
            with opened(FakeEmbedder()) as third:
                third.update_message(changed, "hot coffee")
            other.delete_message(gone)

        embedder.between = meddle
        memory.reindex()
        assert vectors(memory) == {"ready": 3}
        assert dense(memory, "tea").get("hot coffee", 0) == 0
        assert dense(memory, "coffee")["hot coffee"] > 0


def test_an_updated_message_is_found_by_its_new_meaning_only(
    memory: MemoryManager, embedder: FakeEmbedder, vectors: Any, dense: Any
) -> None:
    id, *_ = say(memory, new_session(memory), "green tea", "a tower", "a river")
    memory.reindex()
    assert dense(memory, "tea")["green tea"] > 0
    memory.update_message(id, "hot coffee")
    assert vectors(memory) == {"pending": 1, "ready": 2}
    assert dense(memory, "tea").get("hot coffee", 0) == 0
    assert dense(memory, "coffee")["hot coffee"] > 0
    assert vectors(memory) == {"ready": 3}


def test_what_goes_takes_its_vectors_along(memory: MemoryManager, clock: FrozenClock, vectors: Any) -> None:
    session, other = new_session(memory), new_session(memory)
    ids = say(memory, session, *(f"tea {number}" for number in range(8)))
    say(memory, other, "coffee", "milk")
    facts = [_fact(memory, f"fact {number}") for number in range(2)]
    memory.reindex()
    left = [12]

    def fewer(count: int) -> None:
        left[0] -= count
        assert vectors(memory) == ({"ready": left[0]} if left[0] else {})

    fewer(0)
    memory.delete_message(ids[0])
    fewer(1)
    memory.pop_message(session)
    fewer(1)
    memory.trim_old_messages(session, 4)
    fewer(2)
    memory.clear_session(session)
    fewer(4)
    memory.delete_session(other)
    fewer(2)
    memory.delete_knowledge(facts[0])
    fewer(1)
    memory.add_knowledge(Knowledge(user_id="alice", key="fact 1", value="superseding"))
    fewer(0)
    memory.delete_knowledge(key="fact 1", user_id="alice")
    fewer(1)


def test_a_read_only_memory_is_refused(opened: Any, dense: Any, embedder: FakeEmbedder) -> None:
    with opened() as memory:
        _fill(memory)
        memory.reindex()
        say(memory, new_session(memory), "tea of later")
    with opened(read_only=True, background=True) as memory:
        with pytest.raises(ReadOnly):
            memory.reindex()
        found = dense(memory, "tea")
        assert found["green tea"] > 0
        assert found["tea of later"] == 0  # its vector is still wanted, and nobody may store it
    assert embedder.texts[-1] == "tea"
