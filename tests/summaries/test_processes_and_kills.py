"""Several processes at one session, and processes that die: nothing is lost, and no range is told twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from chat_server import ChatRequest, ChatServer
from dying import settings

from mirai_memory import MemoryManager, Session
from mirai_memory.services import summaries
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, say

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="needs POSIX")]

ASKING, DYING = (Path(__file__).with_name(name) for name in ("asking.py", "dying.py"))
GUARD = 300
TOLD = [f"m{number}" for number in range(1, 7)]  # what has left the window of four
ALL = [f"m{number}" for number in range(1, 11)]


def _deaths(cases: list[dict[str, object]]) -> list[bool]:
    said = "".join(f"{json.dumps(case)}\n" for case in cases)
    done = subprocess.run(
        [sys.executable, str(DYING)], input=said, capture_output=True, text=True, timeout=GUARD, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("do", ["summarize", "trim"])
def test_killed_before_any_step_nothing_is_lost_and_each_range_is_kept_once(
    tmp_path: Path, do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LOOKED_AT", 3)
    with MemoryManager(tmp_path / "first.db") as memory:
        session = new_session(memory)
        say(memory, session, *ALL)
    cases: list[dict[str, object]] = []
    for at in range(1, 21):
        path = shutil.copy(tmp_path / "first.db", tmp_path / f"{at}.db")
        log = str(tmp_path / f"{at}.log")
        cases.append({"url": str(path), "session": session, "at": at, "log": log, "do": do})
    killed = _deaths(cases)
    assert killed == sorted(killed, reverse=True)
    assert 10 < sum(killed) < len(killed)  # steps of three ranges; the last of the cases lived
    for case in cases:
        _check_taken_up(str(case["url"]), session, Path(str(case["log"])), do)


def _check_taken_up(url: str, session: str, log: Path, do: str) -> None:
    asked = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    summarizer, clock = FakeSummarizer(), FrozenClock()
    with MemoryManager(url, settings=settings(), summarizer=summarizer, clock=clock) as memory:
        left, through = contents(memory.get_messages(session)), _get(memory, session).summarized_through or 0
        assert left == (ALL if len(left) == len(ALL) else ALL[6:])
        assert len(left) == len(ALL) or (do == "trim" and through == 6)
        clock.advance(seconds=timedelta(days=1).total_seconds())  # the lease of the dead has run out
        made = memory.summarize(session)
        assert (made.summary, made.summarized_through) == ("6 messages, the last: m6", 6)
        # What was asked before it died is asked again only where no answer could be kept.
        kept = [text for call in asked for text in call if int(text[1:]) <= through]
        assert kept == TOLD[:through]
        assert [text for call in summarizer.calls for text in call] == TOLD[through:]


def _get(memory: MemoryManager, session: str) -> Session:
    found = memory.get_session(session)
    assert found is not None
    return found


def test_of_many_processes_at_once_each_range_is_asked_for_once(url: str, server: ChatServer) -> None:
    with MemoryManager(url) as memory:
        session = new_session(memory)
        say(memory, session, *(f"m{number} " for number in range(1, 305)))

    def slow(request: ChatRequest) -> None:
        server.ending.wait(0.05)

    server.always = slow
    processes = [
        subprocess.Popen(
            [sys.executable, str(ASKING), url, session, server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=GUARD)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert answers == ["300\n"] * 3
    lines = [line for text in server.asked for line in text.splitlines() if '"text": "m' in line]
    numbers = [int(json.loads(line)["text"][1:]) for line in lines]
    assert numbers == list(range(1, 301))
    assert 3 <= len(server.requests) <= 5
