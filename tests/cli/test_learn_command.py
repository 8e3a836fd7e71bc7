"""``learn``: what it keeps, prints and asks, with a chat model on this machine."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import ChatRequest, ChatServer, chat_error
from cli_runner import CliRunner, Result

from mirai_memory import Knowledge, MemoryManager, Message, UserMemory
from mirai_memory.cli.app import app

DB = "memory.db"
SAID = re.compile(r"my ([\w ]+?) is (\w+)")


def proposals(request: ChatRequest) -> str:
    """A fact for each "my home city is Perm" in the messages of the question."""
    _, _, rest = request.user.partition("<messages>\n")
    messages = [json.loads(line) for line in rest.partition("\n</messages>")[0].split("\n")]
    facts = [
        {
            "category": "profile",
            "key": key.replace(" ", "_"),
            "value": value,
            "confidence": 0.9,
            "message_ids": [message["id"]],
            "reason": f"for later, about {value}",
        }
        for message in messages
        for key, value in SAID.findall(message["text"])
    ]
    return json.dumps({"facts": facts, "preferences": []})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """The model that the settings name."""
    with ChatServer() as server:
        server.reply = proposals
        monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__EXTRACTOR", "openai")
        monkeypatch.setenv("MIRAI_MODELS__CHAT__BASE_URL", server.url)
        yield server


@pytest.fixture
def mine(server: ChatServer) -> Iterator[UserMemory]:
    with MemoryManager(DB) as memory:
        yield memory.for_user("default")


def talk(mine: UserMemory, *contents: str, name: str = "chat") -> str:
    session = mine.ensure_session(name).id
    mine.add_messages([Message(session_id=session, role="user", content=text) for text in contents])
    return session


def invoke(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(app, ["learn", *arguments, "--db", DB], **more)


def on_a_terminal(*arguments: str, type_in: str) -> str:
    """What somebody at a terminal sees, their typing included."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mirai_memory", "learn", *arguments, "--db", DB]
    surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings)
    os.close(theirs)
    os.write(ours, f"{type_in}\x04".encode())  # at the end they leave: one question too many does not hang
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


def values(mine: UserMemory) -> set[str]:
    return {fact.value for fact in mine.get_knowledge()}


def test_the_latest_conversation_is_learned(mine: UserMemory) -> None:
    talk(mine, "my home city is Perm")
    result = invoke()
    assert result.exit_code == 0
    assert "applied  profile/home_city" in result.stdout
    assert "Perm" in result.stdout
    assert "1 messages of user default read: 1 applied" in result.stderr
    assert values(mine) == {"Perm"}
    again = invoke()
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing new" in again.stderr


def test_it_says_what_was_replaced(mine: UserMemory) -> None:
    mine.add_knowledge(Knowledge(category="profile", key="home_city", value="Kazan"))
    talk(mine, "my home city is Perm")
    assert "replaced Kazan" in invoke("chat").stdout


def test_json_has_the_reports(mine: UserMemory) -> None:
    session = talk(mine, "my home city is Perm")
    result = invoke("chat", "--json")
    [learned] = json.loads(result.stdout)
    assert (learned["session_id"], learned["through"]) == (session, 1)
    assert [(item["outcome"], item["proposal"]["value"]) for item in learned["items"]] == [("applied", "Perm")]
    assert json.loads(invoke("--json").stdout) == []


def test_all_conversations(mine: UserMemory, server: ChatServer) -> None:
    talk(mine, "my home city is Perm", name="one")
    talk(mine, "hello", name="two")
    talk(mine, "my cat is Tom", name="three")
    server.faults.extend([chat_error(401)])
    first = invoke("--all")
    assert first.exit_code == 1
    assert "refuses the API key" in first.stderr
    assert values(mine) == {"Tom"}
    assert invoke("--all").exit_code == 0
    assert values(mine) == {"Tom", "Perm"}
    assert invoke("one", "--all").exit_code == 2


