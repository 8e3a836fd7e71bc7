"""The messages of one conversation that has branches, in a temporary file of SQLite's until the branch is known."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from mirai_memory.importers.base import SourceError
from mirai_memory.importers.json_text import decode

_SETUP = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
CREATE TABLE nodes (id TEXT PRIMARY KEY, parent TEXT, body TEXT);
CREATE TABLE branch (place INTEGER PRIMARY KEY, id TEXT UNIQUE);
BEGIN;
"""


class Tree:
    """Nodes with a parent each; a body is any JSON value, None for a node that holds no message."""

    def __init__(self) -> None:
        # "" is a file that SQLite makes when memory is short, and that is gone when it is closed.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SETUP)
        self.count = 0

    def close(self) -> None:
        self._db.close()

    def clear(self) -> None:
        for statement in ("DELETE FROM nodes", "DELETE FROM branch"):
            self._db.execute(statement)
        self.count = 0

    def add(self, id: str, parent: str | None, body: Any) -> bool:
        """False where the id is there already."""
        values = (_key(id), None if parent is None else _key(parent), None if body is None else json.dumps(body))
        try:
            self._db.execute("INSERT INTO nodes VALUES (?, ?, ?)", values)
        except sqlite3.IntegrityError:
            return False
        except sqlite3.Error as error:
            raise _failed(error) from None
        self.count += body is not None
        return True

    def choose(self, leaf: str, *, root: str | None = None) -> str | None:
        """Make the branch that ends in ``leaf`` the one to be read; what is wrong with it. ``root`` is no node."""
        place, id, beyond = 0, _key(leaf), None if root is None else _key(root)
        try:
            while True:
                row = self._db.execute("SELECT parent FROM nodes WHERE id = ?", (id,)).fetchone()
                if row is None:
                    return None if id == beyond else f"the node {_shown(id)} is missing"
                try:
                    self._db.execute("INSERT INTO branch VALUES (?, ?)", (place, id))
                except sqlite3.IntegrityError:
                    return f"the node {_shown(id)} is an ancestor of itself"
                if row[0] is None:
                    return None
                place, id = place - 1, row[0]
        except sqlite3.Error as error:
            raise _failed(error) from None

    def branch(self) -> Iterator[tuple[str, Any]]:
        """Id and body of every node of the branch that has one, the root first."""
        statement = (
            "SELECT n.id, n.body FROM branch b JOIN nodes n ON n.id = b.id WHERE body IS NOT NULL ORDER BY place"
        )
        try:
            for id, body in self._db.execute(statement):
                yield decode(id), decode(body)
        except sqlite3.Error as error:
            raise _failed(error) from None

    def branch_count(self) -> int:
        statement = "SELECT count(*) FROM branch b JOIN nodes n ON n.id = b.id WHERE body IS NOT NULL"
        return int(self._db.execute(statement).fetchone()[0])


def _key(id: str) -> str:
    return json.dumps(id)  # a lone surrogate is no text for SQLite


def _shown(key: str) -> str:
    return key[1:61].rstrip('"')


def _failed(error: sqlite3.Error) -> SourceError:
    return SourceError(f"the temporary file failed: {error}")
