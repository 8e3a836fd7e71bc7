"""Windows: the newest messages in whole groups, a call with its results, as a model can be given them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mirai_memory import MemoryManager, Message
from mirai_memory.testing.contract.making import answering, calling, contents, new_session, said, say


def _window(memory: MemoryManager, session_id: str, limit: int) -> list[int]:
    """Positions in the window."""
    return [message.position or 0 for message in memory.get_recent_messages(session_id, limit)]


def _item(session_id: str, type: str, call_id: str) -> Message:
    return Message(session_id=session_id, kind="item", payload={"type": type, "call_id": call_id})


def assert_acceptable(history: list[dict[str, Any]]) -> None:
    """The chat API's own rules: every call is followed directly by its results, and no result stands elsewhere."""
    json.dumps(history, allow_nan=False)
    waiting: list[str] = []
    for entry in history:
        assert entry["role"] in ("system", "developer", "user", "assistant", "tool")
        if entry["role"] == "tool":
            assert entry["tool_call_id"] in waiting
            waiting.remove(entry["tool_call_id"])
            continue
        assert waiting == []
        assert entry["content"] is not None or entry.get("tool_calls")
        waiting = [call["id"] for call in entry.get("tool_calls", [])]
        assert "tool_calls" not in entry or waiting
    assert waiting == []


