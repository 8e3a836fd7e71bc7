"""``backup``, ``restore`` and ``drill`` as somebody types them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import MemoryManager, Message, schema
from mirai_memory.cli.app import app

DB = "memory.db"


def invoke(*arguments: str, db: str = DB) -> Result:
    return CliRunner().invoke(app, [*arguments, "--db", db])


def answer(*arguments: str) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def talk() -> None:
    """A closed database."""
    with MemoryManager(DB) as memory:
        session = memory.create_session("default", session_id="talk").id
        memory.add_message(Message(session_id=session, role="user", content="the walrus likes tea"))


def _messages(db: str = DB) -> int:
    with MemoryManager(db) as memory:
        return int(memory.get_stats()["total_messages"])


def _more() -> None:
    with MemoryManager(DB) as memory:
        memory.add_message(Message(session_id="talk", role="user", content="one more"))


def test_backup_prints_where_it_is(tmp_path: Path) -> None:
    result = invoke("backup")
    path = Path(result.stdout.strip())
    assert result.exit_code == 0
    assert path.parent == tmp_path / "backups"
    assert "1 session, 1 message, 0 facts, 0 tasks" in result.stderr
    assert result.stderr.count("\n") == 1
    assert _messages(str(path)) == 1


def test_backup_to_a_name(tmp_path: Path) -> None:
    made = answer("backup", "copy.db")
    assert made["path"] == str(tmp_path / "copy.db")
    assert (made["revision"], made["rows"]["messages"]) == ("0003", 1)
    result = invoke("backup", "copy.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exists already" in result.stderr
    _more()
    assert answer("backup", "copy.db", "--overwrite")["rows"]["messages"] == 2


def test_backup_of_what_is_not_there() -> None:
    assert invoke("backup", db="mistyped.db").exit_code == 4
    assert not Path("mistyped.db").exists()


def test_restore_without_a_terminal_replaces_nothing() -> None:
    invoke("backup", "copy.db")
    _more()
    result = invoke("restore", "copy.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "memory.db is to become what copy.db holds; the present file is kept beside it" in result.stderr
    assert "nothing was changed" in result.stderr
    assert _messages() == 2


def test_restore_with_yes_keeps_what_it_replaces() -> None:
    invoke("backup", "copy.db")
    _more()
    done = answer("restore", "copy.db", "--yes")
    assert (done["rows"]["messages"], done["sealed"], done["erased"]) == (1, True, 0)
    assert (_messages(), _messages(done["kept"])) == (1, 2)
    assert f"the file that was there is now {Path.cwd()}" in invoke("restore", "copy.db", "--yes").stderr


def test_restore_to_a_new_place_does_not_ask(tmp_path: Path) -> None:
    invoke("backup", "copy.db")
    result = invoke("restore", "copy.db", db="new/memory.db")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "new" / "memory.db"))
    assert _messages("new/memory.db") == 1


def test_restore_says_what_was_unusual() -> None:
    schema.downgrade(DB, revision="0001")
    result = invoke("restore", DB, db="new.db")
    assert "it was made by other means, and has no checksum" in result.stderr
    assert "its schema was at revision 0001, and was upgraded to 0003" in result.stderr


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(None, 1, "does not exist"), (b"nonsense", 4, "is damaged"), (b"", 4, "is damaged")],
)
def test_what_cannot_be_restored(content: bytes | None, code: int, said: str) -> None:
    if content is not None:
        Path("bad.db").write_bytes(content)
    for command in ("restore", "drill"):
        result = invoke(command, "bad.db", *(["--yes"] if command == "restore" else []))
        assert (result.exit_code, result.stdout) == (code, "")
        assert said in result.stderr
    assert invoke("restore", "bad.db", db="no folder/x.db").exit_code == code
    assert _messages() == 1


def test_drill_tries_the_newest_out() -> None:
    assert invoke("drill").exit_code == 1
    path = invoke("backup").stdout
    result = invoke("drill")
    assert (result.exit_code, result.stdout) == (0, path)
    assert "1 of 1 texts found again by their words" in result.stderr
    assert answer("drill")["ok"] is True


def test_a_drill_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from mirai_memory.backups import drill

    monkeypatch.setattr(drill, "_finds_message", lambda store, owner, text: False)
    invoke("backup", "copy.db")
    result = invoke("drill", "copy.db")
    assert result.exit_code == 1
    assert "0 of 1 texts" in result.stderr


def test_a_server_is_told_of_its_own_tools() -> None:
    for command in ("restore", "drill"):
        result = invoke(command, "x.db", db="postgresql://localhost:1/nobody")
        assert result.exit_code == 1
        assert "pg_restore" in result.stderr


def test_changing_the_schema_makes_a_backup_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> list[str]:
        return sorted(path.name.split("-")[2] for path in Path().glob("backups/*.db"))

    assert invoke("db", "downgrade", "0001", "--yes").exit_code == 0
    assert made() == [], "switched off in tests"
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__BACKUP_ENABLED", "true")
    assert invoke("db", "upgrade").exit_code == 0
    assert made() == ["upgrade"]
    assert invoke("db", "upgrade").exit_code == 0
    assert made() == ["upgrade"]
    assert invoke("db", "downgrade", "base", "--yes").exit_code == 0
    assert made() == ["upgrade", "upgrade"]


@pytest.mark.parametrize(("typed", "left"), [("y\n", 1), ("n\n", 2)])
def test_on_a_terminal_restore_asks(typed: str, left: int) -> None:
    invoke("backup", "copy.db")
    _more()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mirai_memory", "restore", "copy.db", "--db", DB]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the terminal was closed
        pass
    finally:
        os.close(ours)
        process.wait(timeout=60)
    assert b"Go ahead?" in seen
    assert process.returncode == (0 if left == 1 else 1)
    assert _messages() == left
