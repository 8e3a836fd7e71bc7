"""A look at a server from its own side, and orders to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psycopg
from sqlalchemy import make_url

GUARD = 120.0  # seconds after which something that should have happened will not; no test waits that long


def conninfo(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def ask(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows that a statement returns, run on a connection of its own."""
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def database_of(url: str) -> str:
    return str(make_url(url).database)


def set_for_database(url: str, name: str, value: str) -> None:
    """For the connections that are opened from now on."""
    ask(url, f"ALTER DATABASE {database_of(url)} SET {name} = '{value}'")


def until(condition: Callable[[], Any], within: float = GUARD) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def wait_for_waiting(url: str, late: Future[Any]) -> None:
    """Until a connection to the database waits for a lock, or what should is at its end."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    until(lambda: late.done() or ask(url, waiting)[0][0])
