"""``mirai-memory summarize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_error
from cli_runner import CliRunner, Result

from mirai_memory import MemoryManager, load_settings
from mirai_memory.cli.app import app
from mirai_memory.testing.contract.making import say

DB = "memory.db"


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(tmp_path_factory.mktemp("logs") / "mirai.log"))
    monkeypatch.setenv("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES", "4")


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["summarize", *arguments, "--db", DB])


def _answer(*arguments: str) -> Any:
    result = _invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def sessions() -> list[str]:
    """Two long conversations of the user "default", a short one of theirs, and one of somebody else's."""
    with MemoryManager(DB, settings=load_settings()) as memory:
        ids = [memory.ensure_session(user, name).id for user, name in (
            ("default", "trip"), ("default", "work"), ("default", "short"), ("bob", "trip"))]  # fmt: skip
        for id, count in zip(ids, (10, 12, 3, 10), strict=True):
            say(memory, id, *(f"On day {number} we sold {number} green boats in Kazan." for number in range(count)))
        memory.update_session_activity(ids[1])
    return ids


def _told(session_id: str) -> int | None:
    with MemoryManager(DB) as memory:
        found = memory.get_session(session_id)
        return found and found.summarized_through


def test_one_by_its_id_or_by_your_own_name(sessions: list[str]) -> None:
    [done] = _answer(sessions[0])
    assert done["session_id"] == sessions[0]
    assert done["summarized_through"] == 6
    assert done["summary_method"] == "extractive"
    assert "boats" in done["summary"]
    assert 0 < done["summary_tokens"] <= 300
    assert done["summary_source_tokens"] > 0
    assert _answer("trip") == [done]
    assert _told(sessions[1]) is None


def test_the_latest_where_none_is_named(sessions: list[str]) -> None:
    with MemoryManager(DB) as memory:
        [latest, *_] = memory.for_user("default").get_active_sessions(1e6)
    assert _answer()[0]["session_id"] == latest.id


def test_all_of_the_user_s_that_have_something_new(sessions: list[str]) -> None:
    done = _answer("--all")
    assert {item["session_id"]: item["summarized_through"] for item in done} == {sessions[0]: 6, sessions[1]: 8}
    assert _told(sessions[3]) is None
    assert _answer("--all") == []
    result = _invoke("--all")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to summarise" in result.stderr


def test_text_goes_to_stdout_and_words_about_it_to_stderr(sessions: list[str]) -> None:
    result = _invoke("trip")
    assert "boats" in result.stdout
    assert sessions[0] in result.stderr
    assert sessions[0] not in result.stdout
    short = _invoke("short")
    assert (short.exit_code, short.stdout) == (0, "")
    assert "nothing has left its window" in short.stderr


def test_what_is_not_there(sessions: list[str]) -> None:
    assert _invoke("nobody").exit_code == 1
    assert _invoke(sessions[3]).exit_code == 1
    assert _invoke("trip", "--all").exit_code == 2
    assert _answer("--user", "carol") == []


def test_one_that_fails_keeps_no_other_back(
    sessions: list[str], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRAI_MEMORY__SHORT_TERM__SUMMARIZER", "openai")
    monkeypatch.setenv("MIRAI_MODELS__CHAT__BASE_URL", server.url)
    server.faults.append(chat_error(401))
    result = _invoke("--all")
    assert result.exit_code == 1
    assert "1 of 2" in result.stderr
    assert server.text in result.stdout
    server.faults.append(chat_error(401))
    failed = _invoke("trip" if _told(sessions[0]) is None else "work")
    assert failed.exit_code == 1
    assert "refuses the API key" in failed.stderr


def test_importing_summarises_nothing_by_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRAI_MEMORY__SHORT_TERM__AUTO_SUMMARIZE")
    monkeypatch.setattr("mirai_memory.summarizing._QUIET_S", 0.0)
    started: list[Any] = []
    monkeypatch.setattr("mirai_memory.background.Worker.wake", lambda worker: started.append(worker))
    (tmp_path / "chat.json").write_text(json.dumps([{"role": "user", "content": f"m{n}"} for n in range(50)]))
    result = CliRunner().invoke(app, ["import", str(tmp_path / "chat.json"), "--db", DB])
    assert result.exit_code == 0, result.stderr
    assert started == []
