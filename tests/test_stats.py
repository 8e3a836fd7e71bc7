"""Counts are exact, until a server has so many rows that it reckons them, and then they say so."""

from __future__ import annotations

import pytest
from cli_runner import CliRunner
from server_side import ask

from mirai_memory import Knowledge, MemoryManager, Message, Task
from mirai_memory.cli.app import app
from mirai_memory.services import maintenance

TOTALS = {"total_sessions": 7, "total_messages": 21, "total_tasks": 5, "total_knowledge": 6}


def fill(memory: MemoryManager) -> None:
    for number in range(7):
        session = memory.create_session(f"owner {number}").id
        memory.add_messages([Message(session_id=session, role="user", content=f"words {n}") for n in range(3)])
        if number < 5:
            memory.add_task(Task(description="brew", session_id=session))
    for number in range(6):
        memory.add_knowledge(Knowledge(key=str(number), value="old"))
        memory.add_knowledge(Knowledge(key=str(number), value="new"))


def totals(memory: MemoryManager) -> dict[str, int]:
    return {name: value for name, value in memory.get_stats().items() if name.startswith("total_")}


def test_small_numbers_are_counted(memory: MemoryManager, url: str) -> None:
    fill(memory)
    if url.startswith("postgresql"):
        ask(url, "ANALYZE")
    assert totals(memory) == TOTALS
    assert memory.get_stats()["estimated"] == []


def test_large_ones_are_reckoned_and_say_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryManager(postgres_url) as memory:
        fill(memory)
        monkeypatch.setattr(maintenance, "EXACT_BELOW", 6)
        assert (totals(memory), memory.get_stats()["estimated"]) == (TOTALS, []), "nothing was analysed yet"
        ask(postgres_url, "ANALYZE")
        # Deleted since, and the pages are there: what is reckoned is what was when it was analysed.
        for session in memory.list_sessions()[:2]:
            memory.delete_session(session.id)
        assert totals(memory) == {**TOTALS, "total_tasks": 3}
        assert memory.get_stats()["estimated"] == ["total_sessions", "total_messages", "total_knowledge"]
        assert memory.get_stats()["active_sessions_24h"] == 5
    shown = CliRunner().invoke(app, ["stats", "--db", postgres_url]).stdout.splitlines()
    assert ["total_messages", "about", "21"] in [line.split() for line in shown]
    assert ["total_tasks", "3"] in [line.split() for line in shown]


def test_what_has_grown_since_is_reckoned_by_its_size(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryManager(postgres_url) as memory:
        session = memory.create_session("alice").id
        said = [Message(session_id=session, role="user", content=f"{'words ' * 20}{n}") for n in range(500)]
        memory.add_messages(said)
        ask(postgres_url, "ANALYZE")
        monkeypatch.setattr(maintenance, "EXACT_BELOW", 400)
        assert totals(memory)["total_messages"] == 500
        for _ in range(3):
            memory.add_messages(said)
        assert 1_500 < totals(memory)["total_messages"] < 2_500  # whole pages are reckoned with
        assert memory.get_stats()["estimated"] == ["total_messages"]
