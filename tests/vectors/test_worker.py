"""The thread in the background: it is there when there is work, and holds nobody up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import MemoryManager, StorageError, background, vectorizing
from mirai_memory._locks import file_lock
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.contract.making import new_session, say

NAME = "mirai-memory-vectors"


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_vectors_are_made_without_anybody_asking(
    opened: Any, embedder: FakeEmbedder, vectors: Any, eventually: Any
) -> None:
    with opened(background=True) as memory:
        say(memory, new_session(memory), *(f"tea {number}" for number in range(40)))
        eventually(lambda: vectors(memory) == {"ready": 40})
        assert sorted(embedder.texts) == sorted(f"tea {number}" for number in range(40))
    assert _threads() == []


@pytest.mark.parametrize("how", ["run", "unit of work", "update", "owner"])
def test_every_way_to_store_a_text_wakes_it(opened: Any, vectors: Any, eventually: Any, how: str) -> None:
    with opened(background=True) as memory:
        session = new_session(memory)
        [id] = say(memory, session, "tea")
        eventually(lambda: vectors(memory) == {"ready": 1})
        message = memory.get_messages(session)[0]
        if how == "run":
            memory.run(lambda uow: uow.messages.add(message))
        elif how == "unit of work":
            with memory.unit_of_work() as uow:
                uow.messages.add(message)
        elif how == "owner":
            memory.for_user("alice").add_message(message)
        else:
            memory.update_message(id, "coffee")
        eventually(lambda: vectors(memory) == {"ready": 1 if how == "update" else 2})


def test_it_starts_with_the_first_text(opened: Any) -> None:
    with opened(background=True) as memory:
        session = new_session(memory)
        memory.search_messages("tea", user_id="alice")
        assert _threads() == []
        say(memory, session, "tea")
        assert len(_threads()) == 1
        say(memory, session, "more tea")
        assert len(_threads()) <= 1


def test_it_ends_when_there_is_nothing_to_do_and_comes_back(
    opened: Any, vectors: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_LINGERING", 0.01)
    with opened(background=True) as memory:
        session = new_session(memory)
        for count in (1, 2):
            say(memory, session, f"tea {count}")
            eventually(lambda: _threads() == [])
            assert vectors(memory) == {"ready": count}


@pytest.mark.parametrize("why", ["switched off", "no embedder", "read-only"])
def test_where_there_is_no_use_for_it_it_never_starts(opened: Any, why: str) -> None:
    with opened(None) as memory:
        session = new_session(memory)
    options: dict[str, Any] = {"background": why != "switched off", "read_only": why == "read-only"}
    with opened(None if why == "no embedder" else FakeEmbedder(), **options) as memory:
        if why == "read-only":
            memory.search_messages("tea", user_id="alice")
        else:
            say(memory, session, "tea")
        assert _threads() == []


def test_nobody_who_stores_a_message_waits_for_the_embedder(
    opened: Any, embedder: FakeEmbedder, vectors: Any, eventually: Any
) -> None:
    with opened(background=True) as memory:
        embedder.hang()
        session = new_session(memory)
        say(memory, session, "tea")
        eventually(lambda: embedder.calls == 1)
        say(memory, session, "coffee", "milk")  # returns, though nothing is answered
        memory.update_message(memory.get_messages(session)[0].id or 0, "water")
        assert vectors(memory) == {"pending": 3}
        embedder.release()
        eventually(lambda: vectors(memory) == {"ready": 3})


def test_one_process_at_a_time_has_it(
    sqlite_url: str, embedder: FakeEmbedder, vectors: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []

    def counted(path: Path, *, wait: float) -> AbstractContextManager[None]:
        tries.append(path)
        return file_lock(path, wait=wait)

    monkeypatch.setattr(vectorizing, "_FIRST_REST", 0.01)
    monkeypatch.setattr(vectorizing, "file_lock", counted)
    path = Path(sqlite_url)
    with MemoryManager(path, embedder=embedder) as memory:
        with file_lock(path.with_name(path.name + ".embedding.lock"), wait=0):
            say(memory, new_session(memory), "tea")
            eventually(lambda: len(tries) >= 3 or embedder.calls > 0)  # it comes back for its turn
            assert embedder.calls == 0
        eventually(lambda: vectors(memory) == {"ready": 1})


def test_a_failure_does_not_end_it(
    opened: Any,
    embedder: FakeEmbedder,
    vectors: Any,
    eventually: Any,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectorizing, "_FIRST_REST", 0.01)
    with opened(background=True) as memory:
        embedder.fail()
        say(memory, new_session(memory), "tea")
        eventually(lambda: embedder.calls >= 6)
        assert len(lines) == 1
        embedder.recover()
        eventually(lambda: vectors(memory) == {"ready": 1})


# --- the end ----------------------------------------------------------------------------------------------------------


def test_close_waits_for_the_batch_that_it_is_at(
    opened: Any, embedder: FakeEmbedder, vectors: Any, eventually: Any
) -> None:
    with opened(background=True) as memory:
        embedder.hang()
        say(memory, new_session(memory), *(f"tea {number}" for number in range(100)))
        eventually(lambda: embedder.calls == 1)
        [thread] = _threads()
        closing = threading.Thread(target=memory.close)
        closing.start()
        embedder.release()
        closing.join(60)
        assert not closing.is_alive()
        assert not thread.is_alive()
        with pytest.raises(StorageError, match="closed"):
            memory.search_messages("tea")
    with opened() as memory:
        stored = vectors(memory)
        assert stored["pending"] >= 84  # no more than the one batch was made
        assert stored["pending"] + stored.get("ready", 0) == 100
        memory.reindex()
        assert vectors(memory) == {"ready": 100}


def test_close_does_not_wait_for_ever_for_one_that_hangs(
    opened: Any,
    embedder: FakeEmbedder,
    vectors: Any,
    eventually: Any,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "_LONGEST_GOODBYE", 0.01)
    with opened(background=True) as memory:
        embedder.hang()
        say(memory, new_session(memory), "tea")
        eventually(lambda: embedder.calls == 1)
        [thread] = _threads()
    assert thread.is_alive()
    embedder.release()
    thread.join(60)
    assert not thread.is_alive()
    assert lines == []
    with opened() as memory:
        assert vectors(memory) == {"pending": 1}


SCRIPT = """
import os, sys, threading
from mirai_memory import MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder

