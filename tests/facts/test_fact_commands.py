"""``knowledge history``, ``knowledge duplicates``, ``knowledge merge``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager, UserMemory
from mirai_memory.cli.app import app

DB = "memory.db"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, _bare_surroundings: None) -> Iterator[UserMemory]:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(tmp_path / "mirai.log"))
    with MemoryManager(DB) as memory:
        yield memory.for_user("default")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["knowledge", *arguments, "--db", DB])


def answer(*arguments: str) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_history_tells_both_times(mine: UserMemory) -> None:
    for value, month in (("Perm", 1), ("Kazan", 3)):
        since = datetime(2025, month, 1, tzinfo=UTC)
        mine.add_knowledge(Knowledge(key="city", value=value, valid_from=since, source="chat"))
    first, second = mine.knowledge_history("city")
    lines = invoke("history", "city").stdout.splitlines()
    assert lines[0].split() == ["id", "category", "true", "believed", "replaced", "by", "value"]
    assert "2025-01-01 00:00 -" in lines[1]
    assert lines[1].split()[-2:] == [str(second.id), "Perm"]
    assert lines[2].split()[-2:] == ["-", "Kazan"]
    assert answer("history", "city") == [first.to_dict(), second.to_dict()]
    assert answer("history", "city", "--category", "general") == [first.to_dict(), second.to_dict()]


def test_a_history_of_nothing_fails(mine: UserMemory) -> None:
    result = invoke("history", "city")
    assert result.exit_code == 1
    assert "knowledge list" in result.stderr


def test_duplicates_are_listed_and_merged(mine: UserMemory) -> None:
    keep = mine.add_knowledge(Knowledge(key="employer", value="Acme"))
    drop = mine.add_knowledge(Knowledge(key="firm", value="Acme"))
    [pair] = answer("duplicates")
    assert (pair["first"]["id"], pair["second"]["id"], pair["similarity"]) == (keep, drop, 1)
    shown = invoke("duplicates")
    assert f"id {keep}  general/employer: Acme" in shown.stdout
    assert "1 pairs for user default" in shown.stderr
    arguments = ("merge", str(keep), str(drop))
    assert invoke(*arguments, "--dry-run").exit_code == 0
    asked = invoke(*arguments)
    assert asked.exit_code == 1
    assert "nothing was changed" in asked.stderr
    assert len(mine.get_knowledge()) == 2
    assert answer(*arguments, "--yes") == mine.get_knowledge()[0].to_dict()
    assert [fact.id for fact in mine.get_knowledge()] == [keep]
    assert answer("duplicates") == []
    assert answer("history", "firm")[0]["superseded_by"] == keep


def test_what_is_not_there_cannot_be_merged(mine: UserMemory) -> None:
    keep = mine.add_knowledge(Knowledge(key="employer", value="Acme"))
    for arguments in ((str(keep), "404"), ("404", str(keep)), (str(keep), str(keep))):
        result = invoke("merge", *arguments, "--yes")
        assert result.exit_code == 1
        assert "error: " in result.stderr
    assert invoke("merge", str(keep)).exit_code == 2
    assert invoke("duplicates", "--threshold", "2").exit_code == 2
