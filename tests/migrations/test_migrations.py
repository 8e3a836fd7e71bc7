"""The schema goes up, down and up again with data in it, and is what the models say, on both engines."""

from __future__ import annotations

import ast
import io
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from server_side import conninfo
from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from mirai_memory import Knowledge, MemoryManager, Message, Task, UserPreferences, schema
from mirai_memory.database import migration_engine, resolve_url
from mirai_memory.models import Base
from mirai_memory.testing.clock import FrozenClock

CHECKOUT = Path(__file__).parents[2]
VERSIONS = CHECKOUT / "migrations" / "versions"
REVISIONS = sorted(path.stem[:4] for path in VERSIONS.glob("[0-9]*.py"))
TABLES = tuple(sorted(Base.metadata.tables))
NUMBERED = ("messages", "tasks", "knowledge", "embeddings")
OURS = "mirai_memory"
GUARD = 120


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database with nothing in it, once per engine."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "empty_postgres_url"))


@contextmanager
def _connect(url: str, place: str = OURS) -> Iterator[Connection]:
    """A connection that knows nothing of the package's own engines."""
    target = resolve_url(url)
    engine = create_engine(target, poolclass=NullPool)
    with engine.connect() as connection:
        if target.get_backend_name() == "postgresql":
            connection.execute(text(f"SET search_path TO {place}"))
        else:
            connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.commit()
        yield connection


