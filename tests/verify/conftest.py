"""A memory with something of every kind in it, and a way to damage it behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from server_side import conninfo

from mirai_memory import Knowledge, MemoryManager, Message, Task, UserPreferences
from mirai_memory.testing.clock import FrozenClock

Damage = Callable[..., None]


def fill(memory: MemoryManager, owner: str, clock: FrozenClock) -> None:
    """Two sessions, a group of messages with a tool call, a task, a value that was replaced, vectors."""
    for number in range(2):
        session = memory.create_session(owner).id
        memory.add_messages(
            [Message(session_id=session, role="user", content=f"{owner} likes walnuts {n}") for n in range(3)]
        )
        memory.add_messages(
            [
                Message(session_id=session, role="assistant", content="", tool_calls=[{"id": "call"}]),
                Message(session_id=session, role="tool", tool_call_id="call", content=f"answer {number}"),
                Message(session_id=session, kind="item", payload={"type": "note"}),
            ]
        )
    first = memory.get_messages(session)[0].id
    memory.add_task(Task(session_id=session, description="bake"))
    fact = Knowledge(
        user_id=owner, key="city", value="Perm", message_id=first, embedding=[1.0, 2.0], embedding_model="given"
    )
    memory.add_knowledge(fact)
    clock.advance(hours=1)
    memory.add_knowledge(
        Knowledge(user_id=owner, key="city", value="Ufa", embedding=[2.0, 1.0], embedding_model="given")
    )
    memory.add_knowledge(Knowledge(user_id=owner, key="tea", value="green"))
    memory.save_user_preferences(UserPreferences(user_id=owner, coding_style="terse"))


@pytest.fixture
def filled(memory: MemoryManager, clock: FrozenClock) -> MemoryManager:
    """Two owners' rows of every kind, and a shared fact, on each engine."""
    for owner in ("alice", "bob"):
        fill(memory, owner, clock)
    memory.add_knowledge(Knowledge(value="the office is closed on Friday"))
    return memory


def _for(engine: str, statement: str) -> str:
    """The statement, which may begin with the engine that it is for; empty for the other."""
    name, found, rest = statement.partition(": ")
    if not found or " " in name:
        return statement
    return rest if name == engine else ""


@pytest.fixture
def damage(url: str) -> Damage:
    """Runs statements on the database as nobody should, without its rules about references."""

    engine = "postgres" if "://" in url else "sqlite"

    def run(*given: str) -> None:
        statements = [mine for statement in given if (mine := _for(engine, statement))]
        if "://" not in url:
            with closing(sqlite3.connect(url, isolation_level=None)) as connection:
                for statement in statements:
                    assert connection.execute(statement).rowcount != 0, statement
            return
        with psycopg.connect(conninfo(url), autocommit=True) as server:
            server.execute("SET session_replication_role = replica")
            server.execute("SET search_path = mirai_memory")
            for statement in statements:
                assert server.execute(statement.encode()).rowcount != 0, statement

    return run
