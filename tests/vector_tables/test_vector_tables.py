"""Tables of vectors on PostgreSQL: made while others write, kept as ``embeddings`` is, searched in large scopes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from vectors_in_tables import Asked, Opened, known_vectors

from mirai_memory import InvalidInput, Knowledge, MemoryManager, SchemaOutOfDate, StorageError, vector_tables
from mirai_memory.database import vector_making
from mirai_memory.database.vector_tables import table_name
from mirai_memory.testing.contract.making import new_session, say

WORDS = ("tea", "coffee", "river", "tower", "fence", "garden", "music", "train", "doctor", "recipe", "kitchen")
OWNERS = ("alice", "bob")
Rows = Callable[[], set[tuple[Any, ...]]]


def _texts(count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=4)) for _ in range(count)]


def _fill(memory: MemoryManager, *, messages: int = 30, facts: int = 20) -> None:
    for number, owner in enumerate(OWNERS):
        say(memory, new_session(memory, owner), *_texts(messages, number))
        for place, text in enumerate(_texts(facts, 10 + number)):
            category = ("home", "work")[place % 2]
            memory.add_knowledge(Knowledge(user_id=owner, category=category, key=f"k{place}", value=text))
    memory.reindex()


def _found(memory: MemoryManager) -> list[dict[int, Any]]:
    """What searches find, with the scores; scores that differ by a rounding may stand in another order."""
    found = []
    for owner in OWNERS:
        for query in (*WORDS[:4], "tower of tea by the river"):
            messages = memory.search_messages(query, user_id=owner, limit=100)
            facts = memory.search_knowledge(query, 100, user_id=owner)
            at_home = memory.search_knowledge(query, 100, category="home", user_id=owner)
            found += [{item.id: item.score for item in items} for items in (messages, facts, at_home)]
    return found


def _same(found: list[dict[int, Any]], others: list[dict[int, Any]]) -> bool:
    pairs = list(zip(found, others, strict=True))
    assert all(found for found in found)
    return all(one == pytest.approx(other, abs=0.01) for one, other in pairs)


# --- what is in them --------------------------------------------------------------------------------------------------


def test_a_table_has_what_was_there_before_and_what_comes_and_goes(
    opened: Opened, postgres_url: str, ask: Asked, rows: Rows
) -> None:
    with opened() as memory:
        session = new_session(memory, "alice")
        first, second = say(memory, session, "good tea", "bad coffee")
        memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Perm"))
        memory.reindex()
        assert vector_tables.enable(postgres_url) == [("fake", 32)]
        assert rows() == known_vectors(ask)
        assert len(rows()) == 3

        say(memory, session, "a river")
        memory.update_message(first, "better tea")
        memory.delete_message(second)
        memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Omsk"))
        memory.add_knowledge(Knowledge(user_id="bob", key="city", value="Tver"))
        memory.search_messages("tea", user_id="alice")  # makes the vectors that are wanted
        assert rows() == known_vectors(ask)
        assert len(rows()) >= 4

        memory.forget_user("alice")
        assert {row[2] for row in rows()} == {"bob"}
        assert rows() == known_vectors(ask)


def test_vectors_of_the_callers_own_have_a_table_of_their_own(opened: Opened, postgres_url: str, ask: Asked) -> None:
    with opened() as memory:
        own = Knowledge(user_id="alice", key="city", value="Perm", embedding=[1.0, 2.0], embedding_model="x; DROP' \"")
        memory.add_knowledge(own)
        assert vector_tables.enable(postgres_url) == [("x; DROP' \"", 2)]
        memory.add_knowledge(
            Knowledge(user_id="bob", key="city", value="Omsk", embedding=[3.0, 1.0], embedding_model="y")
        )
        changed = Knowledge(
            user_id="alice", key="city", value="Perm", embedding=[4.0, 1.0], embedding_model="x; DROP' \""
        )
        memory.add_knowledge(changed)
    table = table_name("x; DROP' \"", 2)
    assert ask(f"SELECT user_id, vector::text FROM {table}") == [("alice", "[4,1]")]


def test_what_another_database_copies_here_is_in_the_tables(
    opened: Opened, postgres_url: str, sqlite_url: str, ask: Asked, rows: Rows
) -> None:
    vector_tables.enable(postgres_url, models=[("fake", 32)])
    with opened(sqlite_url) as source, opened() as target:
        _fill(source, messages=5, facts=3)
        source.copy_to(target)
        assert rows() == known_vectors(ask)
        assert len(rows()) == 16
        with source.unit_of_work() as uow:
            for change, which in (
                ("vector = zeroblob(64)", "min(id)"),
                ("vector = NULL, dim = 0, status = 'pending'", "max(id)"),
            ):
                uow.db.exec_driver_sql(f"UPDATE embeddings SET {change} WHERE id = (SELECT {which} FROM embeddings)")
        source.copy_to(target)
        assert rows() == known_vectors(ask)
        assert len(rows()) == 15


@pytest.mark.long
def test_nothing_is_missed_that_is_stored_while_a_table_is_made(
    opened: Opened, postgres_url: str, ask: Asked, rows: Rows
) -> None:
    stop = threading.Event()
    with opened() as memory:
        _fill(memory)

        def write(owner: str) -> None:
            session = new_session(memory, owner)
            while not stop.is_set():
                (id,) = say(memory, session, random.choice(WORDS))
                memory.add_knowledge(Knowledge(user_id=owner, key=random.choice("abc"), value=random.choice(WORDS)))
                memory.search_messages("tea", user_id=owner)
                if id % 3 == 0:
                    memory.delete_message(id)

        writers = [threading.Thread(target=write, args=(owner,)) for owner in (*OWNERS, "carol")]
        for writer in writers:
            writer.start()
        try:
            for _ in range(3):
                vector_tables.enable(postgres_url)
                vector_tables.disable(postgres_url)
            vector_tables.enable(postgres_url)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert rows() == known_vectors(ask)
        assert memory.verify().ok


# --- searching --------------------------------------------------------------------------------------------------------


def test_a_large_scope_is_searched_in_the_table_and_finds_the_same(
    opened: Opened, postgres_url: str, request: pytest.FixtureRequest
) -> None:
    with opened() as memory:
        _fill(memory)
        exact = _found(memory)
        assert exact
        vector_tables.enable(postgres_url)
        request.getfixturevalue("never_exact")
        assert _same(_found(memory), exact)
        say(memory, new_session(memory, "alice"), *_texts(5, 99))
        memory.reindex()
        in_table = _found(memory)
    request.getfixturevalue("monkeypatch").undo()
    with opened() as memory:
        assert _same(_found(memory), in_table)


@pytest.mark.usefixtures("never_exact")
def test_the_nearest_of_others_are_nobodys(opened: Opened, postgres_url: str, ask: Asked) -> None:
    """Where nearly all that is near belongs to others, the index alone finds too few of the owner's."""
    with opened() as memory:
        say(memory, new_session(memory, "bob"), *["tea"] * 600)
        own = say(memory, new_session(memory, "alice"), *_texts(8))
        memory.reindex()
        vector_tables.enable(postgres_url)
        found = memory.search_messages("tea", user_id="alice", limit=20)
        assert {message.id for message in found} <= set(own)
        with_meaning = memory.search_messages("tea", user_id="alice", limit=20, explain=True)
        assert any("dense" in (message.explanation or {}) for message in with_meaning)


