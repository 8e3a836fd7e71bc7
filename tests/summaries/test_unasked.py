"""Summaries that nobody asked for: made in the background, beside the program, and in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from mirai_memory import MemoryManager, load_settings, summarizing
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.contract.making import contents, new_session, said, say

NAME = "mirai-memory-summaries"
Unasked = Callable[..., AbstractContextManager[MemoryManager]]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture
def unasked(opened: Any, monkeypatch: pytest.MonkeyPatch) -> Unasked:
    """Opens a memory that summarises by itself, at once."""
    monkeypatch.setattr(summarizing, "_QUIET_S", 0.0)

    @contextmanager
    def open_memory(**options: Any) -> Iterator[MemoryManager]:
        with opened(**{"auto_summarize": True, **options}) as memory:
            yield memory

    return open_memory


def _told(memory: MemoryManager, session: str) -> int | None:
    found = memory.get_session(session)
    return found and found.summarized_through


def _one_by_one(memory: MemoryManager, session: str) -> None:
    for number in range(8):
        memory.add_message(said(session, f"m{number}"))


def _in_a_unit_of_work(memory: MemoryManager, session: str) -> None:
    with memory.unit_of_work() as uow:
        uow.messages.add_many([said(session, f"m{number}") for number in range(8)])


WAYS: dict[str, Callable[[MemoryManager, str], Any]] = {
    "one by one": _one_by_one,
    "together": lambda memory, session: say(memory, session, *(f"m{number}" for number in range(8))),
    "unit of work": _in_a_unit_of_work,
    "run": lambda memory, session: memory.run(lambda uow: [uow.messages.add(said(session, "m")) for _ in range(8)]),
    "owner": lambda memory, session: memory.for_user("alice").add_messages([said(session, "m")] * 8),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_leaves_the_window_is_summarised(
    unasked: Unasked, summarizer: FakeSummarizer, eventually: Any, way: str
) -> None:
    with unasked() as memory:
        session = new_session(memory)
        WAYS[way](memory, session)
        eventually(lambda: _told(memory, session) == 4)
        messages = memory.get_messages(session)
        assert [text for call in summarizer.calls for text in call] == contents(messages)[:4]
        assert len(messages) == 8
    assert _threads() == []


def test_it_is_on_by_default_and_needs_no_model(url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRAI_MEMORY__SHORT_TERM__AUTO_SUMMARIZE")
    with MemoryManager(url) as memory:
        session = new_session(memory)
        say(memory, session, *(f"On day {number} Alice sold {number} green boats in Kazan." for number in range(1, 25)))
        eventually(lambda: _told(memory, session) == 12)
        made = memory.get_session(session)
        assert made is not None
        assert "boats" in (made.summary or "")
        assert made.summary_method == "extractive"
        assert (made.summary_tokens or 0) <= 300


@pytest.mark.parametrize("enabled", [True, False])
def test_in_memory_it_works_too(eventually: Any, summarizer: FakeSummarizer, enabled: bool) -> None:
    settings = load_settings(memory={"enabled": enabled, "short_term": {"auto_summarize": True}})
    with MemoryManager(":memory:", settings=settings, summarizer=summarizer) as memory:
        session = new_session(memory)
        say(memory, session, *["m"] * 24)
        eventually(lambda: _told(memory, session) == 12)


def test_nothing_is_begun_before_as_many_have_come_as_a_window_holds(
    unasked: Unasked, summarizer: FakeSummarizer
) -> None:
    with unasked() as memory:
        say(memory, new_session(memory), "m", "m", "m")
        assert _threads() == []


@pytest.mark.parametrize("why", ["switched off", "read-only"])
def test_where_there_is_no_use_for_it_it_never_starts(unasked: Unasked, why: str) -> None:
    with unasked() as memory:
        session = new_session(memory)
    with unasked(auto_summarize=why != "switched off", read_only=why == "read-only") as memory:
        if why == "switched off":
            say(memory, session, *["m"] * 50)
        else:
            memory.build_context(session)
        assert _threads() == []


def test_what_is_rolled_back_is_not_summarised(unasked: Unasked) -> None:
    with unasked() as memory:
        session = new_session(memory)

        def work(uow: Any) -> None:
            uow.messages.add_many([said(session, "m")] * 50)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            memory.run(work)
        assert _threads() == []


def _statements(auto_summarize: bool) -> list[int]:
    """How many statements each of some messages takes."""
    settings = load_settings(memory={"short_term": {"auto_summarize": auto_summarize, "max_messages": 4}})
    counts = []
    with MemoryManager(":memory:", settings=settings, summarizer=FakeSummarizer()) as memory:
        session = new_session(memory)
        for _ in range(30):
            seen: list[str] = []
            with memory.unit_of_work() as uow:
                driver: Any = uow.db.connection.driver_connection
                driver.set_trace_callback(seen.append)
                uow.messages.add(said(session, "m"))
                driver.set_trace_callback(None)
            counts.append(len(seen))
    return counts


def test_a_message_costs_no_statement_more() -> None:
    without = _statements(False)
    assert min(without) > 1
    assert _statements(True) == without


# --- a summariser that fails ------------------------------------------------------------------------------------------


def test_one_that_fails_is_complained_of_once_and_tried_again(
    unasked: Unasked, summarizer: FakeSummarizer, eventually: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarizing, "_FIRST_REST_S", 0.001)
    summarizer.fail()
    with unasked() as memory:
        session = new_session(memory)
        say(memory, session, *["m"] * 8)
        eventually(lambda: len(summarizer.calls) >= 3)
        summarizer.recover()
        eventually(lambda: _told(memory, session) == 4)
    assert len(lines) == 1
    assert "kept" in lines[0]


def test_one_that_never_works_is_left_alone_until_a_session_grows(
    unasked: Unasked, summarizer: FakeSummarizer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarizing, "_FIRST_REST_S", 0.001)
    monkeypatch.setattr("mirai_memory.background._LINGERING", 0.001)
    summarizer.fail()
    with unasked() as memory:
        session = new_session(memory)
        say(memory, session, *["m"] * 8)
        eventually(lambda: summarizer.calls and not _threads())
        tried = len(summarizer.calls)
        assert tried <= 6
        say(memory, session, *["m"] * 4)
        eventually(lambda: len(summarizer.calls) > tried)


def test_others_are_summarised_while_a_session_is_deleted(
    unasked: Unasked, summarizer: FakeSummarizer, eventually: Any, lines: list[str]
) -> None:
    with unasked() as memory:
        summarizer.hang()
        first, second = new_session(memory), new_session(memory)
        say(memory, first, *["m"] * 8)
        eventually(lambda: summarizer.calls)
        say(memory, second, *["m"] * 8)
        memory.delete_session(first)
        summarizer.release()
        eventually(lambda: _told(memory, second) == 4)
    assert lines == []


def test_close_does_not_wait_for_ever_for_one_that_hangs(
    unasked: Unasked, summarizer: FakeSummarizer, eventually: Any, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr("mirai_memory.background._LONGEST_GOODBYE", 0.01)
    with unasked() as memory:
        summarizer.hang()
        say(memory, new_session(memory), *["m"] * 8)
        eventually(lambda: summarizer.calls)
        [thread] = _threads()
    assert thread.is_alive()
    summarizer.release()
    thread.join(60)
    assert not thread.is_alive()
    assert lines == []


# --- processes --------------------------------------------------------------------------------------------------------


CHILD = """
import os, sys, time
from mirai_memory import MemoryManager, Message, load_settings, summarizing
from mirai_memory.testing import FakeSummarizer

