"""Small files of other programs, made as those make them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

FIRST_VERSION = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, created_at TEXT, last_active TEXT, summary TEXT,
    message_count INTEGER DEFAULT 0);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT, role TEXT, content TEXT, timestamp TEXT,
    tokens INTEGER, model TEXT);
CREATE TABLE user_preferences (user_id TEXT PRIMARY KEY, coding_style TEXT, communication_tone TEXT,
    favorite_tools TEXT, project_context TEXT, updated_at TEXT);
CREATE TABLE tasks (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT, description TEXT, status TEXT,
    created_at TEXT, completed_at TEXT, result TEXT);
CREATE TABLE knowledge (id INTEGER PRIMARY KEY AUTOINCREMENT, category TEXT, key TEXT, value TEXT, source TEXT,
    confidence REAL, created_at TEXT, updated_at TEXT, embedding TEXT);
INSERT INTO sessions VALUES
    ('s1', 'alice', '2024-01-15T10:00:00.123456', '2024-01-15 11:00:00', 'About walruses', 2),
    ('s2', 'bob', '2024-02-01 09:00:00', NULL, NULL, 1);
INSERT INTO messages (session_id, role, content, timestamp, tokens, model) VALUES
    ('s1', 'user', 'What does a walrus eat?', '2024-01-15T10:00:00.123456', 6, NULL),
    ('s2', 'user', 'Пью зелёный чай', NULL, NULL, NULL),
    ('s1', 'assistant', 'Clams, mostly.', '2024-01-15 10:00:05', 4, 'gpt-4'),
    ('s1', 'user', 'Thanks', NULL, NULL, NULL);
INSERT INTO user_preferences VALUES
    ('alice', 'functional', 'brief', '["uv", "ruff"]', 'the zoo', '2024-01-15T10:00:00');
INSERT INTO tasks (session_id, description, status, created_at, completed_at, result) VALUES
    ('s1', 'Buy clams', 'completed', '2024-01-15 10:00:00', '2024-01-16 10:00:00', 'bought'),
    ('s2', 'Boil water', 'Pending', '2024-02-01 09:00:00', NULL, NULL);
INSERT INTO knowledge (category, key, value, source, confidence, created_at, updated_at, embedding) VALUES
    ('animals', 'walrus', 'eats clams', 'a book', 0.8, '2024-01-10 08:00:00', '2024-01-11 08:00:00', '[0.5, -1.5]'),
    ('animals', 'seal', 'eats fish', NULL, NULL, NULL, NULL, NULL);
"""

AGENTS = """
CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE agent_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, message_data TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (session_id) REFERENCES agent_sessions (session_id) ON DELETE CASCADE);
"""
LANGCHAIN = "CREATE TABLE message_store (id INTEGER NOT NULL PRIMARY KEY, session_id TEXT, message TEXT);"


def database(name: str, script: str, *statements: tuple[str, Sequence[Any]]) -> Path:
    """A database made by the script, or gone on with."""
    path = Path(name)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()
    return path


def old(*statements: tuple[str, Sequence[Any]], script: str = FIRST_VERSION) -> Path:
    return database("old.db", script, *statements)


def change(path: Path, statement: str, *values: Any) -> None:
    database(str(path), "", (statement, values))


def agents(items: Iterable[tuple[str, Any]], path: Path | None = None) -> Path:
    """(session, item) each; a text is stored as it is."""
    made = path or database("agents.db", AGENTS)
    for session, item in items:
        change(
            made,
            "INSERT OR IGNORE INTO agent_sessions VALUES (?, '2025-01-01 10:00:00', '2025-01-01 10:30:00')",
            session,
        )
        text = item if isinstance(item, (str, bytes)) else json.dumps(item)
        statement = (
            "INSERT INTO agent_messages (session_id, message_data, created_at) VALUES (?, ?, '2025-01-01 10:00:01')"
        )
        change(made, statement, session, text)
    return made


def langchain(rows: Iterable[tuple[str | None, Any]], path: Path | None = None) -> Path:
    """(session, message) each; a text is stored as it is."""
    made = path or database("langchain.db", LANGCHAIN)
    for session, message in rows:
        text = message if isinstance(message, (str, bytes)) else json.dumps(message)
        change(made, "INSERT INTO message_store (session_id, message) VALUES (?, ?)", session, text)
    return made


def node(id: str, parent: str | None, message: Any, *children: str) -> dict[str, Any]:
    return {"id": id, "parent": parent, "message": message, "children": list(children)}


def said(role: str, *parts: Any, kind: str = "text", **more: Any) -> dict[str, Any]:
    """A message of ChatGPT's."""
    content = more.pop("content", {"content_type": kind, "parts": list(parts)})
    return {"author": {"role": role, "name": more.pop("name", None)}, "content": content, "metadata": {}} | more


def chat(id: str, *messages: Any, **more: Any) -> dict[str, Any]:
    """A conversation of ChatGPT's without branches; its nodes are root, n1, n2 and so on."""
    nodes = [node("root", None, None)]
    for number, message in enumerate(messages, 1):
        nodes.append(node(f"n{number}", nodes[-1]["id"], message and {"id": f"{id}-{number}"} | message))
        nodes[-2]["children"] = [f"n{number}"]
    mapping = {item["id"]: item for item in nodes}
    return {
        "title": f"Title {id}",
        "create_time": 1_700_000_000.5,
        "mapping": mapping,
        "current_node": nodes[-1]["id"],
        "id": id,
    } | more


def claude_chat(id: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    times = {"created_at": "2024-03-01T10:00:00.000000Z", "updated_at": "2024-03-01T11:00:00.000000Z"}
    return {"uuid": id, "name": f"Name {id}", **times, "chat_messages": list(messages)} | more


def claude_message(id: str, sender: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "uuid": id,
        "sender": sender,
        "text": text,
        "content": [{"type": "text", "text": text}],
        "created_at": "2024-03-01T10:00:01.5Z",
        "attachments": [],
        "files": [],
    } | more


def write(value: Any, name: str = "conversations.json") -> Path:
    path = Path(name)
    text = value if isinstance(value, str) else json.dumps(value)
    path.write_text(text, "utf-8")
    return path