def _dump(url: str, prefix: str = "", place: str = OURS) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the models, in a fixed order, as the engine returns it."""
    with _connect(url, place) as connection:
        return {
            table: sorted((tuple(row) for row in connection.execute(text(f"SELECT * FROM {prefix}{table}"))), key=repr)
            for table in TABLES
        }


def _fill(url: str, place: str = OURS) -> None:
    """Something of everything, through the front door, the newest rows deleted again."""
    clock = FrozenClock()
    with MemoryManager(url, clock=clock) as memory:
        named = memory.ensure_session("alice", "chat 1", agent_id="agent", metadata={"ключ": [1, None, 1e22]})
        other = memory.create_session("bob")
        empty = memory.create_session("carol")
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "ё"}'}}
        ids = memory.add_messages(
            [
                Message(session_id=named.id, role="user", content="Где мой зелёный чай? 🍵", client_id="one"),
                Message(session_id=named.id, role="assistant", tool_calls=[call], tokens=7, model="m"),
                Message(session_id=named.id, role="tool", tool_call_id="c1", content="on the shelf", name="f"),
                Message(session_id=named.id, role="assistant", content="on the shelf", parts=[{"type": "text"}]),
                Message(session_id=named.id, kind="item", payload={"type": "note", "x": {"y": [True]}}),
                Message(session_id=other.id, role="user", content='a walrus\' "tusk"; DROP TABLE messages; --'),
            ]
        )
        clock.advance(minutes=1)
        memory.save_user_preferences(UserPreferences(user_id="alice", favorite_tools=["vim", "кот"], metadata={"a": 1}))
        memory.update_user_preferences("alice", coding_style="terse")
        memory.add_task(Task(description="brew", session_id=named.id, client_id="t"))
        done = memory.add_task(Task(description="drink", user_id="bob"))
        memory.update_task_status(done, "completed", "drunk")
        fact = {"key": "drink", "user_id": "alice"}
        for value, vector in (("coffee", [1.0, 0.5]), ("green tea", [0.25, -2.0])):
            clock.advance(days=1)
            memory.add_knowledge(
                Knowledge(value=value, message_id=ids[0], embedding=vector, embedding_model="m", confidence=0.5, **fact)
            )
        memory.add_knowledge(Knowledge(value="shared by all", source_kind="document", source="manual"))
        closed = datetime(2020, 1, 1, tzinfo=UTC)
        memory.add_knowledge(Knowledge(value="milk", valid_from=closed, valid_to=closed + timedelta(days=9), **fact))
        # The newest of every kind goes again: its id must not come back.
        memory.delete_message(memory.add_message(Message(session_id=empty.id, role="user", content="gone")))
        memory.delete_task(memory.add_task(Task(description="gone", user_id="bob")))
        last = Knowledge(value="gone", embedding=[1.0], embedding_model="m")
        memory.delete_knowledge(memory.add_knowledge(last))
        with memory.unit_of_work() as uow:
            where = f"{place}." if memory.url.startswith("postgresql") else ""
            uow.db.execute(text(f"INSERT INTO {where}memory_state (name, value) VALUES ('of its own', 'ё')"))


def _last_ids(url: str, place: str = OURS) -> dict[str, int]:
    """The highest id that each table has ever given."""
    with _connect(url, place) as connection:
        if connection.dialect.name == "sqlite":
            return {n: s for n, s in connection.execute(text("SELECT name, seq FROM sqlite_sequence")) if n in NUMBERED}
        last = "SELECT pg_sequence_last_value(pg_get_serial_sequence(:table, 'id')::regclass)"
        return {table: connection.execute(text(last), {"table": table}).scalar_one() for table in NUMBERED}


def _answers(url: str) -> list[Any]:
    """What a search says, and what the windows look like."""
    with MemoryManager(url, clock=FrozenClock()) as memory:
        session = memory.ensure_session("alice", "chat 1").id
        return [
            [(m.id, m.score) for m in memory.search_messages("зелёного чая", user_id="alice")],
            [(m.id, m.score) for m in memory.search_messages("walrus shelf")],
            [(k.id, k.score) for k in memory.search_knowledge("coffee tea", user_id="alice")],
            [(k.id, k.score) for k in memory.search_knowledge("shared")],
            memory.get_recent_messages(session, limit=3),
            memory.get_conversation_history(session),
            memory.get_knowledge(user_id="alice", with_embedding=True),
            memory.knowledge_history("drink", user_id="alice"),
        ]


def _upgraded(url: str, revision: str = "head") -> str | None:
    schema.upgrade(url, revision=revision)
    return schema.current(url)


# --- up, down and up again --------------------------------------------------------------------------------------------


def test_every_step_up_and_down_on_an_empty_database(empty_url: str) -> None:
    for _ in range(2):
        for revision in REVISIONS:
            assert _upgraded(empty_url, revision) == revision
        assert schema.check(empty_url) == []
        for revision in [*REVISIONS[:-1][::-1], None]:
            schema.downgrade(empty_url, revision="-1")
            assert schema.current(empty_url) == revision
    assert _upgraded(empty_url) == schema.HEAD_REVISION
    schema.downgrade(empty_url, revision="base")
    assert schema.current(empty_url) is None
    with _connect(empty_url) as connection:
        left = {n for n in inspect(connection).get_table_names() if not n.startswith(("parked_", "sqlite_"))}
        assert left == {schema.VERSION_TABLE}
    assert _upgraded(empty_url) == schema.HEAD_REVISION
    assert all(rows == [] for rows in _dump(empty_url).values())


def test_every_row_survives_every_step(empty_url: str) -> None:
    schema.upgrade(empty_url)
    _fill(empty_url)
    before, last_ids, answers = _dump(empty_url), _last_ids(empty_url), _answers(empty_url)
    assert all(before.values()), "a table without a row proves nothing"
    assert set(last_ids) == set(NUMBERED)
    rest = {**before, "memory_state": [row for row in before["memory_state"] if row[0] != "analyzer_version"]}
    for _ in range(2):
        for _revision in REVISIONS[1:]:
            schema.downgrade(empty_url, revision="-1")
        assert schema.current(empty_url) == REVISIONS[0]
        assert _dump(empty_url) == rest
        schema.downgrade(empty_url, revision="base")
        assert _dump(empty_url, "parked_") == rest
        for revision in REVISIONS:
            assert _upgraded(empty_url, revision) == revision
            assert _dump(empty_url) == rest
        assert _last_ids(empty_url) == last_ids
        with _connect(empty_url) as connection:
            assert not [name for name in inspect(connection).get_table_names() if name.startswith("parked_")]
        assert schema.check(empty_url) == []
        assert _answers(empty_url) == answers
        assert _dump(empty_url) == before
    with _connect(empty_url) as connection:
        for kind, condition in (
            ("messages", "kind = 'chat'"),
            ("knowledge", "superseded_at IS NULL AND valid_to IS NULL"),
        ):
            indexed = connection.execute(text(f"SELECT rowid FROM word_{kind} ORDER BY rowid")).scalars().all()
            stored = connection.execute(text(f"SELECT id FROM {kind} WHERE {condition} ORDER BY id")).scalars().all()
            assert indexed == stored != []


def test_ids_never_come_back(empty_url: str) -> None:
    schema.upgrade(empty_url)
    _fill(empty_url)
    last = _last_ids(empty_url)
    schema.downgrade(empty_url, revision="base")
    schema.upgrade(empty_url)
    with MemoryManager(empty_url) as memory:
        session = memory.create_session("dave").id
        new = {
            "messages": memory.add_message(Message(session_id=session, role="user", content="new")),
            "tasks": memory.add_task(Task(description="new", user_id="dave")),
            "knowledge": memory.add_knowledge(Knowledge(value="new", embedding=[1.0], embedding_model="m")),
        }
    with _connect(empty_url) as connection:
        new["embeddings"] = connection.execute(text("SELECT max(id) FROM embeddings")).scalar_one()
    assert {table: id - last[table] for table, id in new.items()} == dict.fromkeys(NUMBERED, 1)


def test_ids_never_come_back_to_emptied_tables(empty_url: str) -> None:
    schema.upgrade(empty_url)
    with MemoryManager(empty_url) as memory:
        session = memory.create_session("alice").id
        ids = memory.add_messages([Message(session_id=session, role="user", content=f"{n}") for n in range(5)])
        memory.delete_session(session)
    schema.downgrade(empty_url, revision="base")
    schema.upgrade(empty_url)
    with MemoryManager(empty_url) as memory:
        session = memory.create_session("alice").id
        assert memory.add_message(Message(session_id=session, role="user", content="new")) > max(ids)


def test_opening_an_emptied_sqlite_file_brings_the_rows_back(sqlite_url: str) -> None:
    _fill(sqlite_url)
    before, answers = _dump(sqlite_url), _answers(sqlite_url)
    schema.downgrade(sqlite_url, revision="base")
    assert _answers(sqlite_url) == answers
    assert _dump(sqlite_url) == before


def test_a_migration_that_would_leave_broken_references_changes_nothing(sqlite_url: str) -> None:
    _fill(sqlite_url)
    schema.downgrade(sqlite_url, revision=REVISIONS[0])
    with closing(sqlite3.connect(sqlite_url)) as connection:  # foreign keys are off here
        connection.execute("UPDATE messages SET session_id = 'missing' WHERE id = 1")
        connection.commit()
    before = _dump(sqlite_url)
    with pytest.raises(RuntimeError, match="1 broken reference"):
        schema.upgrade(sqlite_url)
    assert schema.current(sqlite_url) == REVISIONS[0]
    assert _dump(sqlite_url) == before


def test_a_failing_migration_changes_nothing(empty_url: str) -> None:
    schema.upgrade(empty_url)
    _fill(empty_url)
    before = _dump(empty_url)
    with _connect(empty_url) as connection:  # in the way of the downgrade's last steps
        connection.execute(text("CREATE TABLE parked_last_ids (x INTEGER)"))
        connection.commit()
    with pytest.raises(Exception, match=r"."):
        schema.downgrade(empty_url, revision="base")
    assert schema.current(empty_url) == schema.HEAD_REVISION
    assert _dump(empty_url) == before
    with _connect(empty_url) as connection:
        tables = set(inspect(connection).get_table_names())
    assert {name for name in tables if name.startswith("parked_")} == {"parked_last_ids"}
    assert {"word_messages", "word_knowledge", "word_scopes"} <= tables


# --- models and database agree ----------------------------------------------------------------------------------------


def test_autogenerate_finds_nothing_at_head(empty_url: str) -> None:
    schema.upgrade(empty_url)
    assert schema.check(empty_url) == []
    _fill(empty_url)
    assert schema.check(empty_url) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE tasks ADD COLUMN extra TEXT", "extra"),
        ("CREATE TABLE stray (id INTEGER)", "stray"),
        ("DROP INDEX ix_tasks__user_id_status", "ix_tasks__user_id_status"),
    ],
)
def test_autogenerate_finds_what_was_done_by_hand(empty_url: str, change: str, named: str) -> None:
    schema.upgrade(empty_url)
    with _connect(empty_url) as connection:
        connection.execute(text(change))
        connection.commit()
    (difference,) = schema.check(empty_url)
    assert named in difference


def test_check_says_which_revision_is_wanted(empty_url: str) -> None:
    schema.upgrade(empty_url, revision=REVISIONS[0])
    assert schema.check(empty_url) == [f"revision {REVISIONS[0]} is not {schema.HEAD_REVISION}"]


def _names(url: str) -> Iterator[tuple[str, str, str | None, list[str]]]:
    """Table, kind, name and columns of every constraint and index that stands in the database."""
    with _connect(url) as connection:
        found = inspect(connection)
        for table in TABLES:
            key = found.get_pk_constraint(table)
            yield table, "pk", key["name"], key["constrained_columns"]
            for foreign in found.get_foreign_keys(table):
                yield table, "fk", foreign["name"], [*foreign["constrained_columns"], f"_{foreign['referred_table']}"]
            for unique in found.get_unique_constraints(table):
                yield table, "uq", unique["name"], unique["column_names"]
            for check in found.get_check_constraints(table):
                yield table, "ck", check["name"], []
            for index in found.get_indexes(table):
                if not index.get("duplicates_constraint"):
                    yield table, "uq" if index["unique"] else "ix", index["name"], []


def test_names_of_constraints_follow_one_convention(empty_url: str) -> None:
    schema.upgrade(empty_url)
    names = list(_names(empty_url))
    assert {kind for _, kind, _, _ in names} == {"pk", "fk", "uq", "ck", "ix"}
    on_sqlite = resolve_url(empty_url).get_backend_name() == "sqlite"
    nameless = {f"pk_{table}" for table in NUMBERED} if on_sqlite else set()  # INTEGER PRIMARY KEY AUTOINCREMENT
    for table, kind, name, columns in names:
        if kind == "pk" and name is None:
            assert f"pk_{table}" in nameless
            continue
        if kind == "pk":
            expected = f"pk_{table}"
        elif columns:
            expected = f"{kind}_{table}__{'_'.join(columns)}"
        else:
            assert re.fullmatch(rf"{kind}_{table}__\w+", str(name)), (table, kind, name)
            continue
        assert name == expected
    assert {name for _, _, name, _ in names if name} == _declared() - nameless


def _declared() -> set[str]:
    """The names of all rules of the models, as their convention makes them."""
    from sqlalchemy.schema import CreateTable

    found = set()
    for table in Base.metadata.tables.values():
        found |= set(re.findall(r"CONSTRAINT (\w+)", str(CreateTable(table))))
        found |= {str(index.name) for index in table.indexes}
    return found


_AT = "'2026-01-01 00:00:00'"
# An insert that breaks one rule and no other; {s} is a session that is there.
VIOLATIONS = {
    "fk_messages__session_id__sessions": "INSERT INTO messages (session_id, user_id, position, group_start, role, "
    f"content, timestamp) VALUES ('missing', 'a', 1, 1, 'user', 'x', {_AT})",
    "fk_tasks__session_id__sessions": "INSERT INTO tasks (session_id, user_id, description, created_at) "
    f"VALUES ('missing', 'a', 'x', {_AT})",
    "fk_knowledge__message_id__messages": "INSERT INTO knowledge (user_id, category, key, value, source_kind, "
    "confidence, created_at, updated_at, valid_from, message_id) "
    f"VALUES ('', 'c', 'k', 'v', 'user', 1, {_AT}, {_AT}, {_AT}, 99)",
    "fk_knowledge__superseded_by__knowledge": "INSERT INTO knowledge (user_id, category, key, value, source_kind, "
    "confidence, created_at, updated_at, valid_from, superseded_by) "
    f"VALUES ('', 'c', 'k', 'v', 'user', 1, {_AT}, {_AT}, {_AT}, 99)",
    "ck_messages__kind": "INSERT INTO messages (session_id, user_id, position, group_start, kind, role, content, "
    f"timestamp) VALUES ('s', 'a', 1, 1, 'letter', 'user', 'x', {_AT})",
    "ck_messages__role": "INSERT INTO messages (session_id, user_id, position, group_start, role, content, timestamp) "
    f"VALUES ('s', 'a', 1, 1, 'king', 'x', {_AT})",
    "ck_messages__chat_has_role": "INSERT INTO messages (session_id, user_id, position, group_start, content, "
    f"timestamp) VALUES ('s', 'a', 1, 1, 'x', {_AT})",
    "ck_tasks__status": "INSERT INTO tasks (user_id, description, status, created_at) "
    f"VALUES ('a', 'x', 'lost', {_AT})",
    "ck_knowledge__confidence": "INSERT INTO knowledge (user_id, category, key, value, source_kind, confidence, "
    f"created_at, updated_at, valid_from) VALUES ('', 'c', 'k', 'v', 'user', 1.5, {_AT}, {_AT}, {_AT})",
    "ck_knowledge__source_kind": "INSERT INTO knowledge (user_id, category, key, value, source_kind, confidence, "
    f"created_at, updated_at, valid_from) VALUES ('', 'c', 'k', 'v', 'rumour', 1, {_AT}, {_AT}, {_AT})",
    "ck_embeddings__kind": "INSERT INTO embeddings (kind, item_id, user_id, model, dim, content_hash, status) "
    "VALUES ('song', 1, 'a', 'm', 1, 'h', 'pending')",
    "ck_embeddings__status": "INSERT INTO embeddings (kind, item_id, user_id, model, dim, content_hash, status) "
    "VALUES ('message', 1, 'a', 'm', 1, 'h', 'lost')",
    "ck_embeddings__ready_has_vector": "INSERT INTO embeddings (kind, item_id, user_id, model, dim, content_hash, "
    "status) VALUES ('message', 1, 'a', 'm', 1, 'h', 'ready')",
}


def test_every_foreign_key_and_check_is_enforced(empty_url: str) -> None:
    schema.upgrade(empty_url)
    rules = {name for name in _declared() if name.startswith(("ck_", "fk_"))}
    assert rules == set(VIOLATIONS), "extend VIOLATIONS by what a new rule forbids"
    with MemoryManager(empty_url) as memory:
        memory.create_session("a", session_id="s")
    with migration_engine(empty_url).connect() as connection:  # set up as ours are
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET search_path TO {OURS}"))
            connection.commit()
        for name, statement in VIOLATIONS.items():
            with pytest.raises(IntegrityError) as caught:
                connection.execute(text(statement))
            connection.rollback()
            said = str(caught.value.orig)
            # SQLite does not say which foreign key it was.
            assert name in said or "FOREIGN KEY constraint failed" in said


@pytest.mark.parametrize("unique", ["open fact", "external_id", "client_id", "position"])
def test_every_unique_rule_is_enforced(empty_url: str, unique: str) -> None:
    schema.upgrade(empty_url)
    _fill(empty_url)
    copies = {
        "open fact": "UPDATE knowledge SET superseded_at = NULL, valid_to = NULL WHERE key = 'drink'",
        "external_id": "UPDATE sessions SET external_id = 'same', user_id = 'same'",
        "client_id": "UPDATE messages SET client_id = 'same'",
        "position": "UPDATE messages SET position = 1",
    }
    with _connect(empty_url) as connection, pytest.raises(IntegrityError):
        connection.execute(text(copies[unique]))


# --- revisions --------------------------------------------------------------------------------------------------------


def test_revisions_are_named_and_numbered_without_a_gap() -> None:
    files = sorted(path.name for path in VERSIONS.glob("*.py"))
    for number, name in enumerate(files, 1):
        assert re.fullmatch(rf"{number:04d}_[a-z]+(_[a-z0-9]+)+\.py", name), name
    scripts = ScriptDirectory(str(CHECKOUT / "migrations"))
    assert scripts.get_heads() == [schema.HEAD_REVISION]
    walked = list(scripts.walk_revisions())[::-1]
    assert [script.revision for script in walked] == REVISIONS == [name[:4] for name in files]
    assert [script.down_revision for script in walked] == [None, *REVISIONS[:-1]]
    assert [revision.id for revision in schema.history()] == REVISIONS
    assert all(revision.doc.endswith(".") for revision in schema.history())


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("*.py")), ids=lambda path: path.stem)
def test_a_revision_stands_on_its_own(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = {"alembic", "sqlalchemy", *sys.stdlib_module_names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert str(node.module).split(".")[0] in allowed
    docstring = ast.get_docstring(tree) or ""
    assert "Why:" in docstring
    assert "Cost" in docstring
    assert "downgrade" in docstring, "say what a downgrade loses"


# --- manners towards the host -----------------------------------------------------------------------------------------


def test_the_hosts_logging_is_left_alone(empty_url: str) -> None:
    root, hosts, alembic = logging.getLogger(), logging.getLogger("host.app"), logging.getLogger("alembic")
    handler = logging.StreamHandler(io.StringIO())
    root.addHandler(handler)
    hosts.setLevel(logging.DEBUG)
    try:

        def state() -> list[Any]:
            return [(log.level, list(log.handlers), log.disabled, log.propagate) for log in (root, hosts, alembic)]

        before = state()
        schema.upgrade(empty_url)
        assert schema.check(empty_url) == []
        schema.downgrade(empty_url, revision="base")
        with MemoryManager(":memory:"):
            pass
        assert state() == before
        assert logging.getLogger().manager.disable == 0
    finally:
        root.removeHandler(handler)
        hosts.setLevel(logging.NOTSET)


def _alembic_config(**attributes: Any) -> Config:
    config = Config(str(CHECKOUT / "alembic.ini"))
    config.attributes.update(attributes)
    return config


@pytest.mark.parametrize("kind", ["connection", "engine"])
def test_a_run_on_what_is_handed_in(empty_url: str, kind: str) -> None:
    engine = migration_engine(empty_url)
    if engine.dialect.name == "sqlite":
        Path(empty_url).touch()
    if kind == "engine":
        command.upgrade(_alembic_config(connection=engine, schema=OURS), "head")
    else:
        with engine.connect() as connection:
            command.upgrade(_alembic_config(connection=connection, schema=OURS), "head")
            assert not connection.closed
            assert not connection.in_transaction()
    assert schema.current(empty_url) == schema.HEAD_REVISION


def test_foreign_keys_are_on_again_after_a_run(sqlite_url: str) -> None:
    Path(sqlite_url).touch()
    with migration_engine(sqlite_url).connect() as connection:
        command.upgrade(_alembic_config(connection=connection), "head")
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize("fails", [False, True])
def test_search_path_does_not_leak(empty_postgres_url: str, fails: bool) -> None:
    with migration_engine(empty_postgres_url).connect() as connection:
        connection.exec_driver_sql("SET search_path TO public, pg_catalog")
        connection.commit()
        default = connection.dialect.default_schema_name
        command.upgrade(_alembic_config(connection=connection, schema=OURS), "head")
        if fails:
            connection.exec_driver_sql(f"CREATE TABLE {OURS}.parked_sessions (x INTEGER)")
            connection.commit()
            with pytest.raises(Exception, match="parked_sessions"):
                command.downgrade(_alembic_config(connection=connection, schema=OURS), "base")
            connection.rollback()
        assert connection.exec_driver_sql("SHOW search_path").scalar() == "public, pg_catalog"
        assert connection.dialect.default_schema_name == default


def _postgres_objects(engine: Engine) -> dict[str, set[str]]:
    """Everything that is not the server's own, by schema."""
    statement = text(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
    )
    found: dict[str, set[str]] = {}
    with engine.connect() as connection:
        for place, name in connection.execute(statement):
            found.setdefault(place, set()).add(name)
    return found


