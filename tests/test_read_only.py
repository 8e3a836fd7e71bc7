"""A memory that is opened for reading has nothing that could write: no turn, no file beside, no connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirai_memory import MemoryManager, ReadOnly


@pytest.fixture
def stored(sqlite_url: str) -> Path:
    """A database without the file that its writers have left."""
    with MemoryManager(sqlite_url) as memory:
        memory.create_session("alice")
    Path(f"{sqlite_url}.writers.lock").unlink()
    return Path(sqlite_url)


def test_it_refuses_before_it_takes_a_turn(stored: Path) -> None:
    with MemoryManager(stored, read_only=True) as memory:
        for write in (lambda: memory.create_session("bob"), lambda: memory.run(lambda uow: None)):
            with pytest.raises(ReadOnly, match="opened read-only"):
                write()
    assert not Path(f"{stored}.writers.lock").exists()


def test_its_connections_cannot_write(stored: Path) -> None:
    with MemoryManager(stored, read_only=True) as memory:
        with pytest.raises(ReadOnly):
            memory._store.read(lambda uow: uow.sessions.create("bob"))
        assert [session.user_id for session in memory.list_sessions()] == ["alice"]
