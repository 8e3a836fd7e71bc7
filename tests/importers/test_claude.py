"""Claude's export: old lists and new trees, attachments, blocks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import foreign_sources as foreign
import pytest
from foreign_sources import claude_chat, claude_message

from mirai_memory import MemoryManager, UserMemory
from mirai_memory.importers import ImportReport, detect_format, import_file

HI, YO = claude_message("m1", "human", "Hello there"), claude_message("m2", "assistant", "General answer")
ROOT = {"parent_message_uuid": "00000000-0000-4000-8000-000000000000"}


@pytest.fixture
def alice(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


@pytest.fixture
def lite(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


def take(mine: UserMemory, *chats: Any) -> ImportReport:
    return import_file(mine, foreign.write(list(chats)))


def contents(mine: UserMemory) -> list[str]:
    return [message.content for session in mine.list_sessions() for message in mine.get_messages(session.id)]


def test_a_conversation_arrives_and_a_second_run_adds_only_what_is_new(alice: UserMemory) -> None:
    assert detect_format(foreign.write([claude_chat("a", HI)])) == "claude"
    report = take(alice, claude_chat("a", HI, YO, summary="They met", account={"uuid": "u"}))
    assert (report.conversations, report.messages_added, report.fault_count) == (1, 2, 0)
    (session,) = alice.list_sessions()
    assert session.external_id == "claude:a"
    assert (session.metadata["title"], session.metadata["summary"]) == ("Name a", "They met")
    hi, yo = alice.get_messages(session.id)
    assert (hi.role, hi.content, hi.client_id, hi.metadata) == ("user", "Hello there", "m1", {})
    assert hi.timestamp == datetime(2024, 3, 1, 10, 0, 1, 500_000, tzinfo=UTC)
    assert yo.role == "assistant"
    grown = take(alice, claude_chat("a", HI, YO, claude_message("m3", "human", "More")))
    assert (grown.messages_added, grown.messages_already_there) == (1, 2)


def test_attachments_files_and_blocks_are_kept(lite: UserMemory) -> None:
    pasted = {"file_name": "", "file_type": "txt", "file_size": 9, "extracted_content": "pasted walrus"}
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "First"},
        {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "x"}},
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "found"}]},
        {"type": "text", "text": "Second"},
    ]
    question = claude_message("m1", "human", "", attachments=[pasted], files=[{"file_name": "a.png"}])
    report = take(lite, claude_chat("a", question, claude_message("m2", "assistant", "old text", content=blocks)))
    assert report.messages_added == 2
    asked, answered = lite.get_messages(lite.list_sessions()[0].id)
    assert asked.content == "[attachment: text]\npasted walrus\n\n[file: a.png]"
    assert asked.metadata["attachments"] == [{"file_name": "", "file_type": "txt", "file_size": 9}]
    assert answered.content == "First\nSecond"
    assert answered.metadata["blocks"] == [blocks[0], blocks[2], blocks[3]]
    assert lite.search_messages("walruses")[0].id == asked.id


def test_the_text_is_taken_where_there_are_no_blocks(lite: UserMemory) -> None:
    take(lite, claude_chat("a", claude_message("m1", "human", "only text", content=[])))
    assert contents(lite) == ["only text"]


def test_only_the_last_branch_is_imported(lite: UserMemory) -> None:
    first, again = HI | ROOT, claude_message("m3", "human", "Hello again") | ROOT
    answer = YO | {"parent_message_uuid": "m1"}
    last = claude_message("m4", "assistant", "Another answer", parent_message_uuid="m3")
    empty = claude_message("m5", "human", "", content=[], parent_message_uuid="m4")
    report = take(lite, claude_chat("a", first, answer, again, last, empty))
    assert (report.messages_added, report.messages_left_out) == (2, 3)
    assert contents(lite) == ["Hello again", "Another answer"]
    take(lite, claude_chat("b", first, answer, again, last, current_leaf_message_uuid="m2"))
    assert contents(lite)[2:] == ["Hello there", "General answer"]


BROKEN: dict[str, tuple[Any, str]] = {
    "unknown sender": (claude_chat("b", HI | {"sender": "king"}), "sender"),
    "no time": (claude_chat("b", HI | {"created_at": "yesterday"}), "created_at"),
    "no object": (claude_chat("b", "text"), "object"),  # type: ignore[arg-type]
    "blocks of a wrong type": (claude_chat("b", HI | {"content": ["x"]}), "content"),
    "text of a wrong type": (claude_chat("b", HI | {"content": [{"type": "text", "text": 5}]}), "text"),
    "the same id twice": (claude_chat("b", HI, HI), "another message"),
    "missing parent": (claude_chat("b", HI, YO | {"parent_message_uuid": "gone"}), "gone"),
    "loop": (claude_chat("b", HI | {"parent_message_uuid": "m2"}, YO | {"parent_message_uuid": "m1"}), "ancestor"),
    "no id": (claude_chat("", HI), "uuid"),
    "NUL": (claude_chat("b", claude_message("m", "human", "\x00")), "NUL"),
    "no messages": ({"uuid": "b", "chat_messages": None}, "chat_messages"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_conversation_is_refused_whole_and_no_other(lite: UserMemory, case: str) -> None:
    value, reason = BROKEN[case]
    report = take(lite, claude_chat("a", HI), value, claude_chat("c", YO))
    assert (report.conversations, report.conversations_refused, report.fault_count) == (2, 1, 1)
    assert report.faults[0].place.startswith("conversations.json, conversation 2")
    assert reason in report.faults[0].reason
    assert contents(lite) == ["Hello there", "General answer"]


def test_a_dry_run_says_the_same_and_stores_nothing(alice: UserMemory) -> None:
    path = foreign.write([claude_chat("a", HI, YO), claude_chat("b", HI | {"sender": "king"})])
    dry = import_file(alice, path, dry_run=True)
    assert alice.list_sessions() == []
    assert import_file(alice, path) == dry
