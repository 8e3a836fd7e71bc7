"""The demo: what it ships can be found again, from another process, in other words than it was said in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mirai_memory import MemoryManager
from mirai_memory.demo import Question, ask, conversation_file, questions, remember
from mirai_memory.importers import import_file


def test_it_is_a_conversation_of_some_length_in_two_languages() -> None:
    with conversation_file() as path:
        content = json.loads(path.read_text("utf-8"))
    messages = [message for item in content["conversations"] for message in item["messages"]]
    assert len(content["conversations"]) >= 5
    assert len(messages) >= 60
    assert any(message.get("tool_calls") for message in messages)
    assert {question.language for question in questions()} == {"en", "ru"}


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.text)
def test_the_right_message_is_among_the_first_five(memory: MemoryManager, question: Question) -> None:
    demo = memory.for_user("demo")
    remember(demo)
    found = demo.search_messages(question.text, limit=5)
    assert question.answer in [message.client_id for message in found]
    assert ask(demo, question) == found[0]


def test_a_second_time_adds_nothing(memory: MemoryManager) -> None:
    demo = memory.for_user("demo")
    first = remember(demo)
    assert (first.fault_count, first.conversations_refused, first.messages_already_there) == (0, 0, 0)
    before = (memory.get_stats(), demo.get_user_preferences(), demo.get_tasks())
    again = remember(demo)
    assert (again.messages_added, again.messages_already_there) == (0, first.messages_added)
    after = (memory.get_stats(), demo.get_user_preferences(), demo.get_tasks())
    assert {k: v for k, v in before[0].items() if k != "db_size_mb"} == {
        k: v for k, v in after[0].items() if k != "db_size_mb"
    }
    assert before[1:] == after[1:]


def test_the_tool_call_and_its_result_are_a_history_a_model_accepts(memory: MemoryManager) -> None:
    demo = memory.for_user("demo")
    remember(demo)
    session = next(session for session in demo.list_sessions() if session.external_id == "demo-bug")
    roles = [message["role"] for message in demo.get_conversation_history(session.id, limit=20)]
    assert "tool" in roles


def test_the_shipped_file_is_one_that_import_reads(memory: MemoryManager) -> None:
    with conversation_file() as path:
        report = import_file(memory.for_user("me"), path)
    assert (report.fault_count, report.conversations) == (0, 6)


def test_it_runs_without_configuration_and_runs_again() -> None:
    for added in ("66 messages added, 0 already there", "0 messages added, 66 already there"):
        command = [sys.executable, "-m", "mirai_memory", "demo"]
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
        assert (result.returncode, result.stderr) == (0, "")
        assert added in result.stdout
        assert "#4127" in result.stdout
        assert "зелёный чай" in result.stdout
        assert all(len(line) <= 80 for line in result.stdout.splitlines() if line.startswith("   mirai-memory"))
    assert Path("data/mirai_memory_demo.db").is_file()


@pytest.mark.long
def test_it_uses_the_database_it_is_given() -> None:
    command = [sys.executable, "-m", "mirai_memory", "demo", "--db", "other.db", "--user", "me"]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    with MemoryManager("other.db") as memory:
        assert len(memory.for_user("me").list_sessions()) == 6
    assert not Path("data").exists()
