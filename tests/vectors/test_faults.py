"""Killed between the text and its vector: the text is there, and the vector is made by whoever comes next."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from mirai_memory import MemoryManager, load_settings
from mirai_memory.testing import FakeEmbedder

BEGIN = """
import sys, time
from mirai_memory import Knowledge, MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder

class Reporting(FakeEmbedder):
    def embed_documents(self, texts):
        print("embedding", flush=True)
        return super().embed_documents(texts)

embedder = Reporting()
embedder.hang()
settings = load_settings(memory={"rag": {"background": sys.argv[2] == "background"}})
memory = MemoryManager(sys.argv[1], embedder=embedder, settings=settings)
"""
MESSAGE = """
session = memory.create_session("alice").id
memory.add_message(Message(session_id=session, role="user", content="green tea"))
print("stored", flush=True)
"""
FACT = """
memory.add_knowledge(Knowledge(user_id="alice", value="a tower"))
"""
WAIT = """
time.sleep(60)
"""


def _killed(url: str, script: str, *until: str, background: bool = False) -> None:
    """Run the script, and kill it as soon as it has said these words."""
    mode = "background" if background else "-"
    command = [sys.executable, "-c", BEGIN + script + WAIT, url, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert {process.stdout.readline().strip() for _ in until} == set(until)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def _opened(url: str, embedder: FakeEmbedder) -> MemoryManager:
    return MemoryManager(
        url,
        embedder=embedder,
        settings=load_settings(memory={"rag": {"background": False, "search_budget_ms": 60_000}}),
    )


def _dense(memory: MemoryManager, query: str) -> list[str]:
    found = memory.search_messages(query, user_id="alice", explain=True)
    return [message.content for message in found if "dense" in (message.explanation or {})]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
@pytest.mark.parametrize("background", [False, True])
def test_killed_between_a_message_and_its_vector(url: str, vectors: Any, background: bool) -> None:
    _killed(url, MESSAGE, *(["stored", "embedding"] if background else ["stored"]), background=background)
    embedder = FakeEmbedder()
    with _opened(url, embedder) as memory:
        assert vectors(memory) == {"pending": 1}
        assert memory.reindex() == 1
        assert embedder.texts == ["green tea"]
        assert _dense(memory, "tea") == ["green tea"]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
def test_killed_between_a_message_and_its_vector_and_then_searched(url: str) -> None:
    """Nobody has to know that something is missing."""
    _killed(url, MESSAGE, "stored")
    with _opened(url, FakeEmbedder()) as memory:
        assert _dense(memory, "tea") == ["green tea"]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
def test_killed_while_a_fact_is_embedded(url: str, vectors: Any) -> None:
    """``add_knowledge`` had not returned: there is neither the fact nor anything of it."""
    _killed(url, FACT, "embedding")
    with _opened(url, FakeEmbedder()) as memory:
        assert memory.get_knowledge(user_id="alice") == []
        assert vectors(memory) == {}
        assert memory.reindex() == 0


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
def test_killed_in_a_reindex(url: str, vectors: Any) -> None:
    _killed(url, MESSAGE + "memory.reindex()", "stored", "embedding")
    with _opened(url, FakeEmbedder()) as memory:
        assert vectors(memory) == {"pending": 1}
        assert memory.reindex() == 1
