"""What a process says to a server when it connects, and how many connections it has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from server_side import conninfo
from sqlalchemy import make_url

from mirai_memory import MemoryManager, StorageError, load_settings

GUARD = 60.0


def named(url: str, **parameters: str) -> str:
    return make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)


def applications(url: str) -> list[tuple[Any, ...]]:
    """The name of each other connection to the database."""
    others = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND backend_type = "
    with psycopg.connect(conninfo(url)) as connection:
        return connection.execute(f"{others}'client backend' AND pid <> pg_backend_pid()".encode()).fetchall()


def test_connections_are_named_unless_the_url_names_them(postgres_url: str) -> None:
    for url, name in ((postgres_url, "mirai_memory"), (named(postgres_url, application_name="my agent"), "my agent")):
        with MemoryManager(url) as memory:
            memory.create_session("alice")
            assert applications(postgres_url) == [(name,)]


def test_no_more_connections_than_the_setting_allows(postgres_url: str) -> None:
    settings = load_settings(memory={"pool_size": 3})
    with MemoryManager(postgres_url, settings=settings) as memory, ThreadPoolExecutor(6) as pool:
        together, seen = threading.Barrier(3), []

        def work(number: int) -> None:
            with memory.unit_of_work() as uow:
                uow.sessions.create(f"owner {number}")
                if together.wait(GUARD) == 0:
                    seen.append(len(applications(postgres_url)))

        list(pool.map(work, range(6)))
        assert seen == [3, 3]
        assert len(memory.list_sessions()) == 6
        assert len(applications(postgres_url)) <= 3


def test_what_the_url_says_of_tls_reaches_the_driver(postgres_url: str) -> None:
    with MemoryManager(named(postgres_url, sslmode="prefer")) as memory:
        assert "sslmode=prefer" in memory.url
    # Only libpq knows what is none.
    with pytest.raises(StorageError):
        MemoryManager(named(postgres_url, sslmode="nonsense"))
    url = named(postgres_url, sslmode="prefer", sslpassword="p4ssw0rd")
    with MemoryManager(url) as memory:
        assert "p4ssw0rd" not in memory.url
        assert "p4ssw0rd" not in str(memory.health())