def test_everything_lives_in_our_schema_and_two_stand_side_by_side(empty_postgres_url: str) -> None:
    from mirai_memory import load_settings

    for place in ("first", "second"):
        schema.upgrade(empty_postgres_url, schema=place)
    engine = migration_engine(empty_postgres_url)
    found = _postgres_objects(engine)
    assert set(found) == {"first", "second"}, "public, and every other schema, stays empty"
    assert found["first"] == found["second"]
    assert {*TABLES, schema.VERSION_TABLE, "word_messages", "messages_id_seq"} <= found["first"]
    assert schema.check(empty_postgres_url, schema="first") == []
    first, second = (load_settings(memory={"schema": place}) for place in ("first", "second"))
    with (
        MemoryManager(empty_postgres_url, settings=first) as one,
        MemoryManager(empty_postgres_url, settings=second) as two,
    ):
        session = one.create_session("alice").id
        one.add_message(Message(session_id=session, role="user", content="walrus"))
        one.add_knowledge(Knowledge(value="walrus"))
        one.update_user_preferences("alice", coding_style="terse")
        assert two.list_sessions() == two.search_messages("walrus") == two.search_knowledge("walrus") == []
        assert two.get_user_preferences("alice") is None
        assert two.get_stats()["total_messages"] == 0
        assert len(one.search_messages("walrus")) == 1
    schema.downgrade(empty_postgres_url, revision="base", schema="second")
    assert schema.current(empty_postgres_url, schema="second") is None
    assert schema.current(empty_postgres_url, schema="first") == schema.HEAD_REVISION
    assert schema.check(empty_postgres_url, schema="first") == []
    with MemoryManager(empty_postgres_url, settings=first) as one:
        assert len(one.search_messages("walrus")) == 1


