"""``export``, ``import`` of what it wrote, and ``cleanup``, as a person and as a script meet them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager, Message, Task, erasures
from mirai_memory._time import utc_now
from mirai_memory.cli.app import app

DB = "memory.db"


def invoke(*arguments: str, db: str = DB, **more: Any) -> Result:
    return CliRunner().invoke(app, [*arguments, "--db", db], **more)


@pytest.fixture(autouse=True)
def filled() -> None:
    """A session of alice's that nobody has used for 100 days."""
    with MemoryManager(DB, clock=lambda: utc_now() - timedelta(days=100)) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"walrus {n}") for n in range(3)])
        memory.add_task(Task(session_id=session, description="feed it"))
        memory.add_knowledge(Knowledge(user_id="alice", key="food", value="clams"))
        soon = utc_now() - timedelta(days=99)
        memory.add_knowledge(Knowledge(user_id="alice", key="mood", value="hungry", expires_at=soon))


@pytest.mark.parametrize("names", [("alice", "alice.jsonl"), ("alice.jsonl", "--user", "alice")])
def test_an_export_is_imported_elsewhere(names: tuple[str, ...]) -> None:
    done = invoke("export", *names)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("alice: 1 sessions, 3 messages, 1 tasks, 2 facts, no preferences")
    taken = invoke("import", "alice.jsonl", db="other.db")
    assert (taken.exit_code, taken.stderr) == (0, "")
    assert "messages       3 added, 0 already there" in taken.stdout
    again = invoke("import", "alice.jsonl", "--json", db="other.db")
    assert json.loads(again.stdout)["messages_already_there"] == 3
    with MemoryManager(DB) as memory, MemoryManager("other.db") as other:
        assert other.list_sessions() == memory.list_sessions()


def test_an_export_as_json_and_to_stdout() -> None:
    done = invoke("export", "alice", "alice.jsonl", "--json")
    assert json.loads(done.stdout)["messages"] == 3
    piped = invoke("export", "alice", "-")
    kinds = [json.loads(line)["type"] for line in piped.stdout.splitlines()]
    assert (kinds[0], kinds[-1], kinds.count("message")) == ("header", "end", 3)
    assert "3 messages" in piped.stderr


def test_an_export_that_cannot_be() -> None:
    Path("alice.jsonl").write_text("kept")
    taken = invoke("export", "alice", "alice.jsonl")
    assert (taken.exit_code, "there already" in taken.stderr) == (1, True)
    assert Path("alice.jsonl").read_text() == "kept"
    assert invoke("export", "alice", "missing/alice.jsonl").exit_code == 4
    assert invoke("export", "alice", "bob", "alice.jsonl").exit_code == 2
    assert invoke("export", "alice", "-", "--json").exit_code == 2


def test_an_import_for_the_user_that_is_named() -> None:
    invoke("export", "alice", "alice.jsonl")
    kept = invoke("import", "alice.jsonl", "--user", "alice", db="other.db")
    assert kept.exit_code == 0
    with MemoryManager(DB) as memory, MemoryManager("other.db") as other:
        assert other.list_sessions() == memory.list_sessions(), "their ids are kept"
    refused = invoke("import", "alice.jsonl", "--user", "bob", db="third.db")
    assert (refused.exit_code, "another owner than 'bob'" in refused.stdout) == (1, True)
    with MemoryManager("third.db") as third:
        assert third.list_sessions() == []


def test_an_import_of_a_file_that_was_cut_off() -> None:
    invoke("export", "alice", "alice.jsonl")
    written = Path("alice.jsonl").read_bytes()
    Path("alice.jsonl").write_bytes(written[:-200])
    refused = invoke("import", "alice.jsonl", db="other.db")
    assert (refused.exit_code, "cut off" in refused.stdout, "walrus" in refused.stdout) == (1, True, False)
    dry = invoke("import", "alice.jsonl", "--dry-run", db="never.db")
    assert (dry.exit_code, Path("never.db").exists()) == (1, False)


def test_an_import_does_not_bring_back_what_was_forgotten() -> None:
    invoke("export", "alice", "alice.jsonl")
    erasures.record(Path("other.db").absolute(), "alice", utc_now())
    taken = invoke("import", "alice.jsonl", db="other.db")
    assert (taken.exit_code, "7 rows of an owner who was forgotten" in taken.stdout) == (0, True)


def test_cleanup_shows_its_plan_and_does_nothing_unasked() -> None:
    plan = invoke("cleanup", "--days", "90")
    assert plan.exit_code == 1
    assert "3 of messages" in plan.stderr
    assert "nothing was changed" in plan.stderr
    dry = invoke("cleanup", "--days", "90", "--dry-run", "--json")
    assert json.loads(dry.stdout) | {"before": ""} == {
        "before": "", "dry_run": True, "sessions": 1, "messages": 3, "tasks": 1, "knowledge": 1, "embeddings": 0,
    }  # fmt: skip
    with MemoryManager(DB) as memory:
        assert memory.get_stats()["total_messages"] == 3


def test_cleanup_reports_by_table() -> None:
    done = invoke("cleanup", "--yes")
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [["table", "deleted"], ["sessions", "1"], ["messages", "3"], ["tasks", "1"], ["knowledge", "1"]]
    again = invoke("cleanup", "--yes")
    assert (again.exit_code, again.stdout, "nothing to delete" in again.stderr) == (0, "", True)
    with MemoryManager(DB) as memory:
        assert [fact.key for fact in memory.get_knowledge(user_id="alice")] == ["food"]
