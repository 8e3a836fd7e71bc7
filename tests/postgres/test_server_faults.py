"""What goes wrong with a server: it is told in our errors, costs nothing that was stored, and ends when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from own_server import OwnServer, own_server
from server_side import GUARD, ask, conninfo, database_of, set_for_database, until
from sqlalchemy import make_url

from mirai_memory import Busy, MemoryManager, Message, ReadOnly, StorageError, StorageFull

WRITER = Path(__file__).with_name("many_writers.py")
THREADS = 8
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def url(server: OwnServer) -> str:
    return server.database()


def _say(session: str, content: str, client_id: str | None = None) -> Message:
    return Message(session_id=session, role="user", content=content, client_id=client_id)


class Writers:
    """Threads that append, and say what nobody has acknowledged once more, under the same ``client_id``."""

    def __init__(self, memory: MemoryManager) -> None:
        self._memory, self._done = memory, threading.Event()
        self.sessions = [memory.create_session(f"owner{number}").id for number in range(2)]
        self.acknowledged: dict[str, int] = {}
        self.errors: Counter[str] = Counter()

    def _write(self, thread: int) -> None:
        number = 0
        while not self._done.is_set():
            name = f"thread {thread} number {number}"
            try:
                id = self._memory.add_message(_say(self.sessions[thread % 2], name, client_id=name))
            except (StorageError, Busy) as error:
                self.errors[type(error).__name__] += 1
                time.sleep(0.01)  # not for timing: a server that starts has better things to do
            else:
                self.acknowledged[name] = id
                number += 1

    def __enter__(self) -> Writers:
        self._pool = ThreadPoolExecutor(THREADS)
        self._working = [self._pool.submit(self._write, thread) for thread in range(THREADS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._pool.shutdown()
        for working in self._working:
            working.result(0)

    def go_on(self, count: int = 60) -> None:
        """Until so many more messages are stored."""
        wanted = len(self.acknowledged) + count
        until(lambda: len(self.acknowledged) >= wanted or any(working.done() for working in self._working))


def _end_connections(server: OwnServer, url: str) -> None:
    ask(url, f"SELECT pg_terminate_backend(pid) {OTHERS}")


def _kill_one(server: OwnServer, url: str) -> None:
    """The server ends all connections then, and reads its log to be sure of its memory."""
    [(pid,), *_] = ask(url, f"SELECT pid {OTHERS}")
    os.kill(pid, signal.SIGKILL)


def _restart(mode: str) -> Callable[[OwnServer, str], None]:
    def harm(server: OwnServer, url: str) -> None:
        server.down(mode)
        server.up()

    return harm


HARMS = {
    "stopped in order": _restart("fast"),
    "stopped at once": _restart("immediate"),
    "connections ended": _end_connections,
    "one of its processes killed": _kill_one,
}


@pytest.mark.parametrize("harm", HARMS)
def test_in_mid_write(server: OwnServer, url: str, harm: str) -> None:
    with MemoryManager(url) as memory:
        with Writers(memory) as writers:
            for _ in range(3):
                writers.go_on()
                HARMS[harm](server, url)
            writers.go_on()
        assert writers.errors, "nobody noticed"
        stored = [message for id in writers.sessions for message in memory.get_messages(id, limit=10_000)]
        found = {message.content: message.id for message in stored}
        assert writers.acknowledged.items() <= found.items(), "what was acknowledged is lost"
        assert len(found) == len(stored), "stored twice"
        assert memory.verify().ok


def test_a_server_that_is_not_there_at_first(server: OwnServer, url: str) -> None:
    server.down("fast")
    try:
        with pytest.raises(StorageError, match="cannot be reached"):
            MemoryManager(url)
    finally:
        server.up()
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        server.down("fast")
        try:
            for _ in range(3):
                with pytest.raises(StorageError, match="cannot be reached"):
                    memory.get_messages(session)
        finally:
            server.up()
        memory.add_message(_say(session, "after"))
        assert [message.content for message in memory.get_messages(session)] == ["after"]


def test_a_password_that_is_wrong(url: str) -> None:
    [(rules,)] = ask(url, "SHOW hba_file")

    def write(*lines: str) -> None:
        ask(url, f"COPY (SELECT unnest(ARRAY{list(lines)})) TO '{rules}'")
        ask(url, "SELECT pg_reload_conf()")

    ask(url, "CREATE ROLE app LOGIN SUPERUSER PASSWORD 'right'")
    given = make_url(url).set(username="app")
    write("local all app scram-sha-256", "local all all trust")
    try:
        until(lambda: _refused(given.render_as_string()))
        for password in ("wrong", None):
            with pytest.raises(StorageError, match="the server refused the password"):
                MemoryManager(given.set(password=password))
        with MemoryManager(given.set(password="right")) as memory:
            memory.create_session("alice")
    finally:
        write("local all all trust")
        until(lambda: not _refused(given.render_as_string()))
        ask(url, "DROP ROLE app")


def _refused(url: str) -> bool:
    try:
        ask(url, "SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_a_database_that_is_not_there(server: OwnServer) -> None:
    with pytest.raises(StorageError, match="does not exist on this server"):
        MemoryManager(make_url(server.url).set(database="nowhere"))


def test_no_connection_to_spare(server: OwnServer, url: str) -> None:
    """Others have all of them: it is said so, and is over as soon as they are gone."""
    with ExitStack() as others, MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        others.callback(_end_connections, server, server.url)
        _take_all_connections(server, others)
        with pytest.raises(Busy, match="no connection to spare"):
            MemoryManager(url)
        with memory.unit_of_work() as uow, ThreadPoolExecutor(1) as pool:  # on the one that it has
            uow.messages.add(_say(session, "first"))
            with pytest.raises(Busy, match="no connection to spare"):
                pool.submit(memory.get_messages, session).result(GUARD)
        others.pop_all().close()
        memory.add_message(_say(session, "second"))
        assert [message.content for message in memory.get_messages(session)] == ["first", "second"]


def _take_all_connections(server: OwnServer, others: ExitStack) -> None:
    while True:
        try:
            others.enter_context(psycopg.connect(conninfo(server.url)))
        except psycopg.OperationalError:
            return


def test_a_database_that_allows_no_writing(server: OwnServer, url: str) -> None:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
    set_for_database(url, "default_transaction_read_only", "on")
    with MemoryManager(url) as memory:
        with pytest.raises(ReadOnly, match="allows no writing"):
            memory.add_message(_say(session, "lost"))
        assert memory.get_messages(session) == []
        ask(server.url, f"ALTER DATABASE {database_of(url)} RESET ALL")
        _end_connections(server, url)
        memory.add_message(_say(session, "stored"))
        assert [message.content for message in memory.get_messages(session)] == ["stored"]


def test_a_disk_that_is_full(url: str) -> None:
    """The server says so, wherever in a unit of work; here a trigger says it in its place."""
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        ask(url, FULL)
        with pytest.raises(StorageFull, match="disk is full"):
            memory.add_message(_say(session, "lost"))
        assert memory.search_messages("lost") == memory.get_messages(session) == []
        ask(url, "DROP FUNCTION no_room CASCADE")
        memory.add_message(_say(session, "stored"))
        assert [message.content for message in memory.get_messages(session)] == ["stored"]
        assert memory.verify().ok


FULL = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON mirai_memory.word_messages EXECUTE FUNCTION no_room()
"""