def test_a_hosts_tables_are_none_of_ours(empty_postgres_url: str) -> None:
    with _connect(empty_postgres_url, "public") as connection:
        connection.execute(text("CREATE TABLE sessions (id INTEGER PRIMARY KEY, name TEXT)"))
        connection.execute(text("INSERT INTO sessions VALUES (1, 'the host')"))
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('abc')"))
        connection.commit()
    schema.upgrade(empty_postgres_url)
    assert schema.check(empty_postgres_url) == []
    schema.downgrade(empty_postgres_url, revision="base")
    with _connect(empty_postgres_url, "public") as connection:
        assert connection.execute(text("SELECT * FROM sessions")).all() == [(1, "the host")]
        assert connection.execute(text("SELECT * FROM alembic_version")).all() == [("abc",)]


# --- the command `alembic` in a checkout ------------------------------------------------------------------------------


def _alembic(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=GUARD
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
def test_alembic_in_a_checkout(tmp_path: Path) -> None:
    file = tmp_path / "50% off" / "a%20b.db"  # a folder that is not there yet, and a "%" that is no escape
    url = ("-x", f"url={file}")
    _alembic(*url, "upgrade", "head")
    assert file.stat().st_size > 0
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]
    assert f"{schema.HEAD_REVISION} (head)" in _alembic(*url, "current")
    assert "No new upgrade operations detected" in _alembic(*url, "check")
    _alembic(*url, "downgrade", "base")
    assert schema.current(file) is None
    shown = _alembic("history")
    assert all(revision in shown for revision in REVISIONS)


