"""Two processes on one memory: what one has committed is in the other's next search, and what is gone is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mirai_memory import Knowledge, MemoryManager, load_settings
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import new_session, say

pytestmark = pytest.mark.long

SCRIPT = """
import json, sys
from mirai_memory import Knowledge, MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

clock = FrozenClock()
settings = load_settings(memory={"rag": {"search_budget_ms": 60_000}})
read_only = sys.argv[2] == "read-only"
with MemoryManager(sys.argv[1], embedder=FakeEmbedder(), settings=settings, clock=clock, read_only=read_only) as memory:
    def messages(query):
        found = memory.search_messages(query, user_id="alice", limit=50, explain=True)
        return {m.content: "dense" in m.explanation for m in found}

    def facts(query):
        found = memory.search_knowledge(query, 50, user_id="alice", explain=True)
        return {k.value: "dense" in k.explanation for k in found}

    calls = {
        "say": lambda session, text: memory.add_message(Message(session_id=session, role="user", content=text)),
        "know": lambda key, value: memory.add_knowledge(Knowledge(user_id="alice", key=key, value=value)),
        "delete": memory.delete_message,
        "forget": lambda key: memory.delete_knowledge(key=key, user_id="alice"),
        "advance": lambda hours: bool(clock.advance(hours=hours)),
        "messages": messages,
        "facts": facts,
    }
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(calls[name](*arguments)), flush=True)
"""


class Other:
    """Another process."""

    def __init__(self, url: str, mode: str = "-") -> None:
        command = [sys.executable, "-c", SCRIPT, url, mode]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *call: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def memory(url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    settings = load_settings(memory={"rag": {"search_budget_ms": 60_000}})
    with MemoryManager(url, embedder=FakeEmbedder(), settings=settings, clock=clock) as memory:
        yield memory


@pytest.fixture
def other(url: str, memory: MemoryManager) -> Iterator[Other]:
    other = Other(url)
    yield other
    other.close()


def _messages(memory: MemoryManager, query: str) -> dict[str, bool]:
    """What is found, and whether by its meaning too."""
    found = memory.search_messages(query, user_id="alice", limit=50, explain=True)
    return {message.content: "dense" in (message.explanation or {}) for message in found}


def _facts(memory: MemoryManager, query: str) -> dict[str, bool]:
    found = memory.search_knowledge(query, 50, user_id="alice", explain=True)
    return {fact.value: "dense" in (fact.explanation or {}) for fact in found}


def test_each_sees_the_other_s_messages_in_its_next_search(memory: MemoryManager, other: Other) -> None:
    session, away = new_session(memory), new_session(memory)
    say(memory, away, "a tower")
    for number in range(4):
        say(memory, session, f"mine {number}")
        assert other("messages", f"mine {number}")[f"mine {number}"] is True
        id = other("say", session, f"theirs {number}")
        assert _messages(memory, f"theirs {number}")[f"theirs {number}"] is True
        if number % 2:
            memory.delete_message(id)
            assert f"theirs {number}" not in other("messages", f"theirs {number}")
            assert f"theirs {number}" not in _messages(memory, f"theirs {number}")
    assert other("messages", "mine theirs") == _messages(memory, "mine theirs")


def test_what_one_supersedes_or_deletes_the_other_finds_no_more(memory: MemoryManager, other: Other) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", key="a", value="a tower"))
    other("know", "drink", "green tea")
    assert _facts(memory, "tea")["green tea"] is True
    memory.add_knowledge(Knowledge(user_id="alice", key="drink", value="hot coffee"))
    assert "green tea" not in other("facts", "green tea")
    assert other("facts", "coffee")["hot coffee"] is True
    other("forget", "drink")
    assert "hot coffee" not in _facts(memory, "hot coffee")
    assert set(_facts(memory, "?!")) == {"a tower"}


def test_what_expires_is_found_by_neither(memory: MemoryManager, other: Other, clock: FrozenClock) -> None:
    until = clock.advance(hours=1)
    clock.advance(hours=-1)
    memory.add_knowledge(Knowledge(user_id="alice", value="green tea", expires_at=until))
    memory.add_knowledge(Knowledge(user_id="alice", value="a tower"))
    assert set(other("facts", "tea")) == {"green tea", "a tower"}
    other("advance", 2)
    clock.advance(hours=2)
    assert set(other("facts", "green tea")) == set(_facts(memory, "green tea")) == {"a tower"}


def test_whoever_only_reads_sees_the_other_s_vectors_too(url: str) -> None:
    with MemoryManager(url, embedder=FakeEmbedder()) as memory:
        session = new_session(memory)
        say(memory, session, "green tea", "a tower")
        memory.reindex()
        reader = Other(url, "read-only")
        try:
            assert reader("messages", "tea")["green tea"] is True
            [id] = say(memory, session, "black tea")
            memory.reindex()
            assert reader("messages", "black tea")["black tea"] is True
            memory.delete_message(id)
            assert "black tea" not in reader("messages", "black tea")
        finally:
            reader.close()
