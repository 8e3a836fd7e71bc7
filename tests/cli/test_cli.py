"""The commands, as a person and as a script meet them: output, streams, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager, Message
from mirai_memory.cli.app import app
from mirai_memory.cli.importing import Format
from mirai_memory.importers import FORMATS

DB = "memory.db"


def invoke(*arguments: str, db: str | None = DB, **more: Any) -> Result:
    return CliRunner().invoke(app, [*arguments, *(["--db", db] if db else [])], **more)


def process(*arguments: str, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mirai_memory", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env={**os.environ, **(env or {})}, timeout=60, **more
    )


@pytest.fixture
def filled() -> str:
    """A database with two sessions and a fact of alice's; the path of it."""
    with MemoryManager(DB) as memory:
        alice = memory.for_user("alice")
        for name, texts in (
            ("tea", ["Я пью зелёный чай", "Good choice"]),
            ("work", ["Bug 4127 is fixed", "Well done"]),
        ):
            session = alice.ensure_session(name, metadata={"title": f"About {name}"})
            question, answer = texts
            alice.add_messages(
                [
                    Message(session_id=session.id, role="user", content=question),
                    Message(session_id=session.id, role="assistant", content=answer),
                ]
            )
        alice.add_knowledge(Knowledge(user_id="alice", category="habits", key="drink", value="green tea"))
    return DB


# --- reading ----------------------------------------------------------------------------------------------------------


def test_recall_prints_what_was_found(filled: str) -> None:
    result = invoke("recall", "зеленого чая", "--user", "alice")
    assert result.exit_code == 0
    assert "зелёный чай" in result.stdout
    assert "user" in result.stdout


def test_recall_as_json_names_the_kind(filled: str) -> None:
    result = invoke("recall", "tea", "--user", "alice", "--json")
    (found,) = json.loads(result.stdout)
    assert (found["kind"], found["value"], found["key"]) == ("knowledge", "green tea", "drink")
    assert found["score"] > 0
    messages = json.loads(invoke("recall", "fixing bugs", "--user", "alice", "--json").stdout)
    assert [(item["kind"], item["content"]) for item in messages][:1] == [("message", "Bug 4127 is fixed")]


def test_recall_keeps_to_its_limit_and_its_user(filled: str) -> None:
    assert len(json.loads(invoke("recall", "bug tea чай", "--limit", "1", "--json", "--user", "alice").stdout)) == 1
    assert json.loads(invoke("recall", "bug", "--json", "--user", "bob").stdout) == []


def test_the_user_comes_from_the_environment(filled: str) -> None:
    assert json.loads(invoke("recall", "bug", "--json").stdout) == []
    assert json.loads(invoke("recall", "bug", "--json", env={"MIRAI_USER": "alice"}).stdout) != []


def test_a_search_that_finds_nothing_is_fine(filled: str) -> None:
    result = invoke("recall", "quantum chromodynamics", "--user", "alice")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing found" in result.stderr


@pytest.mark.parametrize("session", [None, "work"])
def test_history_is_the_latest_conversation_or_the_one_named(filled: str, session: str | None) -> None:
    result = invoke("history", *([session] if session else []), "--user", "alice")
    assert result.exit_code == 0
    assert result.stdout.index("Bug 4127 is fixed") < result.stdout.index("Well done")
    assert "чай" not in result.stdout


def test_history_takes_a_session_id(filled: str) -> None:
    oldest = json.loads(invoke("sessions", "--user", "alice", "--json").stdout)[-1]
    messages = json.loads(invoke("history", oldest["id"], "--user", "alice", "--json").stdout)
    assert [message["content"] for message in messages] == ["Я пью зелёный чай", "Good choice"]


def test_history_of_another_users_session_is_not_there(filled: str) -> None:
    result = invoke("history", "work", "--user", "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mirai-memory: error: no session 'work'")


def test_sessions_lists_the_latest_first(filled: str) -> None:
    result = invoke("sessions", "--user", "alice")
    assert result.stdout.index("About work") < result.stdout.index("About tea")
    assert len(json.loads(invoke("sessions", "--user", "alice", "--limit", "1", "--json").stdout)) == 1


def test_stats_count_everybodys(filled: str) -> None:
    values = json.loads(invoke("stats", "--json").stdout)
    assert (values["total_sessions"], values["total_messages"], values["total_knowledge"]) == (2, 4, 1)
    assert values["database"].endswith(DB)
    assert "total_messages" in invoke("stats").stdout


