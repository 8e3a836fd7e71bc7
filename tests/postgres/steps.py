"""Calls of every method that writes in one transaction, and what the server then holds, row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
from server_side import conninfo

from mirai_memory import Knowledge, MemoryManager, Message, Task, UnitOfWork, UserPreferences
from mirai_memory.testing.clock import START

Rows = list[tuple[str, str]]
# Looks up what it needs, and hands back the call.
Step = Callable[[MemoryManager], Callable[[], Any]]


def _say(session: str, content: str, **more: Any) -> Message:
    return Message(session_id=session, role="user", content=content, **more)


def _message(memory: MemoryManager, content: str) -> int:
    return next(m.id or 0 for m in memory.get_messages("talk") if m.content == content)


def _facts(memory: MemoryManager) -> dict[str | None, int]:
    return {fact.key: fact.id or 0 for fact in memory.get_knowledge(user_id="alice")}


def _task(memory: MemoryManager) -> int:
    return memory.get_tasks()[0].id or 0


def _everything(uow: UnitOfWork) -> None:
    uow.sessions.create("bob", session_id="both")
    uow.messages.add_many([_say("both", f"line {n} of a talk") for n in range(5)])
    uow.tasks.add(Task(session_id="both", description="read it all"))
    uow.knowledge.add(Knowledge(user_id="bob", key="pet", value="a heron"))
    uow.preferences.save(UserPreferences(user_id="bob", coding_style="terse"))


def _fact(key: str, value: str, **more: Any) -> Knowledge:
    return Knowledge(user_id="alice", key=key, value=value, **more)


_GIVEN = {"embedding": [0.5, 1.5], "embedding_model": "given"}

# Each is one transaction, and each depends on those before it.
STEPS: dict[str, Step] = {
    "create_session": lambda m: partial(m.create_session, "alice", session_id="talk", metadata={"title": "первый"}),
    "add_message": lambda m: partial(m.add_message, _say("talk", "the walrus likes tea", client_id="r1")),
    "add_message again": lambda m: partial(m.add_message, _say("talk", "the walrus likes tea", client_id="r1")),
    "add_messages": lambda m: partial(m.add_messages, [_say("talk", f"мы едем {n}", client_id=f"e{n}") for n in "123"]),
    "update_message": lambda m: partial(m.update_message, _message(m, "мы едем 1"), "we stay"),
    "delete_message": lambda m: partial(m.delete_message, _message(m, "мы едем 2")),
    "pop_message": lambda m: partial(m.pop_message, "talk"),
    "update_session": lambda m: partial(m.update_session, "talk", metadata={"title": "second"}),
    "update_session_activity": lambda m: partial(m.update_session_activity, "talk"),
    "add_knowledge": lambda m: partial(m.add_knowledge, _fact("city", "Oslo")),
    "add_knowledge anew": lambda m: partial(m.add_knowledge, _fact("city", "Riga", **_GIVEN)),
    "add_knowledge closed": lambda m: partial(
        m.add_knowledge, _fact("city", "Rome", valid_from=START - timedelta(2), valid_to=START - timedelta(1))
    ),
    "add_knowledge_many": lambda m: partial(m.add_knowledge_many, [_fact(f"k{n}", f"value {n}") for n in "123"]),
    "merge_knowledge": lambda m: partial(m.merge_knowledge, _facts(m)["k1"], _facts(m)["k2"]),
    "save_user_preferences": lambda m: partial(
        m.save_user_preferences, UserPreferences(user_id="alice", coding_style="black")
    ),
    "update_user_preferences": lambda m: partial(m.update_user_preferences, "alice", favorite_tools=["ruff"]),
    "add_task": lambda m: partial(m.add_task, Task(session_id="talk", description="buy tea", client_id="t1")),
    "update_task_status": lambda m: partial(m.update_task_status, _task(m), "completed", "bought"),
    "run": lambda m: partial(m.run, _everything),
    "trim_old_messages": lambda m: partial(m.trim_old_messages, "both", 2),
    "clear_session": lambda m: partial(m.clear_session, "talk"),
    "delete_knowledge": lambda m: partial(m.delete_knowledge, key="city", user_id="alice"),
    "delete_task": lambda m: partial(m.delete_task, _task(m)),
    "delete_session": lambda m: partial(m.delete_session, "both"),
    "delete_user_preferences": lambda m: partial(m.delete_user_preferences, "alice"),
}
# Done again after a success of which the caller was not told, these do nothing more.
REPEATABLE = ("add_message", "add_message again", "add_messages", "add_task")

# Given by sequences, which go on where a transaction is rolled back.
_NUMBERED = "ARRAY['id', 'rowid', 'item_id', 'superseded_by', 'message_id', 'scope', 'lexemes']"
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'mirai_memory' ORDER BY 1"


class Reader:
    """Reads every row of every table, the index's included, without what sequences number."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(conninfo(url), autocommit=True)
        names = [name for (name,) in self._connection.execute(_TABLES)]
        parts = (f"SELECT '{name}', (to_jsonb(t) - {_NUMBERED})::text FROM mirai_memory.{name} t" for name in names)
        self._statement = " UNION ALL ".join(parts).encode()

    def __call__(self) -> Rows:
        return sorted((name, re.sub(r"@\d+", "@", row)) for name, row in self._connection.execute(self._statement))

    def close(self) -> None:
        self._connection.close()
