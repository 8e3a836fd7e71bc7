"""What is derived from a text is stored with it and goes with it: index rows, and rows that say a vector is wanted."""

from __future__ import annotations

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, UnitOfWork, load_settings
from mirai_memory.testing import FakeEmbedder


def test_a_message_wants_its_vector_in_the_same_transaction(url: str) -> None:
    settings = load_settings(memory={"rag": {"background": False}})

    def add(uow: UnitOfWork) -> int:
        uow.messages.add(Message(session_id=session, role="user", content="green tea"))
        assert uow.vectors.count("pending") == 1
        uow.messages.add_many([Message(session_id=session, role="user", content=text) for text in ("oat", "milk")])
        return uow.vectors.count("pending")

    def add_then_fail(uow: UnitOfWork) -> None:
        assert add(uow) == 3
        raise ZeroDivisionError

    with MemoryManager(url, settings=settings, embedder=FakeEmbedder()) as memory:
        session = memory.create_session("alice").id
        with pytest.raises(ZeroDivisionError):
            memory.run(add_then_fail)
        assert memory.run(lambda uow: uow.vectors.count("pending")) == 0
        assert memory.run(add) == 3
        assert memory.run(lambda uow: uow.vectors.count("pending")) == 3


def test_a_superseded_fact_weighs_nothing(memory: MemoryManager) -> None:
    """The scores of one who changed her mind are those of one who did not."""
    for number in range(20):
        memory.add_knowledge(Knowledge(user_id="alice", key="drink", value="tea " * (number + 1)))
    for owner in ("alice", "bob"):
        memory.add_knowledge(Knowledge(user_id=owner, key="drink", value="green tea"))
        memory.add_knowledge(Knowledge(user_id=owner, key="pot", value="for tea"))

    def scores(owner: str) -> list[tuple[str, float | None]]:
        return [(fact.value, fact.score) for fact in memory.search_knowledge("green tea", user_id=owner)]

    assert len(scores("bob")) == 2
    assert scores("alice") == scores("bob")


def test_what_is_kept_of_one_owner_s_vectors_serves_nobody_else(memory: MemoryManager) -> None:
    for owner in ("alice", "bob"):
        memory.add_knowledge(Knowledge(user_id=owner, value=f"{owner}'s", embedding=[1.0, 0.0], embedding_model="m"))
    for owner in ("alice", "bob"):  # as many of each, searched one after the other
        found = memory.search_knowledge("", embedding=[1.0, 0.0], embedding_model="m", user_id=owner)
        assert [fact.value for fact in found] == [f"{owner}'s"]
