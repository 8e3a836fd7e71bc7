"""Chroma's folder is for one process at a time; the memory is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from chroma_memories import answers, feed, fill, has, opening, pids, ready, same
from sqlalchemy import make_url

from mirai_memory import Knowledge, MemoryManager, Message, schema
from mirai_memory.search.chroma_rows import Collection

Opened = Callable[..., AbstractContextManager[MemoryManager]]

pytestmark = pytest.mark.long

HERE = str(Path(__file__).parent)
BEGINNING = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from chroma_memories import *
folder = Path(sys.argv[2])
url = str(folder / "memory.db")
"""


def _run(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGINNING + code, HERE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_eight_processes(tmp_path: Path) -> None:
    """All write and search; one of them has Chroma's folder. What each has written is found by all."""
    code = """if True:
    name = sys.argv[3] if len(sys.argv) > 3 else str(os.getpid())
    with opening(url, folder, background=True) as memory:
        for turn in range(3):
            session = memory.create_session("alice").id
            memory.add_messages([
                Message(session_id=session, role="user", content=f"word{name}x{turn}x{n} tea") for n in range(20)
            ])
            for n in range(0, 20, 5):
                word = f"word{name}x{turn}x{n}"
                [found] = memory.search_messages(word, user_id="alice", limit=1)
                assert word in found.content, (word, found.content)
    """
    opening(str(tmp_path / "memory.db"), tmp_path, store="builtin").close()
    processes = [_run(code, tmp_path) for _ in range(8)]
    for process in processes:
        _ended(process)
    with opening(str(tmp_path / "memory.db"), tmp_path, store="builtin") as memory:
        memory.reindex()
        expected = answers(memory)
        assert memory.get_stats()["total_messages"] == 8 * 60
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        ready(memory)
        assert same(answers(memory), expected)
        memory.reindex()
        assert same(answers(memory), expected)
        assert has(memory) == (480, 480)


def test_the_second_memory_does_without_and_says_so_once(tmp_path: Path, lines: list[str]) -> None:
    with opening(str(tmp_path / "memory.db"), tmp_path) as first:
        fill(first)
        expected = answers(first)
        with opening(str(tmp_path / "memory.db"), tmp_path) as second:
            for _ in range(3):
                feed(second)
                assert same(answers(second), expected)
            assert pids(second) is None
            assert "in use by another process" in str(second.health())
        assert pids(first) is not None
        assert same(answers(first), expected)
    assert sum("another process has Chroma's folder" in line for line in lines) == 1


def test_who_forgets_an_owner_is_given_the_folder(tmp_path: Path) -> None:
    with opening(str(tmp_path / "memory.db"), tmp_path) as first:
        fill(first, index=False)
        fill(first, "bob")
        expected = answers(first, "bob")
        with opening(str(tmp_path / "memory.db"), tmp_path) as second:
            receipt = second.forget_user("alice")
            assert (receipt.state, receipt.reason) == ("done", None)
            assert same(answers(second, "bob"), expected)
            assert same(answers(first, "bob"), expected)
        ready(first)
        assert has(first) == (0, 160)
        first.reindex()
        assert has(first) == (160, 160)
        assert same(answers(first, "bob"), expected)


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """if True:
    with opening(url, folder, background=True) as memory:
        print("open", flush=True)
        for turn in range(1_000):
            session = memory.create_session("alice").id
            texts = [f"tea {turn} {n}" for n in range(40)]
            memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])
            memory.search_messages("tea", user_id="alice")
    """
    for patience in (0.5, 1.5, 2.5, 4.0):
        process = _run(code, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        process.communicate()
    with opening(str(tmp_path / "memory.db"), tmp_path, store="builtin") as memory:
        memory.add_knowledge_many([Knowledge(user_id="alice", value=f"tea {n}") for n in range(5)])
        memory.search_messages("tea", user_id="alice")
        expected = answers(memory)
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        ready(memory)
        feed(memory)
        count, wanted = has(memory)
        assert count == wanted > 0
        monkeypatch.setattr("mirai_memory.search.chroma.NEAREST", 100_000)  # all, which makes it exact
        monkeypatch.setattr("mirai_memory.search.chroma.MOST", 100_000)
        assert same(answers(memory), expected)


def test_after_a_fork_both_go_on(tmp_path: Path) -> None:
    code = """if True:
    with opening(url, folder) as memory:
        fill(memory)
        expected = answers(memory)
        pid = os.fork()
        if pid == 0:
            assert same(answers(memory), expected)
            assert not memory._tools.chroma.link.is_ready
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert memory._tools.chroma.link.is_ready
        assert same(answers(memory), expected)
        assert memory._tools.chroma.link.is_ready
    """
    _ended(_run(code, tmp_path))


def test_a_parent_that_dies_takes_chroma_with_it(
    tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Although a process that it has forked lives on."""
    code = """if True:
    memory = opening(url, folder)
    fill(memory)
    pid = os.fork()
    if pid == 0:
        time.sleep(300)
    print(pids(memory), pid, flush=True)
    sys.stdin.read()
    """
    process = _run(code, tmp_path)
    assert process.stdout is not None
    chroma, child = map(int, process.stdout.readline().split())
    assert _lives(chroma)
    process.kill()
    process.wait()
    try:
        eventually(lambda: not _lives(chroma))
        assert _lives(child)
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what becomes of the rows -----------------------------------------------------------------------------------------


def test_another_model_and_another_dimension(opened: Opened) -> None:
    with opened(dim=16) as memory:
        fill(memory)
        old = answers(memory)
    with opened(dim=24) as memory:
        memory.reindex()
        new = answers(memory)
        assert has(memory) == (160, 160)
        assert not same(new, old)
    with opened(dim=24, store="builtin") as memory:
        assert same(new, answers(memory))


def test_what_is_deleted_leaves_chroma_too(opened: Opened) -> None:
    with opened() as memory:
        session = fill(memory)
        for message in memory.get_messages(session, limit=50):
            memory.delete_message(message.id or 0)
        expected = answers(memory)
        assert has(memory) == (160, 110)
        feed(memory)
        assert has(memory) == (110, 110)
        assert same(answers(memory), expected)
    with opened(store="builtin") as memory:
        assert same(answers(memory), expected)


def test_in_the_background_chroma_is_given_all(
    opened: Opened, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with opened(background=True) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"tea {n}") for n in range(150)])
        eventually(lambda: pids(memory) is not None and has(memory) == (150, 150))
        memory.add_message(Message(session_id=session, role="user", content="coffee"))
        eventually(lambda: has(memory) == (151, 151))


def test_a_copy_begins_anew(tmp_path: Path, empty_postgres_url: str) -> None:
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        fill(memory)
        expected = answers(memory)
        schema.upgrade(empty_postgres_url)
        with opening(empty_postgres_url, tmp_path / "other") as other:
            memory.copy_to(other)
            feed(other)
            assert has(other) == (160, 160)
            assert same(answers(other), expected)


def test_a_restored_file_has_no_use_for_later_vectors(tmp_path: Path) -> None:
    url = str(tmp_path / "memory.db")
    with opening(url, tmp_path) as memory:
        session = fill(memory)
        memory.backup(tmp_path / "backup.db")
        memory.add_messages([Message(session_id=session, role="user", content=f"later {n}") for n in range(20)])
        memory.reindex()
    with MemoryManager(":memory:") as other:
        other.restore_backup(tmp_path / "backup.db", url)
    assert not (tmp_path / "memory.db.chroma" / "chroma.sqlite3").exists()
    with opening(url, tmp_path) as memory:
        memory.add_messages([Message(session_id=session, role="user", content=f"zebra {n}") for n in range(20)])
        memory.search_messages("zebra", user_id="alice")
        feed(memory)
        assert has(memory) == (180, 180)
        found = answers(memory)
    with opening(url, tmp_path, store="builtin") as memory:
        assert same(found, answers(memory))


@contextmanager
def _taken_back(url: str) -> Iterator[None]:
    """In the end the database, which nobody has open then, is as it was before."""
    if "://" not in url:
        before = Path(url).read_bytes()
        yield
        Path(url).write_bytes(before)
        return
    name = make_url(url).database
    server = make_url(url).set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}_before TEMPLATE {name}".encode())
        try:
            yield
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            admin.execute(f"ALTER DATABASE {name}_before RENAME TO {name}".encode())


def test_rows_that_went_back_in_time_are_given_anew(url: str, opened: Opened) -> None:
    """As after a restore by other means, which leaves Chroma's folder where it is."""
    with opened() as memory:
        session = fill(memory)
    with _taken_back(url), opened() as memory:
        memory.add_messages([Message(session_id=session, role="user", content=f"later {n}") for n in range(20)])
        memory.reindex()
    with opened() as memory:
        ready(memory)
        found = answers(memory)
        feed(memory)
        assert has(memory) == (160, 160)
        assert same(found, answers(memory))


def test_names_tell_neither_owner_nor_model() -> None:
    name = Collection("message", 7, "alice", "a model/with: signs", 256).name("mirai-0123456789abcdef-")
    assert name == "mirai-0123456789abcdef-7-" + name.split("-")[-2] + "-256"
    assert 3 <= len(name) <= 512
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
