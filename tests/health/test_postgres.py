"""A look at PostgreSQL: up, down, empty, of another version, in the way of writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from mirai_memory import MemoryManager, schema
from mirai_memory.health import Check

Look = Callable[..., dict[str, Check]]


def _execute(url: str, statement: str) -> None:
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())


def _errors(checks: dict[str, Check]) -> list[str]:
    return [check.name for check in checks.values() if check.status == "error"]


def test_a_server_that_is_well(look: Look, postgres_url: str) -> None:
    with MemoryManager(postgres_url) as memory:
        memory.create_session("alice")
        through_it = look(manager=memory)
    checks = look(postgres_url)
    assert _errors(checks) == _errors(through_it) == []
    assert checks["engine"].detail.startswith("PostgreSQL ")
    for name in ("database", "engine", "schema", "writing", "word_index", "vectors", "contents"):
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


@pytest.mark.parametrize("changes", [{"port": 1}, {"database": "nowhere"}])
def test_a_server_that_is_not_there(look: Look, postgres_url: str, changes: dict[str, Any]) -> None:
    checks = look(make_url(postgres_url).set(**changes))
    assert _errors(checks) == ["database"]
    assert "cannot be reached" in checks["database"].detail
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
    _execute(empty_postgres_url, "CREATE SCHEMA mirai_memory")
    _execute(empty_postgres_url, "CREATE TABLE mirai_memory.invoices (id INT)")
    checks = look(empty_postgres_url)
    assert _errors(checks) == ["schema"]
    assert "belongs to something else" in checks["schema"].detail


def test_a_database_that_allows_no_writing(look: Look, postgres_url: str) -> None:
    name = make_url(postgres_url).database
    _execute(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    checks = look(postgres_url)
    assert _errors(checks) == []
    assert checks["writing"].status == "warning"


def test_a_lock_on_a_table_holds_up_one_check_only(look: Look, postgres_url: str) -> None:
    conninfo = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo) as other:
        other.execute("LOCK TABLE mirai_memory.embeddings")
        checks = look(postgres_url, timeout_s=1.0)
    assert (checks["vectors"].status, checks["vectors"].detail) == ("warning", "not finished within 1 s")
    assert checks["contents"].status == "ok"
