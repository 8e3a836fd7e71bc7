"""Many at once, and ``kill -9`` between any two steps: a range is learned once, and nothing of it is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chat_server import ChatRequest, ChatServer

from mirai_memory import MemoryManager, Message
from mirai_memory.testing import FakeExtractor

GUARD = 120.0  # seconds after which something that should have happened will not; no test waits that long
A_MOMENT = 0.5  # that somebody is given to do what they must not

KILLED = """
import os, signal, sys
from mirai_memory import _learning, MemoryManager
from mirai_memory.services import learning
from mirai_memory.testing import FakeExtractor

url, session, step = sys.argv[1:]

def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)

class Dying(FakeExtractor):
    longest_s = 1.0

    def extract(self, *arguments, **more):
        if step == "asked":
            die()
        return super().extract(*arguments, **more)

def killed_after(fn):
    def call(*arguments, **more):
        fn(*arguments, **more)
        die()
    return call

if step == "answered":
    _learning.Learns._with_their_vectors = die
if step == "half stored":
    learning._Book.enter = killed_after(learning._Book.enter)
if step == "stored":
    _learning.Learns._store_learned = killed_after(_learning.Learns._store_learned)

with MemoryManager(url, extractor=Dying()) as memory:
    memory.learn(session)
"""


def later() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def said(url: str) -> str:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        words = ("My home city is Perm.", "My cat is Tom. Please be brief.")
        memory.add_messages([Message(session_id=session, role="user", content=text) for text in words])
    return session


@pytest.mark.long
@pytest.mark.parametrize("step", ["asked", "answered", "half stored", "stored"])
def test_whoever_is_killed_has_learned_all_or_nothing(url: str, step: str) -> None:
    session = said(url)
    done = subprocess.run([sys.executable, "-c", KILLED, url, session, step], timeout=GUARD, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    extractor = FakeExtractor()
    with MemoryManager(url, extractor=extractor, clock=later) as memory:
        facts = {fact.value for fact in memory.get_knowledge(user_id="alice")}
        assert facts == ({"Perm", "Tom"} if step == "stored" else set())
        learned = memory.learn(session)
        assert (learned.after, learned.through, extractor.calls) == ((2, 2, 0) if step == "stored" else (0, 2, 1))
        for key, value in (("home_city", "Perm"), ("cat", "Tom")):
            [fact] = memory.knowledge_history(key, category="profile", user_id="alice")
            assert (fact.value, fact.created_at) == (value, fact.updated_at)
        likes = memory.get_user_preferences("alice")
        assert likes is not None
        assert (likes.communication_tone, likes.version) == ("brief", 1)
        assert memory.verify().ok


@pytest.mark.long
def test_a_lease_left_behind_by_a_success_is_nobodys(url: str) -> None:
    """Killed when all was stored: new messages need not wait until a lease runs out."""
    session = said(url)
    done = subprocess.run([sys.executable, "-c", KILLED, url, session, "stored"], timeout=GUARD, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    with MemoryManager(url, extractor=FakeExtractor()) as memory:
        memory.add_message(Message(session_id=session, role="user", content="My dog is Rex."))
        assert [item.outcome for item in memory.learn(session).items] == ["applied"]


class Watched(FakeExtractor):
    """Gives a second one a moment to be asked as well."""

    def __init__(self) -> None:
        super().__init__()
        self.second = threading.Event()

    def extract(self, *arguments: Any, **more: Any) -> Any:
        if self.calls:
            self.second.set()
        answer = super().extract(*arguments, **more)
        self.second.wait(A_MOMENT)
        return answer


def test_two_at_once_ask_once(url: str) -> None:
    session, extractor = said(url), Watched()
    barrier = threading.Barrier(2, timeout=GUARD)

    def learn(memory: MemoryManager) -> list[str]:
        barrier.wait()
        return [item.outcome for item in memory.learn(session).items]

    with MemoryManager(url, extractor=extractor) as one, MemoryManager(url, extractor=extractor) as other:
        with ThreadPoolExecutor(2) as pool:
            results = sorted(pool.map(learn, [one, other], timeout=GUARD))
        assert results == [[], ["applied"] * 3]
        assert extractor.calls == 1
        assert len(one.get_knowledge(user_id="alice")) == 2


LEARNER = """
import sys
from mirai_memory import MemoryManager
url, session = sys.argv[1:]
with MemoryManager(url) as memory:
    print("ready", flush=True)
    sys.stdin.readline()
    print(*(item.outcome for item in memory.learn(session).items))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    second = threading.Event()

    def reply(request: ChatRequest) -> str:
        if len(server.requests) > 1:
            second.set()
        second.wait(A_MOMENT)
        facts = [
            {"category": "c", "key": "k", "value": "v", "confidence": 1, "message_ids": [1], "reason": ""},
        ]
        return json.dumps({"facts": facts, "preferences": []})

    with ChatServer() as server:
        server.reply = reply
        monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__EXTRACTOR", "openai")
        monkeypatch.setenv("MIRAI_MODELS__CHAT__BASE_URL", server.url)
        yield server


@pytest.mark.long
def test_four_processes_at_once_ask_the_model_once(url: str, server: ChatServer) -> None:
    session = said(url)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEARNER, url, session],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = sorted(process.communicate(timeout=GUARD)[0].strip() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert printed == ["", "", "", "applied"]
    assert len(server.requests) == 1
    with MemoryManager(url) as memory:
        [fact] = memory.knowledge_history("k", category="c", user_id="alice")
        assert fact.created_at == fact.updated_at
