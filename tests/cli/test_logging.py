"""What commands do is logged where the settings say, and nowhere else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import MemoryManager
from mirai_memory.cli.app import app


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mirai_memory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__LEVEL", "DEBUG")


@pytest.mark.usefixtures("talkative")
def test_a_command_logs_into_the_file_and_not_among_its_words(log_path: Path) -> None:
    result = run("remember", "Alice lives in Perm", "--key", "city", "--db", "memory.db")
    assert result.returncode == 0
    assert result.stderr.count("\n") <= 1, "the command's own words, and no record"
    records = [json.loads(line) for line in log_path.read_text().splitlines()]
    assert "unit of work: write" in [record["message"] for record in records]
    assert "Perm" not in log_path.read_text()
    if os.name == "posix":
        assert stat.S_IMODE(log_path.stat().st_mode) == 0o600
    size = log_path.stat().st_size
    assert run("recall", "Perm", "--db", "memory.db").stderr == ""
    assert log_path.stat().st_size > size


@pytest.mark.parametrize("arguments", [["db", "upgrade"], ["db", "current"], ["db", "check"], ["stats"]])
def test_every_command_that_opens_a_database_logs(log_path: Path, arguments: list[str]) -> None:
    MemoryManager("memory.db").close()
    assert invoke(*arguments, "--db", "memory.db").exit_code == 0
    assert log_path.is_file()


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("database", ["memory.db", "missing.db"])
def test_the_log_is_closed_when_a_command_ends_or_fails(log_path: Path, database: str) -> None:
    with MemoryManager("memory.db") as memory:
        assert invoke("stats", "--db", database).exit_code == (0 if database == "memory.db" else 4)
        size = log_path.stat().st_size
        memory.create_session("alice")
    assert log_path.stat().st_size == size


def test_a_log_that_cannot_be_written_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryManager("memory.db").close()
    folder = tmp_path / "folder.log"
    folder.mkdir()
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(folder))
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__LEVEL", "DEBUG")
    result = run("stats", "--json", "--db", "memory.db")
    assert result.returncode == 0
    assert json.loads(result.stdout)["total_sessions"] == 0
    assert result.stderr.count("\n") == 1
    assert str(folder) in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["stats", "--help"],
        ["logs", "summary", "old.log"],
        ["config", "show"],
        ["config", "check"],
        ["init"],
        ["health"],
        ["health", "--json", "--db", "memory.db"],
        ["db", "history"],
    ],
)
def test_what_only_looks_makes_no_log(log_path: Path, arguments: list[str]) -> None:
    MemoryManager("memory.db").close()
    Path("old.log").touch()
    assert invoke(*arguments).exit_code == (1 if arguments == ["health"] else 0)
    assert list(log_path.parent.iterdir()) == []


def test_broken_settings_make_no_log(log_path: Path) -> None:
    Path("mirai.yaml").write_text("memory: {db_pth: x.db}\n")
    assert invoke("stats").exit_code == 3
    assert list(log_path.parent.iterdir()) == []
