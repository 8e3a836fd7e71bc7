"""After a fork the child has a memory of its own: nothing inherited is used or closed, and both lose nothing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from mirai_memory import MemoryManager

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")]

GUARD = 120.0  # seconds after which something that should have happened will not; no test waits that long

# What every script begins with. A child that fails says so by its exit code, and its traceback is in the output.
BEGINNING = """
import os, signal, sys, threading, time, traceback
from mirai_memory import *

url = sys.argv[1]
signal.alarm(100)                       # a parent that waits for ever, or a child that is left alone, ends
os.register_at_fork(after_in_child=lambda: signal.alarm(100))

def say(memory, session, content, **more):
    return memory.add_message(Message(session_id=session, role="user", content=content, **more))

def child(work, *arguments):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid

def wait(*pids):
    for pid in pids:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 0, f"a child failed with {code}"

class Baton:
    def __init__(self):
        self.out, self.into = os.pipe()
    def give(self):
        os.write(self.into, b"x")
    def take(self):
        assert os.read(self.out, 1) == b"x"

def open_files():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return [name for name in found if name.startswith(url)]
"""


def _run(script: str, url: str) -> str:
    """What the script prints."""
    code = BEGINNING + textwrap.dedent(script)
    # From 3.12 on, Python itself warns of a fork in a process with threads.
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", code, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def _contents(url: str) -> list[str]:
    """The contents of the only session's messages."""
    with MemoryManager(url) as memory:
        [session] = memory.list_sessions()
        messages = memory.get_messages(session.id, limit=10_000)
        assert [message.position for message in messages] == list(range(1, len(messages) + 1))
        assert session.message_count == len(messages)
        return [message.content for message in messages]


def test_parent_and_child_go_on_with_one_memory(url: str) -> None:
    _run(
        """
        with MemoryManager(url) as memory:
            session = memory.create_session("alice").id
            say(memory, session, "before")

            def work():
                assert memory.get_messages(session)[0].content == "before"
                for number in range(20):
                    say(memory, session, f"child {number}")
                assert memory.search_messages("child", user_id="alice")
                memory.close()

            pids = [child(work) for _ in range(3)]
            for number in range(20):
                say(memory, session, f"parent {number}")
            wait(*pids)
            assert len(memory.get_messages(session, limit=1_000)) == 81
        """,
        url,
    )
    contents = _contents(url)
    assert contents[0] == "before"
    assert [text for text in contents if text.startswith("parent")] == [f"parent {n}" for n in range(20)]
    assert sorted(text for text in contents if text.startswith("child")) == sorted(
        [f"child {n}" for n in range(20)] * 3
    )


def test_what_a_child_has_written_outlives_the_parent_s_close(url: str) -> None:
    """SQLite took the parent for the last one to close the file, and removed the log that the child wrote to."""
    _run(
        """
        memory = MemoryManager(url)
        session = memory.create_session("alice").id
        closed, done, may_end = Baton(), Baton(), Baton()

        def work():
            say(memory, session, "child 0")
            closed.take()
            for number in range(1, 4):
                say(memory, session, f"child {number}")
            done.give()
            may_end.take()

        pid = child(work)
        while not memory.get_messages(session):
            time.sleep(0.001)
        memory.close()
        closed.give()
        done.take()
        look = "import sys; from mirai_memory import *; m = MemoryManager(sys.argv[1]); " \\
            "print(len(m.get_messages(m.list_sessions()[0].id)))"
        import subprocess
        seen = subprocess.run([sys.executable, "-c", look, url], capture_output=True, text=True)
        assert seen.stdout.strip() == "4", (seen.stdout, seen.stderr)
        may_end.give()
        wait(pid)
        """,
        url,
    )
    assert _contents(url) == [f"child {number}" for number in range(4)]


def test_a_fork_while_threads_write(url: str) -> None:
    printed = _run(
        """
        with MemoryManager(url) as memory:
            session = memory.create_session("alice").id
            stop = threading.Event()

            def write(name):
                number = 0
                while not stop.is_set():
                    say(memory, session, f"{name} {number}")
                    memory.get_recent_messages(session)
                    number += 1
                os.write(1, f"{name} {number}\\n".encode())

            def work(name):
                memory.search_messages("thread", user_id="alice")
                for number in range(5):
                    say(memory, session, f"{name} {number}")

            threads = [threading.Thread(target=write, args=(f"thread{n}",)) for n in range(6)]
            for thread in threads:
                thread.start()
            wait(*[child(work, f"child{n}") for n in range(6)])
            stop.set()
            for thread in threads:
                thread.join()
        """,
        url,
    )
    expected = [f"child{name} {number}" for name in range(6) for number in range(5)]
    for line in printed.splitlines():
        name, count = line.split()
        assert int(count) > 0
        expected += [f"{name} {number}" for number in range(int(count))]
    assert sorted(_contents(url)) == sorted(expected)


