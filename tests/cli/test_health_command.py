"""``health`` as a person and as a script meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner, Result
from sqlalchemy import make_url

from mirai_memory import MemoryManager, schema
from mirai_memory.cli.app import app
from mirai_memory.health.report import Check, Health, Status


def health(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["health", *arguments])


def told(result: Result) -> dict[str, Any]:
    """The checks of the JSON by name."""
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


@pytest.fixture
def memory_file() -> Path:
    MemoryManager("memory.db").close()
    return Path("memory.db")


def test_a_memory_that_is_well(memory_file: Path) -> None:
    result = health("--db", "memory.db")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["check", "status", "detail"]
    named = [line.split()[:2] for line in lines[1:] if not line.startswith(" ")]
    assert ["database", "ok"] in named
    assert ["permissions", "ok"] in named
    assert {status for _, status in named} <= {"ok", "warning", "skipped"}
    assert {name for name, status in named if status == "skipped"} == {"connections", "clock", "tables"}
    assert result.stderr.startswith("mirai-memory: well")


def test_what_is_wrong_has_its_advice_below_it() -> None:
    result = health("--db", "missing.db")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("database "))
    assert "error" in lines[place]
    assert "does not exist" in lines[place]
    assert lines[place + 1].startswith(" ")
    assert lines[place + 1].strip().startswith("-> ")
    assert "db upgrade" in lines[place + 1]
    assert result.stderr.startswith("mirai-memory: not well: 1 error, ")
    assert [path.name for path in Path().iterdir()] == []


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (["ok"], "well"),
        (["warning", "skipped", "skipped"], "well: 1 warning, 2 skipped"),
        (["warning", "error", "warning", "error"], "not well: 2 errors, 2 warnings"),
    ],
)
def test_the_last_line_counts(monkeypatch: pytest.MonkeyPatch, statuses: list[Status], words: str) -> None:
    checks = tuple(Check("a check", status, "a detail", None, 0.0) for status in statuses)
    found = Health("error" not in statuses, checks)
    monkeypatch.setattr("mirai_memory.health.check_health", lambda *_, **__: found)
    assert health("--db", "memory.db").stderr == f"mirai-memory: {words}\n"


def test_json_says_the_same(memory_file: Path) -> None:
    result = health("--db", "memory.db", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["ok"] is True
    assert told(result)["schema"] == {
        "name": "schema",
        "status": "ok",
        "detail": f"revision {schema.HEAD_REVISION}",
        "advice": None,
        "seconds": told(result)["schema"]["seconds"],
    }
    result = health("--db", "missing.db", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


@pytest.mark.parametrize(
    "content",
    ["memory: {db_pth: x.db, synchronous: no}\n", "memory: [", "memory: {url: 'mysql://a:p4ssw0rd@host/name'}\n"],
)
def test_broken_settings_are_one_error_and_exit_1(content: str) -> None:
    Path("mirai.yaml").write_text(content)
    result = health("--json")
    assert result.exit_code == 1
    assert [check["name"] for check in told(result).values() if check["status"] == "error"] == ["settings"]
    assert health().exit_code == 1
    assert "p4ssw0rd" not in result.output + health().output


def test_the_file_of_settings_is_the_one_that_is_named(memory_file: Path) -> None:
    Path("other.yaml").write_text("memory: {db_path: memory.db}\n")
    result = health("--config", "other.yaml", "--json")
    assert result.exit_code == 0
    assert "other.yaml" in told(result)["settings"]["detail"]
    assert health("--config", "missing.yaml").exit_code == 1


def test_a_server_that_is_down_is_exit_1_and_no_password_is_shown(postgres_url: str) -> None:
    url = make_url(postgres_url).set(password="p4ssw0rd", port=1).render_as_string(hide_password=False)
    result = health("--db", url)
    assert result.exit_code == 1
    assert "p4ssw0rd" not in result.output
    assert "database" in result.stdout


def test_the_time_for_each_check_can_be_set(memory_file: Path) -> None:
    assert health("--timeout", "30", "--db", "memory.db").exit_code == 0
    assert health("--timeout", "0").exit_code == 2


def test_it_reads_well_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("mirai_memory.cli.output.on_terminal", lambda: True)
    for name, value in {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    lines = health("--db", "missing.db").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    starts = {line.index(word) for line in lines for word in ("cpython", "-> ") if word in line}
    assert len(starts) == 1, "advice stands in the column of the details"
