"""The commands for facts, preferences, tasks and contexts; help, examples and completion of all of them."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager, Message, Task, UserMemory
from mirai_memory.cli.app import app

DB = "memory.db"


def invoke(*arguments: str, db: str | None = DB, **more: Any) -> Result:
    return CliRunner().invoke(app, [*arguments, *(["--db", db] if db else [])], **more)


def answer(*arguments: str) -> Any:
    """What the command prints with --json."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def on_a_terminal(*arguments: str, columns: int = 80, type_in: str = "", env: dict[str, str] | None = None) -> str:
    """What somebody at a terminal of that width sees, their typing included."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **(env or {})}
    command = [sys.executable, "-m", "mirai_memory", *arguments, "--db", DB]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings)
    os.close(theirs)
    os.write(ours, type_in.encode())
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the terminal was closed
        pass
    finally:
        os.close(ours)
        process.wait(timeout=60)
    return seen.decode().replace("\r\n", "\n")


@pytest.fixture
def mine() -> Iterator[UserMemory]:
    with MemoryManager(DB) as memory:
        yield memory.for_user("default")


# --- remember ---------------------------------------------------------------------------------------------------------


def test_remember_stores_a_fact(mine: UserMemory) -> None:
    result = invoke(
        *shlex.split("remember 'lives in Kazan' --key city --category profile --source chat --confidence 0.5")
    )
    assert result.exit_code == 0
    assert "lives in Kazan" in result.stdout
    [fact] = mine.get_knowledge()
    assert (fact.value, fact.key, fact.category) == ("lives in Kazan", "city", "profile")
    assert (fact.source, fact.confidence, fact.source_kind, fact.user_id) == ("chat", 0.5, "user", "default")


def test_remember_says_what_it_superseded(mine: UserMemory) -> None:
    assert answer("remember", "Kazan", "--key", "city")["superseded"] == []
    stored = answer("remember", "Perm", "--key", "city")
    assert (stored["stored"]["value"], [item["value"] for item in stored["superseded"]]) == ("Perm", ["Kazan"])
    again = answer("remember", "Perm", "--key", "city")
    assert (again["stored"]["id"], again["superseded"]) == (stored["stored"]["id"], [])
    assert "known already" in invoke("remember", "Perm", "--key", "city").stderr
    moved = invoke("remember", "Omsk", "--key", "city")
    assert f"superseded: id {again['stored']['id']}" in moved.stderr
    assert "Perm" not in moved.stdout


def test_remember_without_a_key_stores_the_same_text_once(mine: UserMemory) -> None:
    first = answer("remember", "likes tea")
    assert answer("remember", "likes tea")["stored"]["id"] == first["stored"]["id"]
    assert len(mine.get_knowledge()) == 1
    assert "sha256" not in invoke("remember", "likes tea").stdout


def test_remember_for_all(mine: UserMemory) -> None:
    invoke("remember", "the office closes at six", "--shared", "--user", "alice")
    [fact] = mine.get_knowledge()
    assert fact.user_id is None
    assert "(shared)" in invoke("knowledge", "list").stdout


def test_a_surer_value_may_be_kept(mine: UserMemory) -> None:
    Path("mirai.yaml").write_text("memory: {long_term: {on_conflict: {default: keep_higher_confidence}}}\n")
    invoke("remember", "Kazan", "--key", "city")
    result = invoke("remember", "Perm", "--key", "city", "--confidence", "0.2")
    assert "Kazan" in result.stdout
    assert "not stored" in result.stderr


@pytest.mark.parametrize("confidence", ["2", "-1", "x"])
def test_a_confidence_is_a_share(confidence: str) -> None:
    assert invoke("remember", "x", "--confidence", confidence).exit_code == 2
    assert not Path(DB).exists()


# --- knowledge --------------------------------------------------------------------------------------------------------


def test_knowledge_is_listed_page_by_page(mine: UserMemory) -> None:
    mine.add_knowledge_many([Knowledge(key=f"k{n}", value=f"value {n}", category="abc"[n % 3]) for n in range(5)])
    first = invoke("knowledge", "list", "--limit", "2")
    assert [line.split()[2] for line in first.stdout.splitlines()[1:]] == ["k0", "k1"]
    assert "more: --after 2" in first.stderr
    assert [fact["key"] for fact in answer("knowledge", "list", "--after", "2")] == ["k2", "k3", "k4"]
    assert [fact["key"] for fact in answer("knowledge", "list", "--category", "b")] == ["k1", "k4"]
    nothing = invoke("knowledge", "list", "--user", "bob")
    assert (nothing.exit_code, nothing.stdout) == (0, "")


def test_a_key_is_shown_with_its_history(mine: UserMemory) -> None:
    for value in ("Kazan", "Perm"):
        mine.add_knowledge(Knowledge(key="city", category="profile", value=value))
    for arguments in (["city"], ["city", "--category", "profile"]):
        text = invoke("knowledge", "show", *arguments).stdout
        assert text.index("Kazan") < text.index("Perm")
        assert re.findall(r"profile/city  (is|was)", text) == ["was", "is"]
    assert [fact["value"] for fact in answer("knowledge", "show", "city")] == ["Kazan", "Perm"]
    missing = invoke("knowledge", "show", "city", "--category", "other")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("mirai-memory: error: no fact 'city'")


def _facts(mine: UserMemory) -> list[str]:
    return [fact.value for fact in mine.get_knowledge()]


def test_deleting_without_a_terminal_changes_nothing(mine: UserMemory) -> None:
    mine.add_knowledge_many([Knowledge(value="a", source="page"), Knowledge(value="b", source="page")])
    result = invoke("knowledge", "delete", "--source", "page")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "2 values of user default: source page" in result.stderr
    assert "nothing was changed; --yes" in result.stderr
    assert invoke("knowledge", "delete", "--source", "page", "--dry-run").exit_code == 0
    assert _facts(mine) == ["a", "b"]


def test_deleting_with_yes_takes_earlier_values_too(mine: UserMemory) -> None:
    for value in ("Kazan", "Perm"):
        mine.add_knowledge(Knowledge(key="city", value=value))
    mine.add_knowledge(Knowledge(key="drink", value="tea"))
    assert "2 values are deleted" in invoke("knowledge", "delete", "--key", "city", "--yes").stderr
    assert (_facts(mine), mine.knowledge_history("city")) == (["tea"], [])
    assert invoke("knowledge", "delete", "3", "--yes").exit_code == 0
    assert _facts(mine) == []
    assert invoke("knowledge", "delete", "3", "--yes").exit_code == 1
    nothing = invoke("knowledge", "delete", "--key", "city")
    assert (nothing.exit_code, "0 values" in nothing.stderr) == (0, True)
    assert invoke("knowledge", "delete", "--yes").exit_code == 2


def test_others_and_shared_facts_cannot_be_deleted(mine: UserMemory) -> None:
    invoke("remember", "shared", "--shared", "--key", "k")
    invoke("remember", "bob's", "--user", "bob", "--key", "k")
    assert invoke("knowledge", "delete", "1", "--yes").exit_code == 1
    assert invoke("knowledge", "delete", "2", "--yes").exit_code == 1
    assert invoke("knowledge", "delete", "--key", "k", "--yes").exit_code == 0
    assert len(answer("knowledge", "list", "--user", "bob")) == 2


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("y\n", []),
        pytest.param("n\n", ["a"], marks=pytest.mark.long),
        ("\n", ["a"]),
    ],
)
def test_on_a_terminal_deleting_asks(mine: UserMemory, typed: str, left: list[str]) -> None:
    mine.add_knowledge(Knowledge(value="a", key="k"))
    seen = on_a_terminal("knowledge", "delete", "--key", "k", type_in=typed)
    assert "Go ahead? [y/N]" in seen
    assert ("nothing was changed" in seen) == bool(left)
    assert _facts(mine) == left


# --- preferences ------------------------------------------------------------------------------------------------------


def test_preferences_are_set_shown_and_cleared(mine: UserMemory) -> None:
    assert answer("prefs", "show") is None
    assert "no preferences of user default" in invoke("prefs", "show").stderr
    set_ = "prefs set --coding-style PEP8 --communication-tone кратко --tool uv --tool ruff --project-context billing"
    assert invoke(*shlex.split(set_)).exit_code == 0
    assert answer("prefs", "show")["favorite_tools"] == ["uv", "ruff"]
    assert "uv, ruff" in invoke("prefs", "show").stdout
    changed = answer("prefs", "set", "--coding-style", "", "--tool", "mypy")
    assert (changed["coding_style"], changed["favorite_tools"]) == (None, ["mypy"])
    assert (changed["communication_tone"], changed["project_context"]) == ("кратко", "billing")
    assert answer("prefs", "set", "--tool", "")["favorite_tools"] == []
    assert invoke("prefs", "set").exit_code == 2


def test_preferences_are_deleted_after_asking(mine: UserMemory) -> None:
    invoke("prefs", "set", "--tool", "uv")
    for arguments, code in (([], 1), (["--dry-run"], 0)):
        assert invoke("prefs", "delete", *arguments).exit_code == code
        assert mine.get_user_preferences() is not None
    assert invoke("prefs", "delete", "--yes").exit_code == 0
    assert mine.get_user_preferences() is None
    assert invoke("prefs", "delete").exit_code == 0


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_from_beginning_to_end(mine: UserMemory) -> None:
    task = answer("tasks", "add", "book a table")
    assert (task["status"], task["description"], task["session_id"]) == ("pending", "book a table", None)
    assert answer("tasks", "status", "1", "in_progress")["status"] == "in_progress"
    done = invoke("tasks", "done", "1", "--result", "at seven")
    assert re.search(r"1 +completed .* book a table -> at seven", done.stdout)
    assert answer("tasks", "status", "1", "pending")["completed_at"] is None
    assert invoke("tasks", "status", "1", "forgotten").exit_code == 2
    assert invoke("tasks", "done", "7").exit_code == 1
    assert invoke("tasks", "delete", "1").exit_code == 1
    assert invoke("tasks", "delete", "1", "--dry-run").exit_code == 0
    assert len(mine.get_tasks()) == 1
    assert invoke("tasks", "delete", "1", "--yes").exit_code == 0
    assert mine.get_tasks() == []
    missing = invoke("tasks", "delete", "1", "--yes")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)


def test_tasks_are_listed_by_status_session_and_page(mine: UserMemory) -> None:
    session = mine.ensure_session("work")
    for n in range(4):
        status: Any = "completed" if n % 2 else "pending"
        mine.add_task(Task(description=f"task {n}", status=status, session_id=session.id if n > 1 else None))
    assert [task["id"] for task in answer("tasks", "list", "--status", "completed")] == [2, 4]
    assert [task["id"] for task in answer("tasks", "list", "--session", "work")] == [3, 4]
    assert [task["id"] for task in answer("tasks", "list", "--limit", "1", "--after", "1")] == [2]
    assert "more: --after 3" in invoke("tasks", "list", "--limit", "3").stderr
    assert answer("tasks", "add", "new", "--session", session.id)["session_id"] == session.id
    assert invoke("tasks", "list", "--session", "nope").exit_code == 1
    assert answer("tasks", "list", "--user", "bob") == []


# --- context ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def conversation(mine: UserMemory) -> str:
    for name in ("tea", "work"):
        session = mine.ensure_session(name)
        mine.add_message(Message(session_id=session.id, role="user", content=f"let us talk about {name}"))
    mine.add_knowledge(Knowledge(key="drink", value="green tea"))
    return session.id


def test_the_context_of_the_latest_conversation(conversation: str) -> None:
    result = invoke("context")
    assert "<history>" in result.stdout
    assert "talk about work" in result.stdout
    assert re.search(rf"session {conversation}, \d+ tokens", result.stderr)
    built = answer("context", "tea", "--query", "a drink")
    assert [message["content"] for message in built["history"]] == ["let us talk about tea"]
    assert [fact["value"] for fact in built["knowledge"]] == ["green tea"]
    assert built["omitted"] == []


def test_the_context_in_other_shapes(conversation: str) -> None:
    messages = json.loads(invoke("context", conversation, "--shape", "openai").stdout)
    assert messages[-1] == {"role": "user", "content": "let us talk about work"}
    assert json.loads(invoke("context", "--shape", "anthropic").stdout)["messages"][0]["role"] == "user"
    assert invoke("context", "--shape", "prompt").stdout == invoke("context").stdout
    assert invoke("context", "--shape", "openai", "--json").exit_code == 2


def test_a_context_keeps_to_its_budget(conversation: str) -> None:
    least = invoke("context", "--max-tokens", "1")
    assert (least.exit_code, least.stdout) == (1, "")
    needed = re.search(r"at least (\d+)", least.stderr)
    assert needed is not None
    small = invoke("context", "--max-tokens", needed[1])
    assert "left out: " in small.stderr
    assert "knowledge (budget)" in small.stderr
    assert "green tea" not in small.stdout


def test_a_context_of_nothing(mine: UserMemory) -> None:
    result = invoke("context")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no sessions" in result.stderr
    assert answer("context") is None
    assert invoke("context", "missing").exit_code == 1


# --- a terminal -------------------------------------------------------------------------------------------------------

ESCAPE = "\x1b["


TABLES = ("knowledge list", "knowledge show drink-of-the-evening-after-six", "tasks list", "prefs show")
WIDTHS = [(columns, command) for columns in (60, 30, 80) for command in TABLES]


@pytest.mark.parametrize(
    ("columns", "command"), [WIDTHS[0], *(pytest.param(*width, marks=pytest.mark.long) for width in WIDTHS[1:])]
)
def test_lines_are_as_wide_as_the_terminal(mine: UserMemory, columns: int, command: str) -> None:
    text = "после шести вместо кофе зелёный чай с жасмином, and then a walk around the block"
    mine.add_knowledge(Knowledge(key="drink-of-the-evening-after-six", category="habits", value=text))
    mine.add_task(Task(description=text))
    mine.update_user_preferences(project_context=text)
    seen = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(*command.split(), columns=columns))
    printed = [line for line in seen.splitlines() if not line.startswith("mirai-memory:")]
    assert max(map(len, printed)) <= columns
    words = [word for line in printed for word in line.split()]
    assert all(word in words for word in text.split())  # no word is torn


@pytest.mark.long
def test_colours_are_for_terminals_that_want_them(mine: UserMemory) -> None:
    mine.add_task(Task(description="x"))
    assert ESCAPE in on_a_terminal("tasks", "list")
    assert ESCAPE not in on_a_terminal("tasks", "list", env={"NO_COLOR": "1"})
    assert ESCAPE not in on_a_terminal("tasks", "list", env={"TERM": "dumb"})
    assert ESCAPE not in invoke("tasks", "list").output


def test_stored_text_cannot_steer_the_terminal(mine: UserMemory) -> None:
    text = "clear \x1b[2J \x9b1m screen\x07 \u202eevil"
    mine.add_message(Message(session_id=mine.create_session().id, role="user", content=text))
    mine.add_knowledge(Knowledge(key=text, value=text, category=text, source=text))
    mine.add_task(Task(description=text))
    mine.update_user_preferences(coding_style=text, favorite_tools=[text])
    commands = (
        "knowledge list",
        "tasks list",
        "prefs show",
        "context --json",
        "context --shape openai",
        "tasks delete 1",
    )
    for command in commands:
        output = invoke(*command.split()).output
        assert not any(c != "\n" and not c.isprintable() for c in output), command
    assert not re.search(r"\x9b|\u202e", on_a_terminal("context"))
    assert answer("tasks", "list")[0]["description"] == text
    assert text[7:] not in invoke("context").stdout  # it stands there as JSON
    assert "\x9b" in invoke("context").stdout


# --- all commands -----------------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))
WRITES = {"demo", "import", "upgrade", "downgrade", "set", "delete", "add", "done", "status", "remember", "init"} | {
    "reindex",
    "enable",
    "disable",
}


def _examples(command: Any) -> list[str]:
    return [line for line in command.epilog.split("\n\n") if line.startswith("mirai-memory ")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_an_example_and_the_shared_options(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    words = invoke(*path, "--help", db=None, env={"COLUMNS": "100", "TERM": "dumb"}).stdout
    examples = _examples(command)
    assert command.help
    assert examples
    for example in examples:
        assert example.startswith(f"mirai-memory {' '.join(path)}")
        assert example in words
    options = {option for parameter in command.params for option in parameter.opts}
    assert options >= {"--user", "--db", "--config"}
    assert "--json" in options or path[-1] in WRITES
    assert "--yes" in options or path[-1] not in {"delete", "downgrade"}


def test_every_example_runs(conversation: str) -> None:
    Path("chat.jsonl").write_text('{"role": "user", "content": "hi"}\n')
    for path, command in COMMANDS.items():
        if path == ("demo",):
            continue  # it takes longer than all others; test_demo.py runs it
        for example in _examples(command):
            result = CliRunner().invoke(app, shlex.split(example)[1:], env={"MIRAI_MEMORY__DB_PATH": DB})
            # To learn, somebody has to be named who can.
            assert result.exit_code in (0, 1, 4, *([3] if path == ("learn",) else [])), (path, result.output)


@pytest.mark.parametrize("line", ["context", "knowledge list", "knowledge show x", "prefs show", "tasks list"])
def test_reading_makes_no_database(line: str) -> None:
    result = invoke(*line.split(), db="mistyped.db")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert not Path("mistyped.db").exists()


@pytest.mark.parametrize(
    "line", ["tasks done 1", "tasks delete 1 --yes", "prefs delete --yes", "knowledge delete 1 --yes"]
)
def test_changing_what_cannot_be_there_makes_no_database(line: str) -> None:
    assert invoke(*line.split(), db="mistyped.db").exit_code == 4
    assert not Path("mistyped.db").exists()


def in_bash(script: str, **env: str) -> str:
    command = ["bash", "-c", script.replace("mirai-memory", f'"{sys.executable}" -m mirai_memory')]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_completion_is_installed_and_shown_in_bash(tmp_path: Path) -> None:
    # Something after it: else bash becomes the command, and the shell that is found is the one around bash.
    shown = in_bash("mirai-memory --show-completion && true")
    assert "_MIRAI_MEMORY_COMPLETE=complete_bash" in shown
    assert "bash completion installed" in in_bash("mirai-memory --install-completion && true", HOME=str(tmp_path))
    assert (tmp_path / ".bash_completions" / "mirai-memory.sh").read_text().strip() == shown.strip()


@pytest.mark.parametrize(
    ("typed", "expected"), [("kno", "knowledge"), ("tasks status 1 in", "in_progress"), ("context --sh", "--shape")]
)
def test_words_are_completed(typed: str, expected: str) -> None:
    words = {"COMP_WORDS": f"mirai-memory {typed}", "COMP_CWORD": str(len(typed.split()))}
    assert in_bash("mirai-memory", _MIRAI_MEMORY_COMPLETE="complete_bash", **words).split() == [expected]


def test_completing_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mirai_memory.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'sqlalchemy', 'alembic', 'loguru', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    env = {**os.environ, "_MIRAI_MEMORY_COMPLETE": "complete_bash", "COMP_WORDS": "mirai-memory ", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"
    assert {"remember", "context", "prefs", "tasks", "knowledge"} <= set(done.stdout.split())


def test_a_downgrade_to_nothing_tells_where_the_rows_go(mine: UserMemory) -> None:
    mine.add_task(Task(description="survives"))
    result = invoke("db", "downgrade", "base")
    assert result.exit_code == 1
    assert "its rows stay parked inside the database" in result.stderr
    assert "delete" not in result.stderr
    invoke("db", "downgrade", "base", "--yes")
    invoke("db", "upgrade")
    assert [task["description"] for task in answer("tasks", "list")] == ["survives"]
