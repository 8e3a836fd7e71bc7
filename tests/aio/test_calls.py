"""Calls of an async memory: opened when wanted, run in threads with the caller's context, closed when they are done."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from beside import left_open, write_lock
from surroundings import GUARD, is_there, own_threads, said, until

from mirai_memory import (
    AsyncMemoryManager,
    Busy,
    Conflict,
    ForeignDatabase,
    InvalidInput,
    MemoryManager,
    NotFound,
    ReadOnly,
    StorageError,
    UnitOfWork,
    UserPreferences,
    load_settings,
)
from mirai_memory.logging import logger
from mirai_memory.testing import FakeEmbedder, OwnerCanary

request: ContextVar[str] = ContextVar("request")


# --- opening ----------------------------------------------------------------------------------------------------------


def test_making_one_opens_nothing(sqlite_url: str) -> None:
    threads = threading.active_count()
    memory = AsyncMemoryManager(sqlite_url)
    assert not Path(sqlite_url).exists()
    assert threading.active_count() == threads
    assert repr(memory) == "AsyncMemoryManager(not open yet)"
    for read in (lambda: memory.url, lambda: memory.settings, lambda: memory.embedding_model):
        with pytest.raises(StorageError, match="not open yet"):
            read()


def test_it_is_opened_by_a_with_block_or_by_open_or_by_the_first_call(url: str) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:
            assert is_there(url) or url.startswith("postgresql")
            assert (memory.url, memory.embedding_model) == (url, None)
            assert memory.settings.memory.enabled
            assert repr(memory) == f"AsyncMemoryManager({url!r})"
        memory = await AsyncMemoryManager(url).open()
        assert await memory.open() is memory
        assert memory.url == url
        await memory.close()
        memory = AsyncMemoryManager(url)
        alice = memory.for_user("alice")
        await alice.create_session()
        assert memory.url == url
        await memory.close()

    asyncio.run(main())


def test_a_hundred_first_calls_open_it_once() -> None:
    async def main() -> None:
        memory = AsyncMemoryManager(":memory:")  # opened twice it would be two databases
        await asyncio.gather(*[memory.create_session(f"user{number}") for number in range(100)])
        assert len({session.user_id for session in await memory.list_sessions(limit=1_000)}) == 100
        await memory.close()

    asyncio.run(main())


def test_what_fails_when_it_is_opened_leaves_nothing_and_may_be_tried_again(sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url) as connection:
        connection.execute("CREATE TABLE somebody_elses (x)")
    connection.close()

    async def main() -> None:
        with pytest.raises(ForeignDatabase):
            async with AsyncMemoryManager(sqlite_url):
                raise AssertionError("was opened")
        assert own_threads() == []
        memory = AsyncMemoryManager(sqlite_url)
        for _ in range(2):
            with pytest.raises(ForeignDatabase):
                await memory.list_sessions()
        os.unlink(sqlite_url)
        assert await memory.list_sessions() == []
        await memory.close()

    asyncio.run(main())


def test_the_arguments_are_those_of_the_other(url: str) -> None:
    async def main() -> None:
        await AsyncMemoryManager(url).open()
        embedder = FakeEmbedder(name="mine")
        async with AsyncMemoryManager(url, embedder=embedder, read_only=True) as memory:
            assert memory.embedding_model == "mine"
            with pytest.raises(ReadOnly):
                await memory.create_session("alice")

    asyncio.run(main())


def test_an_open_memory_is_lent(memory: MemoryManager) -> None:
    async def main() -> None:
        async with AsyncMemoryManager.of(memory) as lent:
            assert lent.url == memory.url
            await lent.for_user("alice").create_session()
        with pytest.raises(StorageError, match="closed"):
            await lent.list_sessions()

    asyncio.run(main())
    assert own_threads() == []
    assert [session.user_id for session in memory.list_sessions()] == ["alice"]


def test_the_canary_watches_an_async_memory(sqlite_memory: MemoryManager, owner_canary: OwnerCanary) -> None:
    del sqlite_memory  # another one than the canary's: every memory is watched

    async def main(url: str) -> None:
        async with AsyncMemoryManager(url) as memory:
            await memory.for_user("alice").list_sessions()
            with pytest.raises(pytest.fail.Exception, match="another owner"):
                await memory.list_sessions()

    asyncio.run(main(owner_canary_url(owner_canary)))
    assert len(owner_canary.leaks) == 1
    owner_canary.leaks.clear()


def owner_canary_url(canary: OwnerCanary) -> str:
    return str(canary._add_message.__self__.url)  # type: ignore[attr-defined]


# --- context, errors, functions ---------------------------------------------------------------------------------------


def test_context_variables_travel_along(url: str) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:

            async def ask(name: str) -> tuple[str, bool]:
                request.set(name)
                return await memory.run(lambda uow: (request.get(), threading.current_thread() is caller))

            caller = threading.current_thread()
            names = [f"request {number}" for number in range(50)]
            assert await asyncio.gather(*map(ask, names)) == [(name, False) for name in names]

    asyncio.run(main())


def test_what_the_host_says_of_its_log_lines_is_said_of_ours(url: str) -> None:
    lines: list[Any] = []

    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:

            async def create(name: str) -> None:
                with logger.contextualize(request=name):
                    await memory.for_user(name).create_session()

            await asyncio.gather(*[create(f"user{number}") for number in range(20)])

    logger.enable("mirai_memory")
    sink = logger.add(lambda line: lines.append(line.record["extra"]), level="DEBUG", format="{message}")
    try:
        asyncio.run(main())
    finally:
        logger.remove(sink)
        logger.disable("mirai_memory")
    said_of_users = [extra for extra in lines if "user_id" in extra]
    assert len(said_of_users) == 20
    assert all(extra["request"] == extra["user_id"] for extra in said_of_users)


def test_errors_keep_their_types_and_values(url: str) -> None:
    settings = load_settings(memory={"busy_timeout_ms": 10})

    async def main() -> None:
        async with AsyncMemoryManager(url, settings=settings) as memory:
            with pytest.raises(NotFound) as missing:
                await memory.add_message(said("nobody's"))
            assert (missing.value.kind, missing.value.id) == ("session", "nobody's")
            with pytest.raises(InvalidInput, match="limit"):
                await memory.list_sessions(limit=-1)
            with pytest.raises(InvalidInput, match="user_id"):
                memory.for_user("")
            await memory.save_user_preferences(UserPreferences(user_id="alice"))
            with pytest.raises(Conflict):
                await memory.save_user_preferences(UserPreferences(user_id="alice", version=7))
            with write_lock(url), pytest.raises(Busy, match="busy_timeout_ms"):
                await memory.create_session("alice")
            await memory.create_session("alice")

    asyncio.run(main())


class Mine(Exception):
    """An application's own error."""


