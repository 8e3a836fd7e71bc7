"""Several memories in one database of a server, a schema each, and a host's own tables: each on its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from server_side import conninfo

from mirai_memory import (
    Knowledge,
    MemoryManager,
    Message,
    SchemaOutOfDate,
    Task,
    UserPreferences,
    load_settings,
    schema,
)
from mirai_memory.testing import FakeEmbedder

PLACES = ("tenant_a", "tenant_b")


def opened(url: str, place: str) -> MemoryManager:
    settings = load_settings(memory={"schema": place})
    return MemoryManager(url, settings=settings, embedder=FakeEmbedder())


def fill(memory: MemoryManager, word: str) -> None:
    for owner in ("alice", "bob"):
        session = memory.ensure_session(owner, "chat").id
        texts = [f"{word} {number} of {owner}" for number in range(5)]
        ids = memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])
        memory.add_knowledge(Knowledge(user_id=owner, key=word, value=f"{word} is known", message_id=ids[0]))
        memory.add_task(Task(session_id=session, description=word))
        memory.save_user_preferences(UserPreferences(user_id=owner, coding_style=word))
    memory.reindex()


def dump(url: str, place: str) -> dict[str, Any]:
    """Every row of every table of a schema, and where its sequences stand."""
    found: dict[str, Any] = {}
    with psycopg.connect(conninfo(url)) as connection:
        names = "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY 1"
        for name, kind in connection.execute(names, (place,)).fetchall():
            found[name] = kind
            if kind in ("r", "S"):
                rows = connection.execute(f'SELECT * FROM {place}."{name}"'.encode()).fetchall()
                found[name] = sorted(map(repr, rows))
    return found


@pytest.fixture
def two(empty_postgres_url: str) -> Iterator[tuple[str, MemoryManager, MemoryManager]]:
    """The URL, and the memories of two tenants, the same owners in both."""
    for place in PLACES:
        schema.upgrade(empty_postgres_url, schema=place)
    with opened(empty_postgres_url, PLACES[0]) as one, opened(empty_postgres_url, PLACES[1]) as other:
        fill(one, "walrus")
        fill(other, "heron")
        yield empty_postgres_url, one, other


def test_each_finds_its_own(two: tuple[str, MemoryManager, MemoryManager]) -> None:
    _, one, other = two
    for memory, own, foreign in ((one, "walrus", "heron"), (other, "heron", "walrus")):
        found = [*memory.recall(own, user_id="alice"), *memory.recall(foreign, user_id="alice")]
        texts = [item.content if isinstance(item, Message) else item.value for item in found]
        assert texts
        assert all(own in text for text in texts)
        assert memory.search_knowledge(own, user_id="alice")[0].value == f"{own} is known"
        assert memory.get_stats()["total_messages"] == 10
    assert one.get_stats()["db_size_mb"] > 0


def test_whatever_one_does_leaves_the_other_as_it_was(two: tuple[str, MemoryManager, MemoryManager]) -> None:
    url, one, other = two
    before = dump(url, PLACES[1])
    session = one.list_sessions("alice")[0].id
    one.add_message(Message(session_id=session, role="user", content="more"))
    one.trim_old_messages(session, keep=2)
    one.delete_task(one.get_tasks(session)[0].id or 0)
    one.summarize(session)
    one.clear_session(one.list_sessions("bob")[0].id)
    assert one.verify().ok
    one.repair()
    assert one.verify_forgotten("carol", ["heron"]).ok
    assert one.forget_user("alice").sessions == 1
    one.cleanup_old_sessions(days=0)
    schema.downgrade(url, revision="base", schema=PLACES[0])
    schema.upgrade(url, schema=PLACES[0])
    assert dump(url, PLACES[1]) == before
    assert other.recall("heron", user_id="alice")
    assert other.verify().ok


def test_one_is_copied_beside_the_other(two: tuple[str, MemoryManager, MemoryManager]) -> None:
    url, one, _ = two
    schema.upgrade(url, schema="tenant_c")
    before = dump(url, PLACES[0]), dump(url, PLACES[1])
    with opened(url, "tenant_c") as third:
        assert one.copy_to(third).rows["messages"] == 10
        assert third.recall("walrus", user_id="alice")
        assert third.recall("heron", user_id="alice") == third.recall("sparrow", user_id="alice")
    assert (dump(url, PLACES[0]), dump(url, PLACES[1])) == before


def test_they_are_migrated_one_by_one(two: tuple[str, MemoryManager, MemoryManager]) -> None:
    url, one, other = two
    schema.downgrade(url, revision="0002", schema=PLACES[0])
    with pytest.raises(SchemaOutOfDate):
        opened(url, PLACES[0])
    with pytest.raises(SchemaOutOfDate):
        one.recall("walrus", user_id="alice")  # open all the while
    assert len(other.recall("heron", user_id="alice")) > 1
    other.add_knowledge(Knowledge(user_id="alice", value="herons fish"))
    schema.upgrade(url, schema=PLACES[0])
    assert schema.check(url, schema=PLACES[0]) == schema.check(url, schema=PLACES[1]) == []
    with opened(url, PLACES[0]) as again:
        assert again.recall("walrus", user_id="alice")
        found = again.recall("herons", user_id="alice")
        assert not [item for item in found if "heron" in str(item)]


def test_a_host_s_tables_and_its_alembic_are_left_alone(empty_postgres_url: str) -> None:
    with psycopg.connect(conninfo(empty_postgres_url), autocommit=True) as host:
        for name in ("sessions", "messages", "knowledge", "parked_sessions", "word_messages", "alembic_version"):
            host.execute(f"CREATE TABLE {name} (id SERIAL, name TEXT)".encode())
            host.execute(f"INSERT INTO {name} (name) VALUES ('the host')".encode())
        host.execute("CREATE TABLE mirai_memory_version (version_num TEXT)")
        before = dump(empty_postgres_url, "public")
        host.execute("SET search_path TO public")
    schema.upgrade(empty_postgres_url, schema="tenant_a")
    with opened(empty_postgres_url, "tenant_a") as memory:
        fill(memory, "walrus")
        assert memory.verify().ok
        assert memory.forget_user("alice").state == "done"
    schema.downgrade(empty_postgres_url, revision="base", schema="tenant_a")
    assert dump(empty_postgres_url, "public") == before
