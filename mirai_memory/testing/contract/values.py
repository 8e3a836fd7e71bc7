"""Entities are values: frozen, nobody else's, ready for JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, Session, Task, UserPreferences
from mirai_memory.testing.contract.making import new_session

_CALLS = [{"id": "a", "function": {"arguments": "{}"}}]
_Entity = Session | Message | UserPreferences | Task | Knowledge


def _stored(memory: MemoryManager, data: Any = None) -> list[_Entity]:
    """One entity of each noun as a read returns it; ``data`` is in each of them."""
    metadata = {"data": [{"deep": 1}] if data is None else data}
    session = memory.create_session("alice", session_id="s", metadata=metadata)
    memory.add_message(
        Message(session_id=session.id, role="assistant", tool_calls=_CALLS, parts=[metadata], metadata=metadata)
    )
    memory.save_user_preferences(UserPreferences(user_id="alice", favorite_tools=["ruff"], metadata=metadata))
    memory.add_task(Task(user_id="alice", description="x", metadata=metadata))
    memory.add_knowledge(
        Knowledge(user_id="alice", value="tea", metadata=metadata, embedding=[1.0], embedding_model="m")
    )
    return _read(memory)


def _read(memory: MemoryManager) -> list[_Entity]:
    return [
        *memory.list_sessions(),
        *memory.get_messages("s"),
        *filter(None, [memory.get_user_preferences("alice")]),
        *memory.get_tasks(),
        *memory.get_knowledge(user_id="alice", with_embedding=True),
    ]


class ValueContract:
    def test_entities_are_frozen_and_unhashable(self, memory: MemoryManager) -> None:
        for entity in _stored(memory):
            with pytest.raises(dataclasses.FrozenInstanceError):
                entity.metadata = {}  # type: ignore[misc]
            with pytest.raises(TypeError, match="unhashable"):
                hash(entity)
            with pytest.raises((AttributeError, TypeError)):
                entity.unknown = 1  # type: ignore[union-attr]

    def test_changing_what_was_handed_in_changes_nothing_stored(self, memory: MemoryManager) -> None:
        data: list[Any] = [{"deep": 1}]
        before = _stored(memory, data)
        data[0]["deep"] = 2
        data.append(3)
        assert _read(memory) == before
        assert all(entity.metadata == {"data": [{"deep": 1}]} for entity in before)

    def test_an_entity_keeps_a_copy_of_what_it_is_made_of(self) -> None:
        calls: list[Any] = [{"id": "a"}]
        metadata: dict[str, Any] = {"a": [1]}
        message = Message(session_id="s", role="assistant", tool_calls=calls, metadata=metadata)
        calls[0]["id"] = "b"
        metadata["a"].append(2)
        assert (message.tool_calls, message.metadata) == ([{"id": "a"}], {"a": [1]})

    def test_changing_what_came_back_changes_nothing_stored(self, memory: MemoryManager) -> None:
        before = [copy.deepcopy(entity) for entity in _stored(memory)]
        for entity in _read(memory):
            entity.metadata["data"][0]["deep"] = 2
            for name in ("tool_calls", "parts", "favorite_tools", "embedding"):
                getattr(entity, name, [None]).clear()
        assert _read(memory) == before

    def test_changing_what_a_write_returned_changes_nothing_stored(self, memory: MemoryManager) -> None:
        session, _, likes, *_ = _stored(memory)
        assert isinstance(session, Session)
        for returned in (
            memory.update_session("s", metadata={"a": [1]}),
            memory.create_session("alice", session_id="t", metadata={"a": [1]}),
            memory.update_user_preferences("alice", metadata={"a": [1]}),
        ):
            before = [memory.get_session("s"), memory.get_session("t"), memory.get_user_preferences("alice")]
            returned.metadata["a"].append(2)
            after = [memory.get_session("s"), memory.get_session("t"), memory.get_user_preferences("alice")]
            assert before == after
        assert "a" not in likes.metadata

    def test_to_dict_is_ready_for_json(self, memory: MemoryManager) -> None:
        for entity in _stored(memory):
            as_dict = entity.to_dict()
            assert json.loads(json.dumps(as_dict, allow_nan=False)) == as_dict
            assert as_dict["metadata"] == entity.metadata
            assert not {"embedding", "score", "explanation"} & as_dict.keys()
            as_dict["metadata"]["data"].clear()
            assert entity.metadata["data"]

    def test_to_dict_of_a_result_has_its_score_which_takes_no_part_in_equality(self, memory: MemoryManager) -> None:
        *_, fact = _stored(memory)
        [found] = memory.search_knowledge("tea", user_id="alice")
        assert found.to_dict()["score"] == found.score
        assert dataclasses.replace(found, score=None) == found
        assert fact.to_dict()["created_at"] == "2026-01-15T12:00:00+00:00"

    def test_entities_survive_pickling(self, memory: MemoryManager) -> None:
        for entity in _stored(memory):
            assert pickle.loads(pickle.dumps(entity)) == entity  # noqa: S301 - our own bytes

    def test_an_entity_outlives_the_memory(self, memory: MemoryManager) -> None:
        before = _stored(memory)
        texts = [repr(entity) for entity in before]
        session = new_session(memory)
        memory.close()
        assert [repr(entity) for entity in before] == texts
        assert session