@pytest.mark.parametrize("error", [Mine("mine"), KeyError("mine"), KeyboardInterrupt("mine"), TimeoutError("mine")])
def test_a_function_that_fails_keeps_nothing_and_its_error(url: str, error: BaseException) -> None:
    def fail(uow: UnitOfWork) -> None:
        uow.sessions.create("alice")
        raise error

    async def main() -> BaseException:
        async with AsyncMemoryManager(url) as memory:
            try:
                await memory.run(fail)
            except BaseException as caught:
                assert await memory.list_sessions() == []
                return caught
        raise AssertionError("it did not fail")

    assert asyncio.run(main()) is error
    with MemoryManager(url) as memory:
        assert memory.list_sessions() == []


def test_a_stop_iteration_does_not_wait_for_ever(url: str) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory, asyncio.timeout(GUARD):
            with pytest.raises(RuntimeError, match="StopIteration"):
                await memory.run(lambda uow: next(iter(())))

    asyncio.run(main())


async def _create(uow: UnitOfWork) -> None:
    uow.sessions.create("alice")


async def _creates(uow: UnitOfWork) -> Any:
    uow.sessions.create("alice")
    yield


@pytest.mark.parametrize("fn", [_create, _creates, lambda uow: (uow.sessions.create("alice"), _create(uow))[1]])
def test_an_async_function_is_refused(url: str, fn: Callable[[UnitOfWork], Any]) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:
            with pytest.raises(InvalidInput, match="plain function"):
                await memory.run(fn)
            assert await memory.list_sessions() == []

    asyncio.run(main())


