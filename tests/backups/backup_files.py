"""Rows to be backed up, and files that no memory makes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mirai_memory import Knowledge, MemoryManager, Message, Task, UserPreferences


def fill(memory: MemoryManager, owner: str = "alice") -> str:
    """Something in every table; the session."""
    session = memory.create_session(owner, session_id=f"talk of {owner}").id
    texts = [f"{owner} met walrus number {number} in Казань " * 8 for number in range(60)]
    memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Oslo"))
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Riga"))
    memory.add_knowledge(Knowledge(user_id=owner, value="likes tea", embedding=[0.5, 1.5], embedding_model="given"))
    memory.add_task(Task(session_id=session, description="buy tea"))
    memory.save_user_preferences(UserPreferences(user_id=owner, coding_style="terse"))
    return session


def change(path: Path, *statements: str) -> None:
    """Do something to a closed file that a memory never does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()


def unsealed(backup: Path, path: Path) -> Path:
    """The same database as one that was copied by other means."""
    content = backup.read_bytes()
    path.write_bytes(content[: len(content) // 4096 * 4096])
    return path


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".mirai-")]
