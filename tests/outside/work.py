"""Calls of every method that writes, and what the file then holds, row by row."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from mirai_memory import Knowledge, MemoryManager, Message, Task, UnitOfWork, UserPreferences, load_settings
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import START, FrozenClock

Step = Callable[[MemoryManager], Any]
Rows = dict[str, list[tuple[Any, ...]]]


def _say(session: str, content: str, **more: Any) -> Message:
    return Message(session_id=session, role="user", content=content, **more)


def _calling(session: str) -> list[Message]:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    return [
        Message(session_id=session, role="assistant", tool_calls=[call]),
        Message(session_id=session, role="tool", tool_call_id="c1", content="four below zero"),
    ]


def _everything(uow: UnitOfWork) -> None:
    uow.sessions.create("bob", session_id="both")
    uow.messages.add_many([_say("both", f"line {n} of a long talk" * 20) for n in range(30)])
    uow.tasks.add(Task(session_id="both", description="read it all"))
    uow.knowledge.add(Knowledge(user_id="bob", key="pet", value="a heron"))
    uow.preferences.save(UserPreferences(user_id="bob", coding_style="terse"))


def _many(count: int) -> list[Knowledge]:
    return [Knowledge(user_id="bob", key=f"k{n}", value=f"the value of number {n}") for n in range(count)]


# Each is one transaction, and each depends on those before it.
STEPS: dict[str, Step] = {
    "create_session": lambda m: m.create_session("alice", session_id="talk", metadata={"title": "первый"}),
    "ensure_session": lambda m: m.ensure_session("bob", "chat"),
    "add_message": lambda m: m.add_message(_say("talk", "the walrus likes green tea", client_id="r1")),
    "add_message again": lambda m: m.add_message(_say("talk", "the walrus likes green tea", client_id="r1")),
    "add_messages": lambda m: m.add_messages([_say("talk", f"мы едем в Казань {n}") for n in range(8)]),
    "add_messages of a group": lambda m: m.add_messages(_calling("talk")),
    "update_message": lambda m: m.update_message(2, "we stay in Perm"),
    "delete_message": lambda m: m.delete_message(3),
    "pop_message": lambda m: m.pop_message("talk"),
    "update_session": lambda m: m.update_session("talk", metadata={"title": "second"}),
    "update_session_activity": lambda m: m.update_session_activity("talk"),
    "add_knowledge": lambda m: m.add_knowledge(Knowledge(user_id="alice", key="city", value="Oslo")),
    "add_knowledge anew": lambda m: m.add_knowledge(Knowledge(user_id="alice", key="city", value="Riga")),
    "add_knowledge closed": lambda m: m.add_knowledge(
        Knowledge(key="city", value="Rome", valid_to=START - timedelta(days=1))
    ),
    "add_knowledge with a vector": lambda m: m.add_knowledge(
        Knowledge(value="shared by all", embedding=[0.5, 1.5], embedding_model="given")
    ),
    "add_knowledge_many": lambda m: m.add_knowledge_many(_many(12)),
    "save_user_preferences": lambda m: m.save_user_preferences(UserPreferences(user_id="alice", coding_style="black")),
    "update_user_preferences": lambda m: m.update_user_preferences("alice", favorite_tools=["ruff"]),
    "add_task": lambda m: m.add_task(Task(session_id="talk", description="buy tea", client_id="t1")),
    "update_task_status": lambda m: m.update_task_status(1, "completed", "bought"),
    "run": lambda m: m.run(_everything),
    "reindex": lambda m: m.reindex(),
    "trim_old_messages": lambda m: m.trim_old_messages("both", 5),
    "clear_session": lambda m: m.clear_session("talk"),
    "delete_knowledge": lambda m: m.delete_knowledge(key="city", user_id="alice"),
    "delete_task": lambda m: m.delete_task(2),
    "delete_session": lambda m: m.delete_session("both"),
    "delete_user_preferences": lambda m: m.delete_user_preferences("alice"),
    "cleanup_old_sessions": lambda m: m.cleanup_old_sessions(0),
}


@contextmanager
def opened(path: Path, clock: FrozenClock | None = None, **memory: Any) -> Iterator[MemoryManager]:
    """A memory in which nothing happens by itself, so that a step makes the same rows in every run."""
    settings = load_settings(memory={"rag": {"background": False}, **memory})
    embedder = FakeEmbedder(dim=8)
    with MemoryManager(path, settings=settings, embedder=embedder, clock=clock or FrozenClock()) as memory_manager:
        yield memory_manager


def do(memory: MemoryManager, clock: FrozenClock, number: int) -> None:
    """The step of that number, at a time of its own."""
    clock.advance(seconds=(START - clock()).total_seconds() + number)
    list(STEPS.values())[number](memory)


_MADE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_ENGINES_OWN = re.compile(r"word_\w+_(data|idx|content|docsize|config)|sqlite_\w+")


def rows(path: Path) -> Rows:
    """Every row of every table, the index's included; ids that are made at random are alike."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(_alike(row) for row in connection.execute(f'SELECT rowid, * FROM "{name}"'))
            if name != "word_places"  # it has no rowid
            else sorted(connection.execute('SELECT * FROM "word_places"'))
            for name in names
            if not _ENGINES_OWN.fullmatch(name)
        }


def _alike(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_MADE_ID.sub("made", repr(row)),)


def faults(path: Path) -> list[str]:
    """What is wrong with a file beyond what its rows say: pages, references, counters, the index of words."""
    checks = {
        "pages": "SELECT * FROM pragma_integrity_check WHERE integrity_check != 'ok'",
        "references": "SELECT * FROM pragma_foreign_key_check",
        "counters": "SELECT id FROM sessions AS s WHERE message_count != "
        "(SELECT count(*) FROM messages WHERE session_id = s.id)",
        "places": "SELECT id FROM sessions AS s WHERE next_position <= "
        "(SELECT max(position) FROM messages WHERE session_id = s.id)",
        "words": "SELECT id FROM messages WHERE kind = 'chat' AND id NOT IN (SELECT rowid FROM word_messages) "
        "UNION ALL SELECT rowid FROM word_messages WHERE rowid NOT IN (SELECT id FROM messages)",
        "word places": "SELECT rowid FROM word_messages EXCEPT SELECT id FROM word_places "
        "UNION ALL SELECT id FROM word_places WHERE id NOT IN (SELECT rowid FROM word_messages)",
        "scopes": "SELECT user_id FROM word_scopes AS s WHERE kind = 'message' AND item_count != "
        "(SELECT count(*) FROM messages WHERE kind = 'chat' AND user_id = s.user_id)",
        "vectors": "SELECT id FROM embeddings WHERE kind = 'message' AND item_id NOT IN (SELECT id FROM messages) "
        "UNION ALL SELECT id FROM embeddings WHERE kind = 'knowledge' AND item_id NOT IN (SELECT id FROM knowledge)",
    }
    with closing(sqlite3.connect(path)) as connection:
        found = [name for name, statement in checks.items() if connection.execute(statement).fetchall()]
        for words in ("word_messages", "word_knowledge"):
            connection.execute(f"INSERT INTO {words}({words}) VALUES ('integrity-check')")
        return found


def made_anew(path: Path) -> Rows:
    """The rows, once the index of words has been made anew of the texts; scopes lose their numbers."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memory_state SET value = 'another' WHERE name = 'analyzer_version'")
    with opened(path):
        pass
    return words_of(rows(path))


def words_of(found: Rows) -> Rows:
    """What the index holds of each text."""
    return {
        name: [(re.sub(r"@\d+", "@", row[0]),) for row in found[name]] for name in ("word_messages", "word_knowledge")
    }