class WindowContract:
    def test_the_window_keeps_the_newest_oldest_first(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, *"abcde")
        assert contents(memory.get_recent_messages(id, 2)) == ["d", "e"]
        assert contents(memory.get_recent_messages(id, 9)) == [*"abcde"]
        assert memory.get_recent_messages(id, 0) == []

    def test_without_a_limit_it_holds_as_many_as_the_settings_say(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        count = memory.settings.memory.short_term.max_messages
        say(memory, id, *map(str, range(count + 3)))
        assert len(memory.get_recent_messages(id)) == len(memory.get_conversation_history(id)) == count

    @pytest.mark.parametrize("limit", [2**62, 2**63 - 1])
    def test_a_huge_limit_is_all(self, memory: MemoryManager, limit: int) -> None:
        id = new_session(memory)
        say(memory, id, "a", "b")
        assert contents(memory.get_recent_messages(id, limit)) == ["a", "b"]
        assert len(memory.get_conversation_history(id, limit)) == len(memory.get_messages(id, limit=limit)) == 2
        assert memory.trim_old_messages(id, limit) == 0

    def test_a_group_is_kept_or_left_out_as_a_whole(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages(
            [said(id), said(id), calling(id, "a", "b"), answering(id, "b"), answering(id, "a"), said(id)]
        )
        assert _window(memory, id, 1) == _window(memory, id, 2) == _window(memory, id, 3) == [6]
        assert _window(memory, id, 4) == [3, 4, 5, 6]
        assert _window(memory, id, 5) == [2, 3, 4, 5, 6]
        assert _window(memory, id, 6) == [1, 2, 3, 4, 5, 6]

    def test_the_newest_group_is_kept_however_large(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        calls = [f"c{number}" for number in range(20)]
        memory.add_messages([said(id), calling(id, *calls), *(answering(id, call) for call in calls)])
        assert _window(memory, id, 1) == _window(memory, id, 21) == [*range(2, 23)]
        assert _window(memory, id, 22) == [*range(1, 23)]

    def test_a_result_that_comes_late_belongs_to_its_call(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_message(calling(id, "a", "b"))
        memory.add_message(answering(id, "a"))
        memory.add_message(said(id, "meanwhile"))
        memory.add_message(answering(id, "b"))
        memory.add_message(said(id, "after"))
        assert _window(memory, id, 4) == [5]
        assert _window(memory, id, 5) == [1, 2, 3, 4, 5]

    def test_an_orphan_result_stands_alone(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([said(id), answering(id, "nobody asked"), said(id)])
        assert _window(memory, id, 2) == [2, 3]

    def test_a_used_call_id_may_be_used_again(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        for _ in range(2):
            memory.add_message(calling(id, "a"))
            memory.add_message(answering(id, "a"))
        assert _window(memory, id, 2) == _window(memory, id, 3) == [3, 4]

    def test_another_session_s_call_is_not_answered(self, memory: MemoryManager) -> None:
        id, other = new_session(memory), new_session(memory)
        memory.add_message(calling(other, "a"))
        memory.add_messages([said(id), answering(id, "a")])
        assert _window(memory, id, 1) == [2]

    def test_items_are_grouped_by_their_call_id(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([said(id), _item(id, "function_call", "a"), _item(id, "reasoning", "a")])
        memory.add_message(_item(id, "function_call_output", "a"))
        assert _window(memory, id, 1) == _window(memory, id, 3) == [2, 3, 4]

    def test_trimming_keeps_whole_groups(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([said(id, "old"), calling(id, "a"), answering(id, "a", "kept"), said(id)])
        assert memory.trim_old_messages(id, 3) == 1
        assert memory.trim_old_messages(id, 2) == 2
        assert [message.position for message in memory.get_messages(id)] == [4]
        assert memory.search_messages("old kept") == []

    def test_trimming_to_less_than_the_newest_group_keeps_it(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([said(id), calling(id, "a"), answering(id, "a")])
        assert memory.trim_old_messages(id, 1) == 1
        assert _window(memory, id, 9) == [2, 3]

    def test_trimming_to_nothing_and_to_the_settings(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        count = memory.settings.memory.short_term.max_messages
        say(memory, id, *map(str, range(count + 2)))
        assert memory.trim_old_messages(id) == 2
        assert memory.trim_old_messages(id) == 0
        assert memory.trim_old_messages(id, 0) == count
        assert memory.get_messages(id) == []

    def test_history_is_what_the_chat_api_takes(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]
        call = calling(id, "a")
        memory.add_messages(
            [
                said(id, "be brief", role="system"),
                said(id, "look", parts=parts, name="ann"),
                said(id, "hm", name="Анна К."),
                call,
                answering(id, "a", "seen"),
                said(id, "done", role="assistant"),
            ]
        )
        assert memory.get_conversation_history(id) == [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": parts, "name": "ann"},
            {"role": "user", "content": "hm"},  # the API takes no such name
            {"role": "assistant", "content": None, "tool_calls": call.tool_calls},
            {"role": "tool", "content": "seen", "tool_call_id": "a"},
            {"role": "assistant", "content": "done"},
        ]

    def test_history_puts_results_directly_behind_their_call(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages(
            [calling(id, "a", "b"), answering(id, "b"), said(id, "wait", role="user"), answering(id, "a"), said(id)]
        )
        history = memory.get_conversation_history(id)
        assert_acceptable(history)
        assert [entry.get("tool_call_id", entry["role"]) for entry in history] == [
            "assistant",
            "a",
            "b",
            "user",
            "user",
        ]

    def test_history_leaves_out_calls_without_results_and_results_without_calls(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages(
            [
                answering(id, "orphan"),
                calling(id, "a", "b"),
                answering(id, "a"),
                said(id, "one"),
                Message(session_id=id, role="tool", content="answers nothing"),
                calling(id, "late"),
                said(id, "two"),
            ]
        )
        history = memory.get_conversation_history(id)
        assert_acceptable(history)
        assert [entry["content"] for entry in history] == ["one", "two"]
        memory.add_message(answering(id, "late", "at last"))
        history = memory.get_conversation_history(id)
        assert_acceptable(history)
        assert [entry["content"] for entry in history] == ["one", None, "at last", "two"]

    def test_history_pairs_a_reused_call_id_with_the_right_results(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([calling(id, "a"), answering(id, "a", "first"), calling(id, "a"), said(id)])
        memory.add_messages([answering(id, "a", "second"), answering(id, "a", "twice")])
        history = memory.get_conversation_history(id)
        assert_acceptable(history)
        assert [entry["content"] for entry in history if entry["role"] == "tool"] == ["first", "second"]

    def test_history_is_acceptable_at_every_limit(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages(
            [
                calling(id, "a", "b"),
                said(id),
                answering(id, "a"),
                calling(id, "a"),
                answering(id, "b"),
                answering(id, "a"),
                said(id),
                calling(id, "open"),
            ]
        )
        for limit in range(1, 10):
            assert_acceptable(memory.get_conversation_history(id, limit))

    def test_history_holds_no_items(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        memory.add_messages([said(id, "a"), _item(id, "function_call", "x"), said(id, "b")])
        assert [entry["content"] for entry in memory.get_conversation_history(id, 2)] == ["a", "b"]
        assert _window(memory, id, 9) == [1, 2, 3]

    def test_a_deleted_call_leaves_its_results_out_of_the_history(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        call, *_ = memory.add_messages([calling(id, "a"), answering(id, "a"), said(id, "next")])
        memory.delete_message(call)
        assert [entry["content"] for entry in memory.get_conversation_history(id)] == ["next"]
