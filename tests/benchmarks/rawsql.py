"""The other arm: the same work on the same schema by literal SQL over one sqlite3 connection.

It is the least that the standard library can do it with: no checks, no pool, no threads, no errors of its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mirai_memory import MemoryManager, load_settings
from mirai_memory._ids import new_session_id
from mirai_memory.search.terms import message_place, message_terms

PRAGMAS = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "synchronous=FULL",
    "fullfsync=ON",
    "checkpoint_fullfsync=ON",
    "secure_delete=ON",
    "trusted_schema=OFF",
)
TAKE_PLACES = (
    "UPDATE sessions SET next_position = next_position + ?, message_count = message_count + ?, last_active = ? "
    "WHERE id = ? RETURNING next_position, user_id"
)
INSERT = (
    "INSERT INTO messages (session_id, user_id, position, group_start, kind, role, name, content, tool_calls, "
    "tool_call_id, parts, payload, timestamp, tokens, model, metadata, client_id) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
COUNT_IN = (
    "INSERT INTO word_scopes (kind, user_id, item_count, term_count) VALUES ('message', ?, ?, ?) "
    "ON CONFLICT (kind, user_id) DO UPDATE SET item_count = item_count + excluded.item_count, "
    "term_count = term_count + excluded.term_count RETURNING id"
)
INDEX = "INSERT INTO word_messages (rowid, terms) VALUES (?, ?)"
PLACE = (
    "INSERT INTO word_places (scope, id, session, position, speaker, cues, length, time) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
VECTOR = (
    "INSERT INTO embeddings (kind, item_id, user_id, model, dim, vector, content_hash, status) "
    "VALUES ('message', ?, ?, ?, ?, ?, ?, 'ready')"
)
COUNT_VECTORS = "UPDATE word_scopes SET vectors = vectors + 1 WHERE kind = 'message' AND user_id = ?"
NEW_IDS = "SELECT id FROM messages WHERE session_id = ? AND position >= ? ORDER BY position"
RECENT = (
    "SELECT id, session_id, user_id, position, group_start, kind, role, name, content, tool_calls, tool_call_id, "
    "parts, payload, timestamp, tokens, model, metadata, client_id FROM messages WHERE session_id = ? "
    "ORDER BY position DESC LIMIT ?"
)
NEW_SESSION = (
    "INSERT INTO sessions (id, user_id, created_at, last_active, message_count, next_position) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
STATS = (
    "SELECT count(*) FROM sessions",
    "SELECT count(*) FROM sessions WHERE last_active >= datetime('now', '-1 day')",
    "SELECT coalesce(sum(message_count), 0) FROM sessions",
    "SELECT count(*) FROM tasks",
    "SELECT count(*) FROM knowledge WHERE superseded_at IS NULL",
    "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a file of our schema, which is made where it is missing."""
    if not path.exists():
        opened(path).close()  # the schema, and the note that its word index is up to date
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def opened(path: Path, **options: Any) -> MemoryManager:
    """A memory without the embedder that may be installed, which would take more time than all that is measured."""
    return MemoryManager(path, settings=load_settings(memory={"rag": {"embedder": "none"}}), **options)


def add_session(connection: sqlite3.Connection, user_id: str, *, messages: int = 0) -> str:
    now, session_id = datetime.now(UTC), new_session_id()
    connection.execute(NEW_SESSION, (session_id, user_id, _time(now), _time(now), messages, messages + 1))
    return session_id


def add_message(connection: sqlite3.Connection, session_id: str, content: str, metadata: dict[str, Any]) -> int:
    """What ``MemoryManager.add_message`` does, and as durable."""
    now = datetime.now(UTC)
    terms = message_terms(content, None, now)
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    position, user_id = execute(TAKE_PLACES, (1, 1, _time(now), session_id)).fetchone()
    id = execute(INSERT, _row(session_id, user_id, position - 1, content, now, metadata)).lastrowid
    scope = execute(COUNT_IN, (user_id, 1, len(terms))).fetchone()[0]
    assert id is not None
    execute(INDEX, (id, _tokens(terms, scope)))
    execute(PLACE, _place(scope, id, session_id, position - 1, content, now, terms))
    execute("COMMIT")
    return id


