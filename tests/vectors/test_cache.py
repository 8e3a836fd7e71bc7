"""The same text is embedded once: whoever says it, wherever it is stored, in this run or in another."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mirai_memory import Knowledge, MemoryManager
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.contract.making import new_session, say


def _fact(memory: MemoryManager, value: str, user_id: str | None = "alice", **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(user_id=user_id, value=value, **fields))


def test_a_text_is_embedded_once(memory: MemoryManager, embedder: FakeEmbedder, vectors: Any) -> None:
    for owner in ("alice", "bob", None):
        _fact(memory, "green tea", owner)
        _fact(memory, "green tea", owner)
    for owner in ("alice", "bob"):
        say(memory, new_session(memory, owner), "green tea", "green tea")
    memory.reindex()
    assert embedder.texts == ["green tea"]
    assert vectors(memory) == {"ready": 7}


def test_a_text_that_comes_twice_at_once_is_embedded_once(memory: MemoryManager, embedder: FakeEmbedder) -> None:
    items = [Knowledge(user_id="alice", category=str(number % 3), value=f"tea {number % 2}") for number in range(6)]
    memory.add_knowledge_many(items)
    assert Counter(embedder.texts) == {"tea 0": 1, "tea 1": 1}
    assert embedder.calls == 1


def test_what_another_run_has_embedded_is_known(opened: Any, embedder: FakeEmbedder, dense: Any) -> None:
    with opened() as memory:
        _fact(memory, "green tea")
        _fact(memory, "a tower")
    with opened() as memory:
        before = list(embedder.texts)
        say(memory, new_session(memory), "green tea", "a tower")
        assert memory.reindex() == 2
        assert embedder.texts == before
        assert dense(memory, "tea")["green tea"] > 0


def test_a_speaker_s_name_and_a_key_belong_to_the_text(memory: MemoryManager, embedder: FakeEmbedder) -> None:
    say(memory, new_session(memory), "tea", name="Ann")
    say(memory, new_session(memory), "tea", name="Ben")
    _fact(memory, "tea", key="drink")
    memory.reindex()
    assert sorted(embedder.texts) == ["Ann: tea", "Ben: tea", "drink: tea"]


def test_a_vector_that_comes_from_the_cache_is_the_same(memory: MemoryManager) -> None:
    _fact(memory, "green tea")
    _fact(memory, "green tea", "bob")
    facts = [memory.get_knowledge(user_id=owner, with_embedding=True)[0] for owner in ("alice", "bob")]
    assert facts[0].embedding is not None
    assert facts[0].embedding == facts[1].embedding


def test_switched_off_every_text_is_embedded_anew(opened: Any, embedder: FakeEmbedder) -> None:
    with opened(cache_embeddings=False) as memory:
        for owner in ("alice", "bob"):
            _fact(memory, "green tea", owner)
        assert embedder.texts == ["green tea", "green tea"]


def test_vectors_of_another_model_or_dimension_serve_nobody(opened: Any) -> None:
    for number, embedder in enumerate((FakeEmbedder(), FakeEmbedder(name="other"), FakeEmbedder(dim=32))):
        with opened(embedder) as memory:
            _fact(memory, "green tea", f"owner {number}")
            assert embedder.texts == ["green tea"]


def test_a_given_vector_serves_no_other_text(opened: Any) -> None:
    """What it was made of is not known: perhaps of more than the value."""
    embedder = FakeEmbedder(dim=2, name="mine")
    with opened(embedder) as memory:
        _fact(memory, "green tea", embedding=[1.0, 0.0], embedding_model="mine")
        assert embedder.texts == []
        _fact(memory, "green tea", "bob")
        assert embedder.texts == ["green tea"]


def test_what_is_deleted_is_not_kept_for_its_text(memory: MemoryManager, embedder: FakeEmbedder, vectors: Any) -> None:
    memory.delete_knowledge(_fact(memory, "green tea"))
    assert vectors(memory) == {}
    _fact(memory, "green tea")
    assert embedder.texts == ["green tea", "green tea"]


def test_a_long_text_is_embedded_at_its_beginning(memory: MemoryManager, embedder: FakeEmbedder) -> None:
    _fact(memory, "tea " * 50_000)
    memory.search_knowledge("tea " * 50_000, user_id="alice")
    assert [len(text) for text in embedder.texts] == [8_000, 8_000]