def test_a_model_that_fails_is_exit_code_1_and_learns_nothing(mine: UserMemory, server: ChatServer) -> None:
    talk(mine, "my home city is Perm")
    server.faults.append(chat_error(401))
    result = invoke()
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert values(mine) == set()
    assert invoke().exit_code == 0
    assert values(mine) == {"Perm"}


def test_without_an_extractor_it_is_exit_code_3(mine: UserMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(mine, "my home city is Perm")
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__EXTRACTOR", "none")
    result = invoke()
    assert result.exit_code == 3
    assert "memory.long_term.extractor" in result.stderr


def test_a_review_without_a_terminal_prints_the_proposals_and_changes_nothing(mine: UserMemory) -> None:
    mine.add_knowledge(Knowledge(category="profile", key="home_city", value="Kazan"))
    session = talk(mine, "my home city is Perm")
    for arguments in (["--review"], ["--review", "--all"]):
        result = invoke(*arguments, input="y\n")
        assert result.exit_code == 1
        assert "proposed  profile/home_city" in result.stdout
        assert "would replace Kazan" in result.stdout
        assert "nothing was changed" in result.stderr
    [learned] = json.loads(invoke("--review", "--json").stdout)
    assert [item["outcome"] for item in learned["items"]] == ["proposed"]
    assert values(mine) == {"Kazan"}
    assert mine.learn(session).after == 0


def test_a_review_that_says_yes_beforehand_keeps_all(mine: UserMemory) -> None:
    talk(mine, "my home city is Perm, my cat is Tom")
    result = invoke("--review", "--yes")
    assert result.exit_code == 0
    assert values(mine) == {"Perm", "Tom"}


def test_nothing_proposed_is_nothing_to_say_yes_to(mine: UserMemory) -> None:
    talk(mine, "hello")
    result = invoke("--review")
    assert (result.exit_code, result.stdout) == (0, "")


FOUR = "my home city is Perm, my cat is Tom, my dog is Rex, my bird is Pip"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        pytest.param("y\nn\ny\nn\n", {"Perm", "Rex"}, marks=pytest.mark.long),
        ("n\na\n", {"Tom", "Rex", "Pip"}),
        pytest.param("what\nn\nn\nn\nn\n", set(), marks=pytest.mark.long),
    ],
)
def test_somebody_at_a_terminal_chooses(mine: UserMemory, server: ChatServer, typed: str, kept: set[str]) -> None:
    talk(mine, FOUR)
    seen = on_a_terminal("--review", type_in=typed)
    assert "1/4  proposed  profile/home_city" in seen
    assert "for later, about Perm" in seen
    assert "[y]es, [n]o, [a]ll of them, [q]uit" in seen
    assert values(mine) == kept
    # What was turned down is not asked about again.
    assert "nothing new" in invoke("--review").stderr
    assert len(server.requests) == 1


@pytest.mark.long
def test_who_quits_has_changed_nothing_of_that_conversation(mine: UserMemory) -> None:
    talk(mine, "my home city is Perm", name="one")
    talk(mine, "my cat is Tom, my dog is Rex", name="two")
    talk(mine, "my bird is Pip", name="three")
    seen = on_a_terminal("--review", "--all", type_in="y\ny\nq\n")
    assert "nothing of it was kept" in seen
    assert values(mine) == {"Perm"}
    assert "1 applied" in seen
    on_a_terminal("--review", "--all", type_in="a\na\n")
    assert values(mine) == {"Perm", "Tom", "Rex", "Pip"}


def test_what_is_said_cannot_steer_the_terminal(mine: UserMemory, server: ChatServer) -> None:
    talk(mine, "my home city is Perm")
    nasty = "\x1b[2J\x9b1mPerm\u202e"
    server.reply = lambda request: proposals(request).replace("Perm", json.dumps(nasty)[1:-1])
    output = invoke("--review").output
    assert "Perm" in output
    assert not any(c != "\n" and not c.isprintable() for c in output)