@pytest.mark.parametrize("command", [["recall", "x"], ["history"], ["sessions"], ["stats"]])
def test_reading_makes_no_database(command: list[str]) -> None:
    result = invoke(*command, db="mistyped.db")
    assert result.exit_code == 4
    assert result.stderr.startswith("mirai-memory: error: ")
    assert not Path("mistyped.db").exists()


def test_stored_text_cannot_steer_the_terminal() -> None:
    with MemoryManager(DB) as memory:
        mine = memory.for_user("default")
        session = mine.create_session(metadata={"title": "\x1b]0;title\x07"})
        mine.add_message(Message(session_id=session.id, role="user", content="clear \x1b[2J screen", name="\x9b1m"))
    for command in (["recall", "screen"], ["history"], ["sessions"]):
        output = invoke(*command).stdout
        assert not any(c != "\n" and not c.isprintable() for c in output)


# --- importing --------------------------------------------------------------------------------------------------------


def test_import_reports_and_recall_finds() -> None:
    Path("chat.jsonl").write_text('{"role": "user", "content": "пью зелёный чай"}\n', "utf-8")
    result = invoke("import", "chat.jsonl")
    assert result.exit_code == 0
    assert "1 added, 0 already there" in result.stdout
    assert "0 added, 1 already there" in invoke("import", "chat.jsonl").stdout
    assert "зелёный" in invoke("recall", "чая").stdout


def test_import_keeps_what_is_good_lists_what_is_not_and_fails() -> None:
    Path("good.json").write_text('[{"role": "user", "content": "hi"}]')
    Path("bad.jsonl").write_text('{"role": "user", "content": "hi"}\nnonsense\n')
    result = invoke("import", "bad.jsonl", "missing.json", "good.json")
    assert result.exit_code == 1
    assert "bad.jsonl, line 2: not JSON" in result.stdout
    assert "missing.json: No such file" in result.stdout
    assert "1 imported, 1 refused" in result.stdout
    report = json.loads(invoke("import", "bad.jsonl", "missing.json", "good.json", "--json").stdout)
    assert (report["files"], report["fault_count"], report["messages_already_there"]) == (3, 2, 1)
    assert report["faults"][0]["place"] == "bad.jsonl, line 2"


def test_the_formats_of_the_option_are_those_there_are() -> None:
    assert set(get_args(Format)) == set(FORMATS)
    Path("chat.json").write_text('[{"role": "user", "content": "hi"}]')
    assert invoke("import", "chat.json", "--format", "locomo").exit_code == 1
    assert invoke("import", "chat.json", "--format", "openai").exit_code == 0
    assert invoke("import", "chat.json", "--format", "xml").exit_code == 2


def test_an_interrupt_is_one_line_and_130(tmp_path: Path) -> None:
    script = (
        "import mirai_memory.importers as importers\n"
        "def interrupted(*a, **k): raise KeyboardInterrupt\n"
        "importers.import_file = interrupted\n"
        "from mirai_memory.cli import main; main()\n"
    )
    command = [sys.executable, "-c", script, "import", "x.json", "--db", DB]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (128 + signal.SIGINT, "mirai-memory: interrupted\n")


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_goes_up_is_checked_and_listed() -> None:
    assert invoke("db", "upgrade").exit_code == 0
    revisions = json.loads(invoke("db", "history", "--json", db=None).stdout)
    assert invoke("db", "current").stdout.strip() == revisions[-1]["id"]
    current = json.loads(invoke("db", "current", "--json").stdout)
    assert current["revision"] == current["head"]
    assert "no differences" in invoke("db", "check").stdout
    assert json.loads(invoke("db", "check", "--json").stdout) == []


def test_check_fails_where_tables_differ() -> None:
    assert invoke("db", "upgrade", "0001").exit_code == 0
    assert invoke("db", "check").exit_code == 1


def test_a_downgrade_without_a_terminal_shows_the_plan_and_changes_nothing(filled: str) -> None:
    result = invoke("db", "downgrade", "base")
    assert result.exit_code == 1
    assert "0001" in result.stderr
    assert "parked inside the database" in result.stderr
    assert "nothing was changed" in result.stderr
    assert json.loads(invoke("stats", "--json").stdout)["total_messages"] == 4