def test_a_child_closes_nothing_of_its_parent_s(url: str) -> None:
    """On PostgreSQL the goodbye would go out on the parent's connection."""
    _run(
        """
        import warnings
        from sqlalchemy import text
        from mirai_memory import unit_of_work

        unit_of_work._LONGEST_WAIT_TO_FORK = 0.05
        memory = MemoryManager(url)
        alice = memory.for_user("alice")
        session = alice.create_session().id
        wait(child(memory.close))                               # at once
        wait(child(lambda: (alice.list_sessions(), memory.close())))

        def server(uow):
            return uow.db.execute(text("SELECT pg_backend_pid()")).scalar()

        def end():                                              # a usual one, in which all that is left is collected
            alice.list_sessions()
            memory.close()
            warnings.simplefilter("ignore", ResourceWarning)    # of the connection that the parent's thread is at
            sys.exit(0)

        def parent(while_it_reads):
            inside, go_on, seen = threading.Event(), threading.Event(), []

            def read(uow):
                for _ in range(2):
                    seen.append(uow.db.execute(text("SELECT 1")).scalar())
                    inside.set()
                    assert not while_it_reads or go_on.wait(60)

            thread = threading.Thread(target=memory.run, args=(read,))
            thread.start()
            inside.wait()
            idle = memory.run(server) if while_it_reads else None
            pid = os.fork()
            if pid == 0:
                end()
            wait(pid)
            assert not while_it_reads or memory.run(server) == idle, "a connection had to be replaced"
            go_on.set()
            thread.join()
            assert seen == [1, 1]

        parent(while_it_reads=False)
        if "postgresql" in url:                                 # a child on SQLite would be refused
            parent(while_it_reads=True)
        say(memory, session, "still works")
        memory.close()
        """,
        url,
    )
    assert _contents(url) == ["still works"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_a_child_has_no_file_of_the_database_open(sqlite_url: str) -> None:
    _run(
        """
        with MemoryManager(url) as memory:
            session = memory.create_session("alice").id
            say(memory, session, "words")
            assert open_files()

            def work():
                assert open_files() == [], open_files()
                memory.get_session(session)
                assert open_files()

            wait(child(work))
        """,
        sqlite_url,
    )


@pytest.mark.parametrize("forker", ["another thread", "the thread that is in it"])
def test_a_child_of_a_fork_in_the_middle_of_a_unit_of_work_is_refused(sqlite_url: str, forker: str) -> None:
    """What SQLite believes of the file's locks there is not true, for new connections too."""
    _run(
        f"""
        from mirai_memory import unit_of_work
        unit_of_work._LONGEST_WAIT_TO_FORK = 0.05
        memory = MemoryManager(url)
        session = memory.create_session("alice").id

        def work():
            for call in (lambda: say(memory, session, "child"), memory.list_sessions, lambda: MemoryManager(url)):
                try:
                    call()
                except StorageError as error:
                    assert "forked" in str(error), error
                else:
                    raise AssertionError("was not refused")
            with MemoryManager(url + ".other") as other:        # another file is another matter
                other.create_session("alice")

        if {forker!r} == "another thread":
            inside, go_on = threading.Event(), threading.Event()

            def stay(uow):
                inside.set()
                go_on.wait()
                uow.messages.add(Message(session_id=session, role="user", content="parent"))

            thread = threading.Thread(target=memory.run, args=(stay,))
            thread.start()
            inside.wait()
            wait(child(work))
            go_on.set()
            thread.join()
        else:
            with memory.unit_of_work() as uow:
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        threads = threading.Thread(target=lambda: (work(), os._exit(0)))
                        threads.start()
                        threads.join()
                    finally:
                        os._exit(code)
                wait(pid)
                uow.messages.add(Message(session_id=session, role="user", content="parent"))
        say(memory, session, "parent")
        memory.close()
        """,
        sqlite_url,
    )
    assert _contents(sqlite_url) == ["parent", "parent"]


def test_a_fork_of_a_fork(url: str) -> None:
    _run(
        """
        with MemoryManager(url) as memory:
            session = memory.create_session("alice").id

            def work(depth):
                say(memory, session, f"depth {depth}")
                if depth < 4:
                    wait(child(work, depth + 1))
                say(memory, session, f"depth {depth}")

            work(0)
        """,
        url,
    )
    down = [f"depth {number}" for number in range(5)]
    assert _contents(url) == down + down[::-1]


def test_an_in_memory_database_is_the_child_s_own_copy() -> None:
    _run(
        """
        memory = MemoryManager(url)
        session = memory.create_session("alice").id
        stop = threading.Event()

        def write():
            while not stop.is_set():
                say(memory, session, "parent")

        thread = threading.Thread(target=write)
        thread.start()

        def work():
            before = len(memory.get_messages(session, limit=100_000))
            say(memory, session, "child")
            assert len(memory.get_messages(session, limit=100_000)) == before + 1

        for _ in range(5):
            wait(child(work))
        stop.set()
        thread.join()
        assert {message.content for message in memory.get_messages(session, limit=100_000)} <= {"parent"}
        """,
        ":memory:",
    )


def test_the_process_s_one_memory_is_the_process_s_own(url: str) -> None:
    _run(
        """
        memory = get_memory_manager(url)
        assert get_memory_manager(url) is memory

        def work():
            own = get_memory_manager(url)
            assert own is not memory
            own.create_session("child")
            own.close()

        wait(child(work))
        assert get_memory_manager(url) is memory
        assert len(memory.list_sessions()) == 1
        memory.close()
        """,
        url,
    )


def test_the_background_worker_is_the_process_s_own(url: str) -> None:
    _run(
        """
        from mirai_memory.testing import FakeEmbedder

        embedder = FakeEmbedder()
        with MemoryManager(url, embedder=embedder) as memory:
            session = memory.create_session("alice").id

            def pending():
                return memory.run(lambda uow: uow.vectors.count("pending"))

            def is_made(content):
                say(memory, session, content)
                deadline = time.monotonic() + 60
                while pending():
                    assert time.monotonic() < deadline, "nobody makes the vector"
                    time.sleep(0.01)
                assert content in embedder.texts[-1]
                assert "mirai-memory-vectors" in {thread.name for thread in threading.enumerate()}

            is_made("parent 1")                                 # its thread lingers, and the child has none of it
            wait(child(is_made, "child"))
            is_made("parent 2")
            assert not any("child" in text for text in embedder.texts)
        """,
        url,
    )


def test_an_async_memory_has_threads_of_the_process_s_own(url: str) -> None:
    _run(
        """
        import asyncio
        memory = AsyncMemoryManager(url)

        async def use(name):
            await asyncio.gather(*[memory.for_user(name).create_session() for _ in range(20)])

        async def main():
            await use("parent")
            pid = child(lambda: asyncio.run(both("child")))     # while the parent's loop runs
            await use("parent")
            await asyncio.to_thread(wait, pid)
            pid = child(lambda: asyncio.run(memory.close()))
            await asyncio.to_thread(wait, pid)
            await use("parent")

        async def both(name):
            await use(name)
            await memory.close()

        asyncio.run(main())
        assert len(asyncio.run(memory.list_sessions("child"))) == 20
        assert len(asyncio.run(memory.list_sessions("parent"))) == 60
        asyncio.run(memory.close())

        async def closed():
            try:
                await memory.list_sessions()
            except StorageError as error:
                assert "closed" in str(error)
            else:
                raise AssertionError("was not refused")

        wait(child(lambda: asyncio.run(closed())))
        """,
        url,
    )


def test_a_pool_of_forked_workers(url: str) -> None:
    _run(
        """
        import multiprocessing
        memory = MemoryManager(url)
        session = memory.create_session("alice").id

        def work(number):
            id = say(memory, session, f"job {number}", client_id=f"{number}")
            assert memory.get_message(id).content == f"job {number}"
            return id

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(4) as pool:
                ids = pool.map(work, range(40))
                pool.close()
                pool.join()
            assert sorted(ids) == [message.id for message in memory.get_messages(session)]
        memory.close()
        """,
        url,
    )
    assert sorted(_contents(url)) == sorted(f"job {number}" for number in range(40))
