"""Chroma away, hanging, damaged or full: searches find the same, writes go on, and it is said once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from chroma_memories import answers, feed, fill, has, opening, pids, ready, same

from mirai_memory import MemoryManager, Message
from mirai_memory.search import chroma_link

pytestmark = pytest.mark.long

Answers = list[tuple[str, int, float]]


@pytest.fixture
def filled(tmp_path: Path) -> Answers:
    """What is found in a memory whose vectors Chroma has, and which is closed again."""
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        fill(memory)
        return answers(memory)


def _reopened(tmp_path: Path, **options: Any) -> MemoryManager:
    memory = opening(str(tmp_path / "memory.db"), tmp_path, **options)
    ready(memory)
    return memory


def _indexes(tmp_path: Path, name: str) -> list[Path]:
    found = sorted((tmp_path / "memory.db.chroma").glob(f"*-*/{name}"))
    assert found
    return found


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size))


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 3)


@pytest.mark.parametrize("damage", [_garbage, _cut, Path.unlink])
@pytest.mark.parametrize("name", ["data_level0.bin", "header.bin", "length.bin"])
def test_a_damaged_index_is_made_anew(
    tmp_path: Path, filled: Answers, damage: Callable[[Path], object], name: str
) -> None:
    """Some damage crashes the process that reads it, some makes it answer less, some is an error."""
    for file in _indexes(tmp_path, name):
        damage(file)
    with _reopened(tmp_path) as memory:
        assert same(answers(memory), filled)
        memory.reindex()
        assert same(answers(memory), filled)
        assert has(memory) == (160, 160)


@pytest.mark.parametrize("damage", [_garbage, _cut])
def test_a_damaged_database_of_chroma_is_made_anew(
    tmp_path: Path, filled: Answers, damage: Callable[[Path], object], lines: list[str]
) -> None:
    damage(tmp_path / "memory.db.chroma" / "chroma.sqlite3")
    with _reopened(tmp_path) as memory:
        assert any("is damaged, and is made anew" in line for line in lines)
        assert same(answers(memory), filled)
        memory.reindex()
        assert has(memory) == (160, 160)


def test_a_folder_that_is_gone(tmp_path: Path, filled: Answers) -> None:
    shutil.rmtree(tmp_path / "memory.db.chroma")
    with _reopened(tmp_path) as memory:
        assert same(answers(memory), filled)
    with _reopened(tmp_path) as memory:
        shutil.rmtree(tmp_path / "memory.db.chroma")  # under its hands
        assert same(answers(memory), filled)
        memory.reindex()
        assert same(answers(memory), filled)


def test_strangers_files_in_the_folder_stay(tmp_path: Path, filled: Answers) -> None:
    stranger = tmp_path / "memory.db.chroma" / "notes" / "mine.txt"
    stranger.parent.mkdir()
    stranger.write_text("mine")
    (tmp_path / "memory.db.chroma" / "chroma.sqlite3").write_bytes(b"nonsense" * 1_000)
    with _reopened(tmp_path) as memory:
        memory.forget_user("alice")
    assert stranger.read_text() == "mine"


def test_a_process_of_chroma_that_dies(
    tmp_path: Path, filled: Answers, lines: list[str], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with _reopened(tmp_path) as memory:
        for _ in range(2):
            pid = pids(memory)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert same(answers(memory), filled)
            assert same(answers(memory), filled)
            ready(memory)
        assert same(answers(memory), filled)
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert len(warnings) == 2  # once each time
    assert sum(line.startswith("INFO Chroma") and "works again" in line for line in lines) == 2


def test_a_process_of_chroma_that_hangs(
    tmp_path: Path, filled: Answers, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirai_memory.search.chroma.SEARCH_S", 0.3)
    with _reopened(tmp_path) as memory:
        pid = pids(memory)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert same(answers(memory), filled)
        assert pids(memory) is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert sum("is not available: no answer within 0.3 s" in line for line in lines) == 1


def test_a_full_disk(tmp_path: Path, filled: Answers, lines: list[str]) -> None:
    with _reopened(tmp_path) as memory:
        pid = pids(memory)
        assert pid is not None
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4_096, 4_096))  # no file of its grows any more
        session = fill(memory, "bob", index=False)
        memory.add_message(Message(session_id=session, role="user", content="zebra"))
        assert memory.search_messages("zebra", user_id="bob", limit=1)[0].content == "zebra"
        feed(memory)
        assert same(answers(memory), filled)
    assert sum(line.startswith("WARNING vectors are not given to Chroma for now") for line in lines) == 1
    with _reopened(tmp_path) as memory:
        memory.reindex()
        assert has(memory) == (321, 321)
        assert same(answers(memory), filled)


def test_a_place_that_is_no_folder(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "memory.db.chroma").write_text("in the way")
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        fill(memory)
        assert answers(memory)
        assert memory.health().ok
        check = next(check for check in memory.health().checks if check.name == "vectors")
        assert check.status == "ok"  # nothing has ever been given to it
        assert memory.forget_user("alice").state == "done"
    assert (tmp_path / "memory.db.chroma").read_text() == "in the way"
    assert sum(line.startswith("WARNING Chroma at") for line in lines) == 1


# --- a server ---------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Server:
    """Chroma's own server, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.parent,
        )
        for _ in range(600):
            with suppress(OSError), urlopen(f"{self.url}/api/v2/heartbeat", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_a_server_of_chroma(tmp_path: Path, server: Server, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_link, "_FIRST_REST", 0.0)
    with opening(str(tmp_path / "memory.db"), tmp_path, store="builtin") as memory:
        fill(memory)
        fill(memory, "bob")
        expected = answers(memory)
    with opening(str(tmp_path / "memory.db"), tmp_path, chroma={"url": server.url}) as memory:
        memory.reindex()
        assert has(memory) == (320, 320)
        assert same(answers(memory), expected)
        server.stop()
        assert same(answers(memory), expected)
        memory.add_message(Message(session_id=memory.list_sessions("bob")[0].id, role="user", content="zebra"))
        assert memory.search_messages("zebra", user_id="bob", limit=1)[0].content == "zebra"
        receipt = memory.forget_user("bob")
        assert receipt.state == "pending"
        assert "Chroma" in str(receipt.reason)
        server.start()
        receipt = memory.forget_user("bob")
        assert (receipt.state, receipt.reason) == ("done", None)
        assert "Chroma" in str(receipt.note)
        assert has(memory) == (160, 160)
        assert same(answers(memory), expected)
    assert not (tmp_path / "memory.db.chroma").exists()


def test_two_memories_at_one_server(tmp_path: Path, server: Server) -> None:
    """A file that was copied says that it is the same memory, and goes on differently."""
    with opening(str(tmp_path / "one.db"), tmp_path, chroma={"url": server.url}) as one:
        fill(one)
    shutil.copy(tmp_path / "one.db", tmp_path / "two.db")
    with (
        opening(str(tmp_path / "one.db"), tmp_path, chroma={"url": server.url}) as one,
        opening(str(tmp_path / "two.db"), tmp_path, chroma={"url": server.url}) as two,
    ):
        expected = answers(one)
        two.forget_user("alice")
        fill(two, "carol")
        one.reindex()
        assert has(one) == (160, 160)
        assert has(two) == (160, 160)
        assert same(answers(one), expected)
        assert answers(two, "carol")