def test_a_downgrade_with_yes_goes_back_and_nothing_is_lost_on_the_way_up(filled: str) -> None:
    before = invoke("db", "current").stdout
    assert invoke("db", "downgrade", "-1", "--yes").exit_code == 0
    assert invoke("db", "current").stdout != before
    assert invoke("db", "upgrade").exit_code == 0
    assert "зелёный" in invoke("recall", "чай", "--user", "alice").stdout


@pytest.mark.parametrize("revision", ["9999", "-9", "nonsense"])
def test_a_downgrade_to_nowhere_is_a_usage_error(filled: str, revision: str) -> None:
    assert invoke("db", "downgrade", revision, "--yes").exit_code == 2
    assert invoke("db", "downgrade", "head", "--yes").exit_code == 2


def test_a_postgresql_database_is_upgraded_and_read(empty_postgres_url: str) -> None:
    assert invoke("db", "current", db=empty_postgres_url).stdout.strip() == "none"
    refused = invoke("sessions", db=empty_postgres_url)
    assert refused.exit_code == 4
    assert "db upgrade" in refused.stderr
    assert invoke("db", "upgrade", db=empty_postgres_url).exit_code == 0
    Path("chat.json").write_text('[{"role": "user", "content": "hi"}]')
    assert invoke("import", "chat.json", db=empty_postgres_url).exit_code == 0
    assert json.loads(invoke("stats", "--json", db=empty_postgres_url).stdout)["total_messages"] == 1
    assert "hi" in invoke("history", db=empty_postgres_url).stdout


# --- exit codes and streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["recall"], 2),
        pytest.param(["nonsense"], 2, marks=pytest.mark.long),
        pytest.param(["recall", "x", "--limit", "0"], 2, marks=pytest.mark.long),
        (["stats", "--config", "missing.yaml"], 3),
        pytest.param(["stats", "--db", "mysql://host/name"], 3, marks=pytest.mark.long),
        (["stats", "--db", "missing.db"], 4),
        pytest.param(["stats", "--db", "postgresql://nobody@127.0.0.1:1/none"], 4, marks=pytest.mark.long),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    result = process(*arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    if code != 2:
        assert result.stderr.startswith("mirai-memory: error: ")
        assert result.stderr.count("\n") == 1


def test_a_misspelt_setting_is_a_configuration_error() -> None:
    Path("mirai.yaml").write_text("memory: {db_pth: x.db}\n")
    result = process("stats")
    assert result.returncode == 3
    assert "db_pth" in result.stderr


def test_a_file_that_is_no_database_is_unavailable() -> None:
    Path("text.db").write_text("no database at all\n" * 100)
    result = process("recall", "x", "--db", "text.db")
    assert (result.returncode, result.stdout) == (4, "")


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch, filled: str) -> None:
    def broken(self: Any) -> Any:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(MemoryManager, "get_stats", broken)
    result = invoke("stats")
    assert (result.exit_code, result.stderr) == (1, "mirai-memory: error: ZeroDivisionError: oh no\n")


@pytest.mark.parametrize("env", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C"}])
def test_any_text_is_printed_in_any_locale(filled: str, env: dict[str, str]) -> None:
    result = process("history", "tea", "--user", "alice", "--db", filled, env=env)
    assert result.returncode == 0
    assert "чай" in result.stdout or "\\u0447\\u0430\\u0439" in result.stdout


def test_a_reader_that_leaves_early_is_no_error(filled: str) -> None:
    command = f'"{sys.executable}" -m mirai_memory history --user alice --db {filled} | true'
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from mirai_memory.cli import main\n"
        "sys.argv = ['mirai-memory', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as exit: code = exit.code\n"
        "heavy = {'sqlalchemy', 'alembic', 'pydantic', 'loguru', 'numpy', 'Stemmer', 'yaml'}\n"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for option in ("--help", "--version"):
        result = subprocess.run([sys.executable, "-c", script, option], capture_output=True, text=True, timeout=60)
        assert result.stderr == "0 []\n"


def test_every_command_takes_the_shared_options_and_every_read_json() -> None:
    reads = (["recall"], ["history"], ["sessions"], ["stats"], ["db", "current"], ["db", "check"], ["db", "history"])
    others = (["import"], ["demo"], ["db", "upgrade"], ["db", "downgrade"])
    for command in (*reads, *others):
        words = invoke(*command, "--help", db=None, env={"COLUMNS": "120", "TERM": "dumb"}).stdout
        assert all(option in words for option in ("--user", "--db", "--config")), command
        assert ("--json" in words) or command in others, command
