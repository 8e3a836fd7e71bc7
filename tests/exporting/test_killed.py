"""``kill -9`` in the middle of an import or an export: all of it is there, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from owners import exported, rows

from mirai_memory import MemoryManager, Message

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="needs POSIX")]

MESSAGES = 4_000
GUARD = 120
# Says how far it has come, from inside of the transaction, and waits to be killed where it is told to.
CODE = """
import sys, time
from mirai_memory import MemoryManager

url, file, at = sys.argv[1], sys.argv[2], int(sys.argv[3])

def progress(done, total):
    if done >= at:
        print(done, flush=True)
        time.sleep(600)

with MemoryManager(url) as memory:
    memory.import_user(file, progress=progress)
    print("done", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "alice.jsonl"
    with MemoryManager(":memory:") as memory:
        for _ in range(4):
            session = memory.create_session("alice").id
            said = [Message(session_id=session, role="user", content=f"walrus {n}") for n in range(MESSAGES // 4)]
            memory.add_messages(said)
        memory.export_user("alice", path)
    return path


def _killed(url: str, file: Path, at: int) -> str:
    """Import in a process that is killed when it has come so far; what it said."""
    command = [sys.executable, "-c", CODE, url, str(file), str(at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.wait(GUARD)
    return said


@pytest.mark.parametrize("at", [1_000, 3_000, MESSAGES + 4])
def test_nothing_of_it_is_there(url: str, file: Path, at: int) -> None:
    with MemoryManager(url) as memory:
        memory.add_messages([Message(session_id=memory.create_session("bob").id, role="user", content="x")])
        before, size = rows(memory, "bob"), memory.get_stats()["total_messages"]
    assert int(_killed(url, file, at)) >= at
    with MemoryManager(url) as memory:
        assert not any(rows(memory).values())
        assert rows(memory, "bob") == before
        assert memory.get_stats()["total_messages"] == size
        assert memory.search_messages("walrus") == []
        done = memory.import_user(file)
        assert (done.sessions_added, done.messages_added) == (4, MESSAGES)
        assert len(memory.search_messages("walrus", user_id="alice", limit=50)) == 50


def test_all_of_it_is_there(url: str, file: Path) -> None:
    assert _killed(url, file, sys.maxsize) == "done"
    with MemoryManager(url) as memory:
        assert memory.import_user(BytesIO(exported(memory))).messages_there == MESSAGES
        assert memory.import_user(file).messages_there == MESSAGES


EXPORTING = """
import os, signal, sys
from mirai_memory import MemoryManager
with MemoryManager(sys.argv[1]) as memory:
    memory.export_user("alice", sys.argv[2], progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_export_has_left_goes_with_a_later_one(url: str, tmp_path: Path) -> None:
    target = tmp_path / "there" / "alice.jsonl"
    target.parent.mkdir()
    with MemoryManager(url) as memory:
        memory.create_session("alice")
        done = subprocess.run([sys.executable, "-c", EXPORTING, url, target], check=False, timeout=GUARD)
        assert done.returncode == -signal.SIGKILL
        [left] = target.parent.iterdir()
        assert left.name != target.name
        memory.export_user("alice", target)
        assert left.exists(), "it may be another's, who is still at work"
        a_day_ago = target.stat().st_mtime - 86_401
        os.utime(left, (a_day_ago, a_day_ago))
        memory.export_user("alice", target.with_name("again.jsonl"))
        assert sorted(path.name for path in target.parent.iterdir()) == ["again.jsonl", "alice.jsonl"]
