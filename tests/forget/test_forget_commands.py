"""``forget``, ``verify`` and ``repair`` as a person and as a script meet them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from canaries import CANARY, fill
from cli_runner import CliRunner, Result

from mirai_memory import MemoryManager
from mirai_memory.cli.app import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--db", "memory.db"])


@pytest.fixture(autouse=True)
def _filled() -> None:
    with MemoryManager("memory.db") as memory:
        fill(memory, rounds=3)


def sessions_of(owner: str) -> int:
    with MemoryManager("memory.db") as memory:
        return len(memory.list_sessions(owner))


def test_forget_prints_the_plan_and_changes_nothing_without_yes() -> None:
    result = run("forget", "--user", "alice")
    assert result.exit_code == 1
    assert "everything of user alice" in result.stderr
    assert "3 of sessions" in result.stderr
    assert sessions_of("alice") == 3


def test_forget_forgets_one_user() -> None:
    result = run("forget", "--user", "alice", "--yes")
    assert result.exit_code == 0
    assert ["sessions", "3"] in [line.split() for line in result.stdout.splitlines()]
    assert result.stderr.splitlines()[-1].endswith("done")
    assert CANARY not in result.output
    assert (sessions_of("alice"), sessions_of("bob")) == (0, 3)


def test_forget_as_json_and_dry() -> None:
    planned = json.loads(run("forget", "--user", "alice", "--dry-run", "--json").stdout)
    assert planned["state"] == "planned"
    assert sessions_of("alice") == 3
    done = json.loads(run("forget", "--user", "alice", "--yes", "--json").stdout)
    assert done["state"] == "done"
    assert done["messages"] == planned["messages"] > 0


def test_forget_that_is_pending_fails_and_is_ended_by_the_next() -> None:
    result = run("forget", "--user", "alice", "--yes", "--later")
    assert result.exit_code == 1
    assert "pending" in result.stderr
    assert run("forget", "--user", "alice", "--yes").exit_code == 0


def test_verify_and_repair() -> None:
    result = run("verify")
    assert result.exit_code == 0
    assert ["word_index", "0"] in [line.split() for line in result.stdout.splitlines()]
    with closing(sqlite3.connect("memory.db")) as connection, connection:
        connection.execute("UPDATE sessions SET message_count = message_count + 1")
    found = run("verify", "--json")
    assert found.exit_code == 1
    assert {c["name"]: c["count"] for c in json.loads(found.stdout)["checks"]}["session_counts"] == 6
    asked = run("repair")
    assert asked.exit_code == 1
    assert "session_counts: 6" in asked.stderr
    mended = run("repair", "--yes", "--json")
    assert mended.exit_code == 0
    assert json.loads(mended.stdout)["mended"] == {"session_counts": 6}
    assert run("repair").exit_code == 0, "nothing to mend, nothing to ask"
    assert run("verify").exit_code == 0


def test_repair_says_what_is_left() -> None:
    with closing(sqlite3.connect("memory.db")) as connection, connection:
        connection.execute(
            "UPDATE tasks SET session_id = (SELECT min(id) FROM sessions), user_id = 'carol' WHERE id = 1"
        )
    result = run("repair", "--yes")
    assert result.exit_code == 1
    assert "owners: 1 left" in result.stderr
