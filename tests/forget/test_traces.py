"""``verify_forgotten`` finds what is there, in files and in rows, and does no harm by looking."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mirai_memory import InvalidInput, MemoryManager, Message, _byte_search, load_settings

WORD = "zebrafinch"
OTHER_PROCESS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def say(memory: MemoryManager, owner: str, text: str) -> None:
    memory.add_message(Message(session_id=memory.create_session(owner).id, role="user", content=text))


def test_what_is_there_is_found(memory: MemoryManager) -> None:
    say(memory, "alice", f"the {WORD} sings")
    traces = memory.verify_forgotten("alice", [WORD])
    assert not traces.ok
    assert any(trace.words for trace in traces.found)
    assert any(trace.user_id for trace in traces.found)
    assert WORD not in repr(traces)
    assert memory.verify_forgotten("nobody", ["albatross"]).ok


def test_the_forms_of_the_index_are_looked_for(memory: MemoryManager) -> None:
    say(memory, "alice", "Zebrafinches sing")
    found = {trace.place.rpartition(".")[2] for trace in memory.verify_forgotten("nobody", ["ZEBRAFINCHES"]).found}
    assert found


def test_a_log_is_searched_and_its_rotated_files(url: str, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "app.log"
    log.parent.mkdir()
    settings = load_settings(monitoring={"logs": {"path": str(log)}})
    with MemoryManager(url, settings=settings) as memory:
        log.write_text("nothing\n")
        assert memory.verify_forgotten("alice", [WORD]).ok
        log.with_name("app.log.1").write_text(f"a host's own line about {WORD}\n")
        traces = memory.verify_forgotten("alice", [WORD])
        assert [(trace.place, trace.words) for trace in traces.found] == [("app.log.1", 1)]


@pytest.mark.parametrize("words", ["zebra", [""], [1], [" "]])
def test_words_that_are_none(memory: MemoryManager, words: list[str]) -> None:
    with pytest.raises(InvalidInput, match="words"):
        memory.verify_forgotten("alice", words)


def test_looking_drops_no_lock(sqlite_memory: MemoryManager, sqlite_url: str) -> None:
    """Had this process opened and closed the file itself, its write lock would be gone, and another could write."""
    ready, done = threading.Event(), threading.Event()

    def write() -> None:
        with sqlite_memory.unit_of_work() as uow:
            uow.sessions.create("alice")
            ready.set()
            done.wait(60)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert ready.wait(60)
        sqlite_memory.verify_forgotten("alice", [WORD])
        command = [sys.executable, "-c", OTHER_PROCESS, sqlite_url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        done.set()
        writing.join()
    assert "locked" in said
    assert len(sqlite_memory.list_sessions("alice")) == 1


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_every_occurrence_is_counted_once_wherever_blocks_end(tmp_path: Path, block: int) -> None:
    content = b"abcabcab" * 5 + os.urandom(3) + b"needle" * 3
    file = tmp_path / "file"
    file.write_bytes(content)
    needles = [b"abc", b"needle", b"b", b"missing"]
    assert _byte_search.counts(str(file), needles, block) == [content.count(needle) for needle in needles]
    assert _byte_search.counts(str(tmp_path / "absent"), needles) is None