summarizing._QUIET_S = 0.0
settings = load_settings(memory={"short_term": {"auto_summarize": True, "max_messages": 4}})
memory = MemoryManager(sys.argv[1], settings=settings, summarizer=FakeSummarizer())
session = memory.create_session("alice").id

def said(count):
    memory.add_messages([Message(session_id=session, role="user", content="m")] * count)

def told(through):
    end = time.monotonic() + 60
    while memory.get_session(session).summarized_through != through:
        assert time.monotonic() < end
        time.sleep(0.01)

said(8)
told(4)
child = os.fork()
if child == 0:
    said(4)
    told(8)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
said(4)
told(12)
memory.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_parent_and_child_have_a_thread_each(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_session_is_left_alone_while_it_grows_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(summarizing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    agenda = summarizing._Agenda()
    assert agenda.next() == (None, None)
    agenda.add(["a"])
    session_id, wait_s = agenda.next()
    assert session_id is None
    assert wait_s is not None
    assert 0 < wait_s <= 1
    grown = 0.0
    while agenda.next()[0] is None:
        agenda.add(["a"])
        now[0] += 0.1
        grown += 0.1
    assert 20 < grown < 40
    agenda.add(["b"])
    now[0] += wait_s
    assert agenda.next() == ("b", None)
    assert agenda.next() == (None, None)