def test_alembic_takes_the_settings_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "100%.db"
    monkeypatch.setenv("MIRAI_MEMORY__DB_PATH", str(file))
    _alembic("upgrade", "head")
    assert schema.current(file) == schema.HEAD_REVISION


@pytest.mark.long
def test_alembic_on_postgresql_with_a_percent_in_the_password(empty_postgres_url: str) -> None:
    given = make_url(empty_postgres_url).set(password="50%40 p@ss/w:rd")  # quoted in the text: "50%2540 p%40ss..."
    url = ("-x", f"url={given.render_as_string(hide_password=False)}")
    assert "%25" in url[1]
    _alembic(*url, "upgrade", "head")
    assert schema.current(empty_postgres_url) == schema.HEAD_REVISION
    said = _alembic(*url, "check")
    assert "No new upgrade operations detected" in said
    assert "p@ss" not in said
    assert "p%40ss" not in said


def _sql(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=GUARD
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sql_for_an_administrator_to_run_on_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "50%.db"
    script = _sql("-x", f"url={file}", "upgrade", "head", "--sql")
    assert not file.exists()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    assert schema.current(file) == schema.HEAD_REVISION
    assert schema.check(file) == []
    with MemoryManager(file) as memory:
        session = memory.create_session("alice").id
        memory.add_message(Message(session_id=session, role="user", content="walrus"))
        assert len(memory.search_messages("walrus")) == 1


def test_sql_for_an_administrator_to_run_on_postgresql(empty_postgres_url: str) -> None:
    import psycopg

    script = _sql("-x", f"url={empty_postgres_url}", "-x", "schema=ours", "upgrade", "head", "--sql")
    with psycopg.connect(conninfo(empty_postgres_url), autocommit=True) as connection:
        connection.execute(script.encode())
    assert schema.current(empty_postgres_url, schema="ours") == schema.HEAD_REVISION
    assert schema.check(empty_postgres_url, schema="ours") == []
    assert set(_postgres_objects(migration_engine(empty_postgres_url))) == {"ours"}


def test_migrating_prints_nothing(empty_url: str) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        schema.upgrade(empty_url)
        schema.check(empty_url)
        schema.downgrade(empty_url, revision="-1")
    assert out.getvalue() == ""