def add_messages(connection: sqlite3.Connection, session_id: str, contents: Sequence[str]) -> list[int]:
    """What ``MemoryManager.add_messages`` does for one session, by executemany."""
    now = datetime.now(UTC)
    terms = [message_terms(content, None, now) for content in contents]
    count = len(contents)
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    after, user_id = execute(TAKE_PLACES, (count, count, _time(now), session_id)).fetchone()
    first = after - count
    rows = (_row(session_id, user_id, place, content, now, {}) for place, content in enumerate(contents, first))
    connection.executemany(INSERT, rows)
    ids = [id for (id,) in execute(NEW_IDS, (session_id, first))]
    _index(connection, user_id, session_id, first, now, list(zip(ids, contents, terms, strict=True)))
    execute("COMMIT")
    return ids


def recent(connection: sqlite3.Connection, session_id: str, limit: int) -> list[Any]:
    return connection.execute(RECENT, (session_id, limit)).fetchall()


def stats(connection: sqlite3.Connection) -> list[Any]:
    return [connection.execute(statement).fetchone() for statement in STATS]


def fill(path: Path, sessions: Iterable[tuple[str, Sequence[str]]], *, indexed: bool) -> list[str]:
    """Store whole sessions of (owner, contents) as fast as SQLite takes them; the ids of the sessions.

    Without ``indexed`` the messages are not found by words, which the benchmark of the newest ones does not need.
    """
    now, ids = datetime.now(UTC), []
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for user_id, contents in sessions:
            session_id = add_session(connection, user_id, messages=len(contents))
            rows = (_row(session_id, user_id, place, content, now, {}) for place, content in enumerate(contents, 1))
            connection.executemany(INSERT, rows)
            if indexed:
                new = [id for (id,) in connection.execute(NEW_IDS, (session_id, 1))]
                terms = [message_terms(content, None, now) for content in contents]
                _index(connection, user_id, session_id, 1, now, list(zip(new, contents, terms, strict=True)))
            ids.append(session_id)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return ids


def add_vectors(path: Path, user_id: str, model: str, dim: int) -> None:
    """A random vector for each of the owner's messages."""
    chance = np.random.default_rng(7)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        ids = [id for (id,) in connection.execute("SELECT id FROM messages WHERE user_id = ? ORDER BY id", (user_id,))]
        rows = ((id, user_id, model, dim, chance.standard_normal(dim).astype("<f2").tobytes(), str(id)) for id in ids)
        connection.executemany(VECTOR, rows)
        connection.execute(COUNT_VECTORS, (user_id,))
        connection.execute("COMMIT")


FACTS = ("knowledge", "embeddings", "word_scopes")


def facts(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """The rows of all facts, table by table; those of the index with the words that it was given."""
    rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in FACTS}
    return rows | {"word_knowledge": connection.execute("SELECT rowid, terms FROM word_knowledge").fetchall()}


def add_facts(path: Path, rows: dict[str, list[Any]]) -> None:
    with closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for name in FACTS:
            places = ", ".join("?" * len(rows[name][0]))
            connection.executemany(f"INSERT INTO {name} VALUES ({places})", rows[name])
        connection.executemany("INSERT INTO word_knowledge (rowid, terms) VALUES (?, ?)", rows["word_knowledge"])
        connection.execute("COMMIT")


def _index(
    connection: sqlite3.Connection,
    user_id: str,
    session_id: str,
    first: int,
    now: datetime,
    entries: Sequence[tuple[int, str, list[str]]],
) -> None:
    counts = (user_id, len(entries), sum(len(terms) for _, _, terms in entries))
    scope = connection.execute(COUNT_IN, counts).fetchone()[0]
    connection.executemany(INDEX, ((id, _tokens(terms, scope)) for id, _, terms in entries))
    places = (
        _place(scope, id, session_id, place, content, now, terms)
        for place, (id, content, terms) in enumerate(entries, first)
    )
    connection.executemany(PLACE, places)


def _place(
    scope: int, id: int, session_id: str, position: int, content: str, now: datetime, terms: Sequence[str]
) -> tuple[Any, ...]:
    place = message_place(content, None, _role(position), now, session_id, position)
    return scope, id, place.session, position, place.speaker, place.cues, len(terms), place.time


def _role(position: int) -> str:
    return "user" if position % 2 else "assistant"


def _row(
    session_id: str, user_id: str, position: int, content: str, when: datetime, metadata: dict[str, Any]
) -> tuple[Any, ...]:
    return (
        session_id, user_id, position, position, "chat", _role(position), None, content, None,
        None, None, None, _time(when), None, None, json.dumps(metadata, ensure_ascii=False), None,
    )  # fmt: skip


def _tokens(terms: list[str], scope: int) -> str:
    return f" @{scope} " + "".join(f" {term}@{scope} " for term in terms)


def _time(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(" ", "microseconds")