def test_a_table_without_a_vector_of_the_owner(opened: Opened, postgres_url: str, never_exact: None) -> None:
    with opened() as memory:
        _fill(memory)
    vector_tables.enable(postgres_url, models=[("another", 32)])
    with opened(name="another", rag={"background": False, "search_budget_ms": 0}) as memory:
        assert _found(memory)  # by words


def test_a_table_that_is_not_filled_yet_is_not_searched(
    opened: Opened, postgres_url: str, server: psycopg.Connection[Any], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("large")
    with opened() as memory:
        _fill(memory)
        exact = _found(memory)
        vector_making.create_extension(server)
        vector_making.make(server, "mirai_memory", "fake", 32)
        assert _same(_found(memory), exact)
        assert [(t.ready, t.vectors, t.missing) for t in vector_tables.status(postgres_url).tables] == [(False, 0, 100)]
        vector_tables.enable(postgres_url)  # goes on from there
        assert [(t.ready, t.vectors, t.missing) for t in vector_tables.status(postgres_url).tables] == [(True, 100, 0)]
        request.getfixturevalue("never_exact")
        assert _same(_found(memory), exact)


def test_an_index_that_was_left_unfinished_is_made_anew(
    opened: Opened, postgres_url: str, server: psycopg.Connection[Any], ask: Asked
) -> None:
    with opened() as memory:
        _fill(memory, messages=3, facts=2)
    vector_tables.enable(postgres_url)
    name = f"{table_name('fake', 32)}_message"
    server.execute(b"UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
    vector_tables.enable(postgres_url)
    assert ask("SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", name) == [(True,)]


@pytest.mark.usefixtures("large")
def test_after_the_table_is_dropped_searches_are_exact(opened: Opened, postgres_url: str, ask: Asked) -> None:
    with opened() as memory:
        _fill(memory)
        exact = _found(memory)
        vector_tables.enable(postgres_url)
        assert vector_tables.disable(postgres_url, models=["another"]) == []
        assert vector_tables.disable(postgres_url) == [("fake", 32)]
        assert _same(_found(memory), exact)
        _fill(memory)  # and writes go on
    found = vector_tables.status(postgres_url)
    assert (found.tables, found.without_table) == ((), (("fake", 32),))


# --- surroundings -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("never_exact")
def test_the_extension_may_be_in_a_schema_that_nobody_searches(
    opened: Opened, postgres_url: str, server: psycopg.Connection[Any]
) -> None:
    server.execute(b'CREATE SCHEMA "Their Extensions"')
    server.execute(b'CREATE EXTENSION vector SCHEMA "Their Extensions"')
    with opened() as memory:
        say(memory, new_session(memory, "alice"), "good tea")
        memory.reindex()
        vector_tables.enable(postgres_url)
        say(memory, new_session(memory, "alice"), "more tea")
        assert len(memory.search_messages("tea", user_id="alice")) == 2


def test_two_schemas_of_a_server_have_their_own(opened: Opened, postgres_url: str, ask: Asked) -> None:
    from mirai_memory import schema

    schema.upgrade(postgres_url, schema="tenant")
    vector_tables.enable(postgres_url, schema="tenant", models=[("fake", 32)])
    with opened() as ours, opened(schema="tenant") as theirs:
        say(ours, new_session(ours, "alice"), "our tea")
        say(theirs, new_session(theirs, "alice"), "their tea")
        ours.reindex()
        theirs.reindex()
    assert ask(f"SELECT user_id FROM tenant.{table_name('fake', 32)}") == [("alice",)]
    assert vector_tables.status(postgres_url).tables == ()


def test_a_server_without_pgvector_says_so_and_goes_on(
    opened: Opened, postgres_url: str, server: psycopg.Connection[Any]
) -> None:
    # A catalogue that lists no extension stands in front of the server's own.
    server.execute(b"CREATE SCHEMA without")
    server.execute(b"CREATE VIEW without.pg_available_extensions AS SELECT * FROM pg_available_extensions LIMIT 0")
    server.execute(f"ALTER DATABASE {make_url(postgres_url).database} SET search_path = without, pg_catalog".encode())
    with pytest.raises(StorageError, match="does not have pgvector"):
        vector_tables.enable(postgres_url, models=[("fake", 32)])
    found = vector_tables.status(postgres_url)
    assert (found.available, found.installed) == (None, None)
    with opened() as memory:
        _fill(memory, messages=2, facts=1)
        assert _found(memory)


def test_a_role_without_the_right_is_told_what_an_administrator_has_to_run(
    postgres_url: str, server: psycopg.Connection[Any]
) -> None:
    role = f"app_{make_url(postgres_url).database}"
    server.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        for right in ("USAGE ON SCHEMA", "SELECT ON ALL TABLES IN SCHEMA"):
            server.execute(f"GRANT {right} mirai_memory TO {role}".encode())
        url = make_url(postgres_url).set(username=role)
        with pytest.raises(StorageError, match="CREATE EXTENSION vector"):
            vector_tables.enable(url, models=[("fake", 32)])
    finally:
        server.execute(f"DROP OWNED BY {role}".encode())
        server.execute(f"DROP ROLE {role}".encode())


@pytest.mark.parametrize("model", [("", 3), ("m", 0), ("m", 4001), ("m\x00", 3), ("m", 1.5)])
def test_nonsense_is_refused(postgres_url: str, model: Any) -> None:
    with pytest.raises(InvalidInput):
        vector_tables.enable(postgres_url, models=[model])


def test_sqlite_needs_no_tables_and_an_old_schema_is_refused(sqlite_url: str, empty_postgres_url: str) -> None:
    with pytest.raises(InvalidInput, match="SQLite"):
        vector_tables.enable(sqlite_url)
    with pytest.raises(SchemaOutOfDate, match="db upgrade"):
        vector_tables.status(empty_postgres_url)


def test_the_schema_check_passes_over_the_tables(opened: Opened, postgres_url: str) -> None:
    from mirai_memory import schema

    vector_tables.enable(postgres_url, models=[("fake", 32)])
    assert schema.check(postgres_url) == []


def test_only_owners_rows_are_sampled(opened: Opened, postgres_url: str, never_exact: None) -> None:
    """How near all of the scope are is not what others' vectors say: the same search with and without them."""
    with opened() as memory:
        say(memory, new_session(memory, "alice"), *_texts(40))
        memory.reindex()
        vector_tables.enable(postgres_url)
        alone = [(m.id, m.score) for m in memory.search_messages("river", user_id="alice")]
        say(memory, new_session(memory, "bob"), *_texts(80, 7))
        memory.reindex()
    with opened() as memory:  # with nothing kept
        assert [(m.id, m.score) for m in memory.search_messages("river", user_id="alice")] == alone
