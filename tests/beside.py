"""A database of either engine from beside the memory: what somebody else does to it, and what a memory leaves open."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
from server_side import ask, conninfo

WRITTEN = ("sessions", "messages", "user_preferences", "tasks", "knowledge")


def is_server(url: str) -> bool:
    return url.startswith("postgresql")


@contextmanager
def write_lock(url: str) -> Iterator[None]:
    """Somebody else's lock, which lets others read and not write; fails where a writer has not let go."""
    if is_server(url):
        with psycopg.connect(conninfo(url)) as connection:
            connection.execute("SET LOCAL lock_timeout = '20s'")  # the server's own vacuum gives way after a second
            tables = ", ".join(f"mirai_memory.{name}" for name in WRITTEN)
            connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE".encode())
            yield
    else:
        with closing(sqlite3.connect(url, timeout=0.0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


def left_open(url: str) -> list[str]:
    """What is open of the database: files of this process, lock files among them; connections to the server."""
    if is_server(url):
        return _connections(url)
    folder = Path("/proc/self/fd")
    targets = []
    for entry in os.listdir(folder):
        with suppress(OSError):  # of the listing itself
            targets.append(os.readlink(folder / entry))
    return [target for target in targets if target.startswith(url)]


def _connections(url: str) -> list[str]:
    """Those that are not gone after a while: the server hears of a closed one a little later."""
    others = (
        "SELECT state || ': ' || query FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    end = time.monotonic() + 20
    while (found := [words for (words,) in ask(url, others)]) and time.monotonic() < end:
        time.sleep(0.005)
    return found
