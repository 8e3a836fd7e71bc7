"""Nothing that a user said or is remembered for reaches a log, at any level, in failures neither."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mirai_memory import (
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    MiraiMemoryError,
    NotFound,
    Task,
    UserPreferences,
)
from mirai_memory.model_calls import model_call

WORD = "canary"


def _use(memory: MemoryManager) -> None:
    mine = memory.for_user("alice")
    session = mine.create_session(metadata={"title": f"{WORD} title"})
    for content in (f"{WORD} content", f"я люблю {WORD}", f"{WORD}: password=hunter2"):
        mine.add_message(Message(session_id=session.id, role="user", content=content, metadata={"x": f"{WORD} meta"}))
    several = [Message(session_id=session.id, role="user", content=f"{WORD} {number}") for number in range(2)]
    mine.add_messages(several)
    memory.save_user_preferences(UserPreferences(user_id="alice", project_context=f"{WORD} project"))
    memory.update_user_preferences("alice", coding_style=f"{WORD} style", favorite_tools=[f"{WORD} tool"])
    task = mine.add_task(Task(session_id=session.id, description=f"{WORD} task"))
    mine.update_task_status(task, "completed", result=f"{WORD} result")
    for value in (f"{WORD} value", f"{WORD} other value"):
        mine.add_knowledge(Knowledge(user_id="alice", key="k", value=value, source=f"{WORD} source"))
    mine.recall(f"{WORD} query")
    mine.search_messages(f"{WORD} query")
    mine.build_context(session.id, f"{WORD} question")
    for refused in (f"{WORD}\x00", f"{WORD}\ud800", WORD * 200_000):
        with suppress(InvalidInput):
            mine.add_message(Message(session_id=session.id, role="user", content=refused))
    with suppress(NotFound):
        mine.add_message(Message(session_id="nowhere", role="user", content=f"{WORD} content"))
    with suppress(MiraiMemoryError, ZeroDivisionError):
        memory.run(lambda uow: _failing(uow, session.id))
    memory.cleanup_old_sessions(0)


def _failing(uow: Any, session_id: str) -> None:
    uow.messages.add(Message(session_id=session_id, role="user", content=f"{WORD} content"))
    raise ZeroDivisionError(f"{WORD} in an error of the host's")


def test_a_whole_session_at_debug_leaves_no_word_of_it(url: str, configure: Any, host: list[str]) -> None:
    configure(level="TRACE", fields=("message", "user_id", "error_code", "session_id", "content", "value", "query"))
    with MemoryManager(url) as memory:
        _use(memory)
        with model_call("m", user_id="alice"):
            pass
    text = Path("mirai.log").read_text("utf-8")
    assert "model call" in text
    assert "unit of work: write" in text
    for secret in (WORD, "hunter2", "люблю"):
        assert secret not in text
        assert not any(secret in line for line in host)
