"""``import`` of other programs' files, as a person and as a script meet it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import MemoryManager
from mirai_memory.cli import importing
from mirai_memory.cli.app import app
from mirai_memory.importers import FORMATS

DB = "memory.db"
OLD = """
CREATE TABLE sessions (id TEXT, user_id TEXT, created_at TEXT, last_active TEXT, summary TEXT, message_count INT);
CREATE TABLE messages (id INTEGER PRIMARY KEY, session_id TEXT, role TEXT, content TEXT, timestamp TEXT, tokens INT,
    model TEXT);
CREATE TABLE user_preferences (user_id TEXT, coding_style TEXT, communication_tone TEXT, favorite_tools TEXT,
    project_context TEXT, updated_at TEXT);
CREATE TABLE tasks (id INTEGER PRIMARY KEY, session_id TEXT, description TEXT, status TEXT, created_at TEXT,
    completed_at TEXT, result TEXT);
CREATE TABLE knowledge (id INTEGER PRIMARY KEY, category TEXT, key TEXT, value TEXT, source TEXT, confidence REAL,
    created_at TEXT, updated_at TEXT, embedding TEXT);
INSERT INTO sessions (id, user_id) VALUES ('a', 'alice'), ('b', 'bob');
INSERT INTO messages (session_id, role, content, timestamp) VALUES ('a', 'user', 'a walrus', '2024-01-15 12:00:00'),
    ('b', 'user', 'a seal', NULL);
INSERT INTO tasks (session_id, description, status) VALUES ('a', 'feed it', 'done');
INSERT INTO knowledge (category, key, value) VALUES ('animals', 'walrus', 'eats clams');
"""


def invoke(*arguments: str, db: str = DB, **more: Any) -> Result:
    return CliRunner().invoke(app, ["import", *arguments, "--db", db], **more)


@pytest.fixture
def old() -> str:
    with closing(sqlite3.connect("old.db")) as connection:
        connection.executescript(OLD)
    return "old.db"


def test_the_command_that_the_error_names_works(old: str) -> None:
    refused = CliRunner().invoke(app, ["stats", "--db", old])
    assert "mirai-memory import OLD --db NEW" in refused.stderr
    result = invoke(old)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "2 added, 0 already there" in result.stdout
    assert "tasks          1 added" in result.stdout
    assert "facts          1 added" in result.stdout
    with MemoryManager(DB) as memory:
        assert {session.user_id for session in memory.list_sessions()} == {"alice", "bob"}


def test_a_user_is_kept_or_taken_alone(old: str) -> None:
    everybody = invoke(old, "--dry-run", "--json", env={"MIRAI_USER": "carol"})
    assert "names its owners" in everybody.stderr
    assert json.loads(everybody.stdout)["sessions"] == 2
    one = invoke(old, "--user", "alice")
    assert "only what belongs to 'alice'" in one.stderr
    with MemoryManager(DB) as memory:
        assert [session.user_id for session in memory.list_sessions()] == ["alice"]
        assert memory.get_knowledge() == []


def test_old_and_new_must_be_two_files(old: str) -> None:
    before = Path(old).read_bytes()
    result = invoke(old, db=old)
    assert result.exit_code == 2
    assert "--db" in result.stderr
    assert Path(old).read_bytes() == before


def test_a_timezone_is_a_name_of_one(old: str) -> None:
    for name in ("Nowhere/City", "", "../etc/passwd"):
        assert invoke(old, "--timezone", name).exit_code == 2
    assert not Path(DB).exists()
    assert invoke(old, "--timezone", "Asia/Tokyo").exit_code == 0
    with MemoryManager(DB) as memory:
        (message,) = memory.get_messages(memory.list_sessions("alice")[0].id)
        assert message.timestamp is not None
        assert message.timestamp.isoformat() == "2024-01-15T03:00:00+00:00"


def test_a_dry_run_makes_no_database_and_fails_as_the_import_would(old: str) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE tasks SET status = 'paused'")
        connection.commit()
    dry = invoke(old, "--dry-run")
    assert dry.exit_code == 1
    assert "nothing was stored" in dry.stderr
    assert not Path(DB).exists()
    real = invoke(old)
    assert (real.exit_code, real.stdout) == (1, dry.stdout)
    assert "old.db, session a, task 1: status" in real.stdout
    again = json.loads(invoke(old, "--dry-run", "--json").stdout)
    assert (again["messages_added"], again["messages_already_there"], again["dry_run"]) == (0, 2, True)


def test_the_help_lists_every_format_and_has_an_example() -> None:
    words = CliRunner().invoke(app, ["import", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    assert all(name in words for name in (*FORMATS, "--dry-run", "--timezone"))
    assert "mirai-memory import " in words


def test_progress_says_how_many_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_EVERY", 0.0)
    Path("chat.jsonl").write_text('{"role": "user", "content": "hi"}\n' * 1200)
    lines = invoke("chat.jsonl").stderr.splitlines()
    assert [line.split(" messages")[0] for line in lines] == [f"mirai-memory: {n}" for n in ("500", "1,000", "1,200")]
    assert lines[-1].endswith("/s")