def test_the_memory_inside_its_own_unit_of_work_is_refused(url: str) -> None:
    """It would wait for a turn that the unit of work around it has."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncMemoryManager(url) as memory, AsyncMemoryManager(":memory:") as other:

            def work(uow: UnitOfWork) -> None:
                uow.sessions.create("kept")
                for call in (memory.list_sessions, memory.close, lambda: memory.for_user("alice").create_session()):
                    with pytest.raises(InvalidInput, match="unit of work"):
                        asyncio.run(call())
                    with pytest.raises(InvalidInput, match="unit of work"):
                        asyncio.run_coroutine_threadsafe(call(), loop).result(GUARD)
                asyncio.run(other.create_session("another memory"))

            await memory.run(work)
            assert [session.user_id for session in await memory.list_sessions()] == ["kept"]
            assert [session.user_id for session in await other.list_sessions()] == ["another memory"]

    asyncio.run(main())


# --- lanes and loops --------------------------------------------------------------------------------------------------


def test_reads_do_not_wait_behind_writes_that_wait(patient: Callable[[], AsyncMemoryManager], url: str) -> None:
    async def main() -> None:
        async with patient() as memory:
            with write_lock(url):
                writes = [asyncio.create_task(memory.create_session("alice")) for _ in range(20)]
                async with asyncio.timeout(GUARD):
                    for _ in range(20):
                        assert await memory.list_sessions() == []
                        assert await memory.search_messages("tea") == []
                assert not any(write.done() for write in writes)
            await asyncio.gather(*writes)

    asyncio.run(main())


def test_nothing_waits_behind_searches_that_wait_for_an_embedder(url: str) -> None:
    embedder = FakeEmbedder()

    async def main() -> None:
        async with AsyncMemoryManager(url, embedder=embedder) as memory:
            session = await memory.create_session("alice")
            embedder.hang()
            recalls = [asyncio.create_task(memory.recall("tea", user_id="alice")) for _ in range(20)]
            async with asyncio.timeout(GUARD):
                await memory.add_message(said(session.id))
                assert len(await memory.get_recent_messages(session.id)) == 1
            assert not any(recall.done() for recall in recalls)
            embedder.release()
            await asyncio.gather(*recalls)

    asyncio.run(main())


def test_one_memory_serves_one_loop_after_the_other(url: str) -> None:
    memory = AsyncMemoryManager(url)
    for number in range(3):
        asyncio.run(memory.for_user("alice").create_session())
        assert len(asyncio.run(memory.list_sessions())) == number + 1
    asyncio.run(memory.close())


def test_one_memory_serves_loops_in_several_threads(url: str) -> None:
    memory = AsyncMemoryManager(url)

    async def use() -> None:
        await asyncio.gather(*[memory.create_session("alice") for _ in range(20)])

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert len(asyncio.run(memory.list_sessions())) == 80
    asyncio.run(memory.close())


def test_a_hundred_tasks_at_once(url: str) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:
            session = (await memory.create_session("alice")).id

            async def turn(number: int) -> int:
                id = await memory.add_message(said(session, f"word{number}"))
                assert id in [message.id for message in await memory.get_messages(session, limit=1_000)]
                found = await memory.search_messages(f"word{number}", user_id="alice")
                assert f"word{number}" in [message.content for message in found]
                return id

            ids = await asyncio.gather(*map(turn, range(100)))
            messages = await memory.get_messages(session, limit=1_000)
            assert sorted(ids) == [message.id for message in messages]
            assert [message.position for message in messages] == list(range(1, 101))
            assert len(own_threads()) <= 12

    asyncio.run(main())


# --- closing ----------------------------------------------------------------------------------------------------------


def _held_up() -> tuple[Callable[[UnitOfWork], str], threading.Event, threading.Event]:
    """A function that stays in its unit of work until it may go on; whether it is inside."""
    inside, go_on = threading.Event(), threading.Event()

    def work(uow: UnitOfWork) -> str:
        inside.set()
        assert go_on.wait(GUARD)
        return uow.sessions.create("alice").id

    return work, inside, go_on


def test_close_waits_for_what_was_called_and_refuses_new_calls(url: str) -> None:
    work, inside, go_on = _held_up()

    async def main() -> None:
        memory = AsyncMemoryManager(url)
        running = asyncio.create_task(memory.run(work))
        await until(inside.is_set)
        queued = [asyncio.create_task(memory.create_session("queued")) for _ in range(20)]
        await asyncio.sleep(0)
        closings = [asyncio.create_task(memory.close()) for _ in range(3)]
        await asyncio.sleep(0)
        for call in (memory.list_sessions, memory.open, lambda: memory.for_user("alice").list_sessions()):
            with pytest.raises(StorageError, match="closed"):
                await call()
        assert not any(closing.done() for closing in closings)
        go_on.set()
        await asyncio.gather(*closings)
        assert running.done()
        assert all(task.done() for task in queued)
        await asyncio.gather(running, *queued)
        await memory.close()
        assert own_threads() == []
        assert left_open(url) == []

    asyncio.run(main())
    with MemoryManager(url) as memory:
        assert len(memory.list_sessions()) == 21


def test_a_close_that_is_cancelled_waits_all_the_same(url: str) -> None:
    work, inside, go_on = _held_up()

    async def main() -> None:
        async def use() -> None:
            async with AsyncMemoryManager(url) as memory:
                running = asyncio.create_task(memory.run(work))
                tasks.append(running)
                await until(inside.is_set)

        tasks: list[asyncio.Task[str]] = []
        using = asyncio.create_task(use())
        await until(inside.is_set)
        for _ in range(5):
            using.cancel()
            await asyncio.sleep(0)
        assert not using.done(), "the block was left while a unit of work was open"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert await tasks[0]
        assert own_threads() == []
        assert left_open(url) == []

    asyncio.run(main())


def test_one_that_was_never_opened_is_closed_too(sqlite_url: str) -> None:
    async def main() -> None:
        memory = AsyncMemoryManager(sqlite_url)
        await memory.close()
        with pytest.raises(StorageError, match="closed"):
            await memory.list_sessions()

    asyncio.run(main())
    assert not Path(sqlite_url).exists()


def test_one_that_is_forgotten_loses_nothing_and_its_threads_end(url: str) -> None:
    asyncio.run(AsyncMemoryManager(url).create_session("alice"))
    gc.collect()
    for thread in own_threads():
        thread.join(GUARD)
        assert not thread.is_alive()
    with MemoryManager(url) as memory:
        assert len(memory.list_sessions()) == 1


INTERRUPTED = """
import asyncio, sys
from mirai_memory import AsyncMemoryManager, Message

async def main():
    async with AsyncMemoryManager(sys.argv[1]) as memory:
        session = (await memory.create_session("alice")).id
        async def write(name):
            for number in range(1_000_000):
                print(await memory.add_message(Message(session_id=session, role="user", content=name)), flush=True)
        await asyncio.gather(*map(write, "abcdefgh"))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_ctrl_c_closes_it_and_loses_nothing(url: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGINT)
        rest, words = process.communicate(timeout=GUARD)
    assert process.returncode == -signal.SIGINT, words
    assert words.strip().endswith("KeyboardInterrupt")
    assert not Path(f"{url}-wal").exists(), "it was not closed"
    seen += map(int, rest.split())
    with MemoryManager(url) as memory:
        [session] = memory.list_sessions()
        messages = memory.get_messages(session.id, limit=1_000_000)
    assert set(seen) <= {message.id for message in messages}
    assert len(messages) <= len(seen) + 8
    assert [message.position for message in messages] == list(range(1, len(messages) + 1))
