"""Memories on PostgreSQL whose vectors are in tables of pgvector's, and what is in these tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from server_side import conninfo

from mirai_memory import MemoryManager, load_settings
from mirai_memory.database.vector_tables import table_name
from mirai_memory.search import table_vectors
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

sys.path.insert(0, str(Path(__file__).parent))
from vectors_in_tables import Asked, Opened, table_rows

DIM = 32


@pytest.fixture
def server(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the administrator's to the database of the test."""
    with psycopg.connect(
        conninfo(postgres_url), autocommit=True, options="-c search_path=mirai_memory,public"
    ) as connection:
        yield connection


@pytest.fixture
def ask(server: psycopg.Connection[Any]) -> Asked:
    return lambda statement, *values: server.execute(statement.encode(), values).fetchall()


@pytest.fixture
def opened(postgres_url: str) -> Opened:
    """Opens a memory that makes vectors when it is asked, within a search or by ``reindex``."""

    @contextmanager
    def open_memory(url: str = postgres_url, *, dim: int = DIM, name: str = "fake", **memory: Any) -> Iterator[Any]:
        rag = {"background": False, "search_budget_ms": 60_000}
        settings = load_settings(memory={"rag": rag, **memory})
        embedder = FakeEmbedder(dim=dim, name=name)
        with MemoryManager(url, embedder=embedder, settings=settings, clock=FrozenClock()) as opened:
            yield opened

    return open_memory


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scope counts as too large to be searched exactly."""
    monkeypatch.setattr(table_vectors, "EXACT", 0)


@pytest.fixture
def never_exact(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that reads the rows of ``embeddings`` fails: what it finds, it finds in the tables."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("searched exactly")

    monkeypatch.setattr(table_vectors.Vectors, "nearest", refuse)


@pytest.fixture
def rows(ask: Asked) -> Callable[[], set[tuple[Any, ...]]]:
    """The table of the fake embedder's vectors."""
    return lambda: table_rows(ask, table_name("fake", DIM))
