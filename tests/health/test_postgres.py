"""A look at PostgreSQL: up, down, empty, of another version, in the way of writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from server_side import ask, conninfo
from sqlalchemy import make_url

from mirai_memory import MemoryManager, schema
from mirai_memory.health import Check, postgres

Look = Callable[..., dict[str, Check]]


def _errors(checks: dict[str, Check]) -> list[str]:
    return [check.name for check in checks.values() if check.status == "error"]


def test_a_server_that_is_well(look: Look, postgres_url: str) -> None:
    with MemoryManager(postgres_url) as memory:
        memory.create_session("alice")
        through_it = look(manager=memory)
    checks = look(postgres_url)
    assert _errors(checks) == _errors(through_it) == []
    assert checks["engine"].detail.startswith("PostgreSQL ")
    for name in ("database", "engine", "schema", "writing", "word_index", "vectors", "contents", "clock", "tables"):
        assert checks[name].status == through_it[name].status == "ok", name
    assert checks["contents"].detail.startswith("1 session,")
    assert checks["disk"].status == checks["permissions"].status == checks["backups"].status == "skipped"


def test_no_password_is_shown_whatever_is_wrong(look: Look, postgres_url: str) -> None:
    for url in (
        make_url(postgres_url).set(password="p4ssw0rd"),
        make_url(postgres_url).set(password="p4ssw0rd", port=1),
        make_url(postgres_url).set(password="p4ssw0rd", database="nowhere"),
        make_url(postgres_url).update_query_dict({"password": "p4ssw0rd"}),
    ):
        assert "p4ssw0rd" not in str(look(url.render_as_string(hide_password=False)))
        assert "p4ssw0rd" not in str(look(memory={"url": url.render_as_string(hide_password=False)}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"port": 1}, "cannot be reached"), ({"database": "nowhere"}, "does not exist on this server")],
)
def test_a_server_that_is_not_there(look: Look, postgres_url: str, changes: dict[str, Any], words: str) -> None:
    checks = look(make_url(postgres_url).set(**changes))
    assert _errors(checks) == ["database"]
    assert words in checks["database"].detail
    assert "host, port, database, user and password" in str(checks["database"].advice)
    assert {check.name for check in checks.values() if check.status == "skipped"} >= {"engine", "schema", "contents"}


def test_an_empty_database_is_not_migrated(look: Look, empty_postgres_url: str) -> None:
    checks = look(empty_postgres_url)
    assert _errors(checks) == ["schema"]
    assert "mirai-memory db upgrade --db" in str(checks["schema"].advice)
    assert schema.current(empty_postgres_url) is None


def test_an_older_schema_is_an_error_since_opening_does_not_upgrade_it(look: Look, postgres_url: str) -> None:
    schema.downgrade(postgres_url, revision="0001")
    checks = look(postgres_url)
    assert _errors(checks) == ["schema"]
    assert "mirai-memory db upgrade --db" in str(checks["schema"].advice)
    assert schema.current(postgres_url) == "0001"


def test_tables_of_somebody_else_are_left_alone(look: Look, empty_postgres_url: str) -> None:
    ask(empty_postgres_url, "CREATE SCHEMA mirai_memory")
    ask(empty_postgres_url, "CREATE TABLE mirai_memory.invoices (id INT)")
    checks = look(empty_postgres_url)
    assert _errors(checks) == ["schema"]
    assert "belongs to something else" in checks["schema"].detail


def test_a_database_that_allows_no_writing(look: Look, postgres_url: str) -> None:
    name = make_url(postgres_url).database
    ask(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    checks = look(postgres_url)
    assert _errors(checks) == []
    assert checks["writing"].status == "warning"


def test_a_lock_on_a_table_holds_up_one_check_only(look: Look, postgres_url: str) -> None:
    with psycopg.connect(conninfo(postgres_url)) as other:
        other.execute("LOCK TABLE mirai_memory.embeddings")
        checks = look(postgres_url, timeout_s=1.0)
    assert (checks["vectors"].status, checks["vectors"].detail) == ("warning", "not finished within 1 s")
    assert checks["contents"].status == "ok"


def test_what_was_agreed_on_with_the_server_is_told(look: Look, postgres_url: str) -> None:
    detail = look(postgres_url)["engine"].detail
    assert any(words in detail for words in (", through a local socket,", ", not encrypted,", ", TLSv1."))
    installed = "SELECT count(*) FROM pg_extension WHERE extname = 'vector'"
    with psycopg.connect(conninfo(postgres_url)) as connection:
        (count,) = connection.execute(installed.encode()).fetchone() or (0,)
        available = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    assert ("with the extension vector" in detail) == bool(count)
    if available and not count:
        ask(postgres_url, "CREATE EXTENSION vector")
        assert "with the extension vector " in look(postgres_url)["engine"].detail


def test_a_pool_for_which_the_server_has_no_room(look: Look, postgres_url: str) -> None:
    few, many = (look(postgres_url, memory={"pool_size": size})["connections"] for size in (1, 1_000))
    assert (few.status, many.status) == ("ok", "warning")
    assert few.detail.endswith("may have 1")
    assert "memory.pool_size" in str(many.advice)
    others = [psycopg.connect(conninfo(postgres_url)) for _ in range(3)]
    try:
        used = look(postgres_url, memory={"pool_size": 1})["connections"].detail
    finally:
        for other in others:
            other.close()
    assert int(used.split()[0]) >= 4


def test_clocks_that_differ(look: Look, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead:
        """This machine's clock, an hour ahead."""

        @staticmethod
        def time() -> float:
            return time.time() + 3600

    monkeypatch.setattr(postgres, "time", Ahead)
    check = look(postgres_url)["clock"]
    assert (check.status, "1:00:0" in check.detail) == ("warning", True)


def test_an_index_that_was_left_unfinished(look: Look, postgres_url: str) -> None:
    left = "UPDATE pg_index SET indisvalid = {} WHERE indexrelid = 'mirai_memory.ix_tasks__user_id_status'::regclass"
    ask(postgres_url, left.format("false"))
    check = look(postgres_url)["tables"]
    assert check.status == "warning"
    assert "ix_tasks__user_id_status" in check.detail
    assert check.advice is not None
    ask(postgres_url, check.advice.removeprefix("run: "))
    assert look(postgres_url)["tables"].status == "ok"


def test_dead_rows_and_old_transactions(look: Look, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryManager(postgres_url) as memory:
        for _ in range(3):
            memory.delete_session(memory.create_session("alice").id)
    ask(postgres_url, "ANALYZE mirai_memory.sessions")  # which counts them
    monkeypatch.setattr(postgres, "DEAD_ROWS", 3)
    bloated = look(postgres_url)["tables"]
    assert bloated.status == "warning"
    assert "sessions" in bloated.detail
    ask(postgres_url, str(bloated.advice).removeprefix("run: ").split("; ")[0])
    monkeypatch.setattr(postgres, "OLD_TRANSACTIONS", -1)
    old = look(postgres_url)["tables"]
    assert (old.status, "VACUUM (FREEZE)" in str(old.advice)) == ("warning", True)