embedder = FakeEmbedder()
embedder.hang()
settings = load_settings(memory={"rag": {"search_budget_ms": 60_000}})
memory = MemoryManager(sys.argv[1], embedder=embedder, settings=settings)
session = memory.create_session("alice").id
memory.add_message(Message(session_id=session, role="user", content="tea"))
while not embedder.calls:
    pass
"""


def _run(script: str, url: str) -> subprocess.CompletedProcess[bytes]:
    # Python 3.12 and later warn of a fork beside threads, which is what this is about.
    command = [sys.executable, "-W", "ignore", "-c", script, url]
    return subprocess.run(command, timeout=50, capture_output=True, check=False)


def test_a_process_ends_while_it_works(url: str, vectors: Any) -> None:
    ended = _run(SCRIPT, url)
    assert (ended.returncode, ended.stderr) == (0, b"")
    with MemoryManager(url, embedder=FakeEmbedder()) as memory:
        assert memory.reindex() == 1


FORKED = """
child = os.fork()
if child == 0:
    # Of the parent's threads none is here: neither the one that holds the embedder nor the one that waits for it.
    embedder.release()
    memory.add_message(Message(session_id=session, role="user", content="coffee"))
    [mine] = [thread for thread in threading.enumerate() if thread.name == "mirai-memory-vectors"]
    found = memory.search_messages("coffee", user_id="alice", explain=True)
    ok = "dense" in found[0].explanation and found[0].content == "coffee"
    memory.close()
    os._exit(0 if ok and not mine.is_alive() else 3)
_, status = os.waitpid(child, 0)
embedder.release()
assert memory.reindex() >= 0
print(os.waitstatus_to_exitcode(status), len(memory.search_messages("tea coffee", user_id="alice")))
memory.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_forked_process_has_one_of_its_own(url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT + FORKED, url],
        timeout=50,
        capture_output=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (b"0 2\n", b"")


HELD = """
import os, sys, threading
from mirai_memory import MemoryManager, Message, load_settings
from mirai_memory.search.cache import ScopeCache
from mirai_memory.testing import FakeEmbedder

settings = load_settings(memory={"rag": {"search_budget_ms": 60_000}})
memory = MemoryManager(sys.argv[1], embedder=FakeEmbedder(), settings=settings)
session = memory.create_session("alice").id
memory.add_message(Message(session_id=session, role="user", content="tea"))
memory.reindex()
inside, may_go = threading.Event(), threading.Event()
put = ScopeCache.put

def slowly(self, key, value):
    if threading.current_thread().name == "slow":
        inside.set()
        may_go.wait(40)
    put(self, key, value)

ScopeCache.put = slowly
thread = threading.Thread(target=lambda: memory.search_messages("tea", user_id="alice"), name="slow")
thread.start()
inside.wait(40)
os.register_at_fork(before=may_go.set)  # before the memory's own, which waits until nothing runs
child = os.fork()
if child == 0:
    found = memory.search_messages("tea", user_id="alice", explain=True)
    memory.close()
    os._exit(0 if "dense" in found[0].explanation else 3)
_, status = os.waitpid(child, 0)
thread.join()
print(os.waitstatus_to_exitcode(status), len(memory.search_messages("tea", user_id="alice")))
memory.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_process_may_be_forked_while_another_thread_searches(url: str) -> None:
    ended = _run(HELD, url)
    assert (ended.stdout, ended.stderr) == (b"0 1\n", b"")
