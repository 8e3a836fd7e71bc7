"""A conversation to try the memory with: six sessions of Nina and her agent, in English and Russian."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from mirai_memory.entities import Knowledge, Message, Task, UserPreferences
from mirai_memory.importers import ImportReport, import_file
from mirai_memory.scoped import UserMemory


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask, and the ``client_id`` of the message that holds the answer."""

    text: str
    answer: str
    language: str


@contextmanager
def conversation_file() -> Iterator[Path]:
    """The shipped conversation, as a file that ``import`` reads too."""
    with as_file(files(__name__) / "conversation.json") as path:
        yield path


def questions() -> list[Question]:
    """Questions that the conversation answers, in other word forms than it uses."""
    return [Question(item["question"], item["answer"], item["language"]) for item in _content()["questions"]]


def remember(memory: UserMemory) -> ImportReport:
    """Store the conversation, what Nina likes, the facts and the tasks; a second time adds nothing."""
    with conversation_file() as path:
        report = import_file(memory, path)
    content, owner = _content(), memory.user_id
    if memory.get_user_preferences() is None:
        memory.save_user_preferences(UserPreferences(user_id=owner, **content["preferences"]))
    for fact in content["knowledge"]:
        memory.add_knowledge(Knowledge(user_id=owner, source="demo", source_kind="import", **fact))
    for number, task in enumerate(content["tasks"], 1):
        memory.add_task(Task(user_id=owner, client_id=f"demo-{number}", **task))
    return report


def ask(memory: UserMemory, question: Question) -> Message | None:
    """The message that the memory finds first."""
    found = memory.search_messages(question.text, limit=1)
    return found[0] if found else None


def _content() -> dict[str, Any]:
    with conversation_file() as path:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