# --- clients that die -------------------------------------------------------------------------------------------------

DYING = """
import sys
from mirai_memory import MemoryManager, Message

with MemoryManager(sys.argv[1]) as memory, memory.unit_of_work() as uow:
    uow.messages.add(Message(session_id=sys.argv[2], role="user", content="lost"))
    print("inside", flush=True)
    sys.stdin.readline()
"""


def test_a_client_that_dies_in_a_transaction_holds_up_nobody(url: str) -> None:
    with MemoryManager(url) as memory:
        session, pipe = memory.create_session("alice").id, subprocess.PIPE
        command = [sys.executable, "-c", DYING, url, session]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as client, ThreadPoolExecutor(1) as pool:
            assert client.stdout is not None
            assert client.stdout.readline() == "inside\n"
            waiting = pool.submit(memory.add_message, _say(session, "stored"))
            client.kill()
            waiting.result(GUARD)
        assert [(m.content, m.position) for m in memory.get_messages(session)] == [("stored", 1)]
        assert memory.verify().ok


def test_clients_killed_while_they_write(url: str) -> None:
    with MemoryManager(url) as memory:
        session, pipe = memory.create_session("alice").id, subprocess.PIPE
        command = [sys.executable, str(WRITER), url, "process", "8", "100000", session]
        for _ in range(3):
            before = memory.get_stats()["total_messages"]
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as client:
                assert client.stdin is not None
                assert client.stdout is not None
                assert client.stdout.readline() == "ready\n"
                client.stdin.write("go\n")
                client.stdin.flush()
                until(lambda: memory.get_stats()["total_messages"] >= before + 50)  # noqa: B023
                client.kill()
        # What was sent when it died may still be carried out.
        until(lambda: ask(url, f"SELECT count(*) {OTHERS} AND state <> 'idle'") == [(0,)])
        positions = [message.position for message in memory.get_messages(session, limit=100_000)]
        assert positions == list(range(1, len(positions) + 1))
        assert memory.verify().ok
