"""A cancelled await: its write is whole or absent, ``client_id`` tells which, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from beside import left_open, write_lock
from surroundings import GUARD, own_threads, said, until

from mirai_memory import AsyncMemoryManager, Knowledge, MemoryManager, UnitOfWork, load_settings
from mirai_memory.testing import FakeEmbedder

WIDTH = 4  # threads of a lane


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them; their awaits end at once, whatever their threads are at."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


def test_what_has_begun_is_whole_and_what_has_not_is_absent(url: str) -> None:
    inside, go_on = threading.Event(), threading.Event()
    looked: list[str] = []

    def clock() -> datetime:
        looked.append(threading.current_thread().name)  # a message is given its time before it waits for its turn
        return datetime.now(UTC)

    async def main() -> None:
        async with AsyncMemoryManager(url, clock=clock) as memory:
            session = (await memory.create_session("alice")).id

            def work(uow: UnitOfWork) -> None:
                uow.messages.add(said(session, "in the unit of work"))
                uow.knowledge.add(Knowledge(user_id="alice", value="words"))
                inside.set()
                go_on.wait(GUARD)
                uow.messages.add(said(session, "in the unit of work"))

            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(memory.run(work))]
            await until(inside.is_set)
            before = len(looked)
            tasks += [asyncio.create_task(memory.add_message(said(session, "begun"))) for _ in range(WIDTH - 1)]
            await until(lambda: len(set(looked[before:])) == WIDTH - 1)
            tasks += [asyncio.create_task(memory.add_message(said(session, "queued"))) for _ in range(50)]
            await asyncio.sleep(0)
            await _cancelled(*tasks)
            assert not go_on.is_set()
            go_on.set()

    asyncio.run(main())
    with MemoryManager(url) as memory:
        [session] = memory.list_sessions()
        messages = [message.content for message in memory.get_messages(session.id)]
        assert messages == ["in the unit of work"] * 2 + ["begun"] * (WIDTH - 1)
        assert session.message_count == len(messages)
        assert len(memory.get_knowledge(user_id="alice")) == 1
        found = memory.search_messages("begun", user_id="alice")
        assert [message.content for message in found].count("begun") == WIDTH - 1


def test_a_timeout_ends_the_await_and_the_client_id_tells_what_became_of_it(
    patient: Callable[[], AsyncMemoryManager], url: str
) -> None:
    async def main() -> None:
        async with patient() as memory:
            session = (await memory.create_session("alice")).id
            message = said(session, client_id="request 1")
            with write_lock(url):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await memory.add_message(message)
                again = asyncio.create_task(memory.add_message(message))
                await asyncio.sleep(0)
                assert await memory.get_messages(session) == []
            id = await again
            assert await memory.add_message(message) == id
            assert [message.id for message in await memory.get_messages(session)] == [id]

    asyncio.run(main())


async def _storm(
    memory: AsyncMemoryManager, calls: list[Callable[[], Coroutine[Any, Any, int]]], seed: int
) -> list[Any]:
    """Each call in a task; most of them are cancelled, each at a moment of its own. What they returned, or None."""
    dice = random.Random(seed)

    async def cancel_later(task: asyncio.Task[int], turns: int) -> None:
        for _ in range(turns):
            await memory.get_session("any")  # takes as long as a call takes
        task.cancel()

    tasks = [asyncio.create_task(call()) for call in calls]
    chosen = [task for task in tasks if dice.random() < 0.8]
    await asyncio.gather(*[cancel_later(task, dice.randrange(0, 12)) for task in chosen])
    results = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [r for r in results if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError)]
    assert wrong == []
    return [None if isinstance(result, BaseException) else result for result in results]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_cancelled_writes(patient: Callable[[], AsyncMemoryManager], url: str, seed: int) -> None:
    count = 300

    async def main() -> None:
        async with patient() as memory:
            session = (await memory.create_session("alice")).id

            def add(number: int) -> Callable[[], Coroutine[Any, Any, int]]:
                return lambda: memory.add_message(said(session, f"word{number}", client_id=f"request {number}"))

            calls = [add(number) for number in range(count)]
            acknowledged = await _storm(memory, calls, seed)
            cancelled = acknowledged.count(None)
            assert 0 < cancelled < count, "the storm hit all or none: the test proves nothing"
            stored = {m.client_id: m.id for m in await memory.get_messages(session, limit=1_000)}
            known = {f"request {number}": id for number, id in enumerate(acknowledged) if id is not None}
            assert known.items() <= stored.items()

            # What was cancelled is asked for again, behind all that still goes on: nothing is lost, nothing doubled.
            ids = await asyncio.gather(*[call() for call in calls])
            assert all(id in (None, now) for id, now in zip(acknowledged, ids, strict=True))
            messages = await memory.get_messages(session, limit=1_000)
            assert sorted(ids) == [message.id for message in messages]
            assert [message.position for message in messages] == list(range(1, count + 1))
            found = await memory.get_session(session)
            assert found is not None
            assert found.message_count == count == (await memory.get_stats())["total_messages"]

            with write_lock(url):
                pass  # nobody has it
            assert memory._threads.memory._database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert len(own_threads()) <= 3 * WIDTH
        assert own_threads() == []
        assert left_open(url) == []

    asyncio.run(main())


def test_a_storm_over_all_kinds_of_calls_leaves_a_memory_that_works(
    patient: Callable[[], AsyncMemoryManager], url: str
) -> None:
    async def main() -> None:
        async with patient() as memory:
            alice = memory.for_user("alice")
            session = (await alice.create_session()).id
            await alice.add_message(said(session, "green tea"))

            def work(uow: UnitOfWork) -> int:
                return uow.messages.add(said(session)) + uow.knowledge.add(Knowledge(value="words"))

            async def walk() -> int:
                return len([message async for message in alice.iterate_messages(session, page_size=5)])

            async def listed(call: Coroutine[Any, Any, Any]) -> int:
                await call
                return 0

            calls = [
                lambda: memory.run(work),
                walk,
                lambda: listed(alice.recall("tea")),
                lambda: listed(alice.build_context(session)),
                lambda: listed(alice.update_user_preferences(coding_style="terse")),
                lambda: listed(alice.ensure_session("named")),
                lambda: listed(memory.cleanup_old_sessions(1)),
            ] * 30
            await _storm(memory, calls, seed=7)
            await memory.update_session(session, metadata={})
            messages = await memory.get_messages(session, limit=1_000)
            facts = await memory.get_knowledge(limit=1_000)
            found = await memory.get_session(session)
            assert found is not None
            assert found.message_count == len(messages)
            assert len(facts) == (len(messages) > 1), "what one transaction wrote is there in part"
            assert len(await alice.list_sessions()) in (1, 2)

    asyncio.run(main())
    with write_lock(url):
        pass


def test_a_task_that_is_cancelled_before_its_call_is_made_makes_none(url: str) -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:
            await _cancelled(*[asyncio.create_task(memory.create_session("alice")) for _ in range(9)])
            assert await memory.list_sessions() == []

    asyncio.run(main())


def test_opening_that_is_cancelled_is_undone_by_the_with_block(url: str) -> None:
    opened, go_on = threading.Event(), threading.Event()

    class Slow(FakeEmbedder):
        def __getattribute__(self, name: str) -> Any:
            if name == "embed_query":  # looked at when the memory is opened
                opened.set()
                go_on.wait(GUARD)
            return super().__getattribute__(name)

    async def main() -> None:
        async def use() -> None:
            async with AsyncMemoryManager(url, embedder=Slow()):
                raise AssertionError("was cancelled while it was opened")

        using = asyncio.create_task(use())
        await until(opened.is_set)
        using.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert own_threads() == []
        assert left_open(url) == []

    asyncio.run(main())


def test_a_reindex_that_is_cancelled_ends_after_its_batch(url: str) -> None:
    embedder = FakeEmbedder()
    batches: list[int] = []
    at_the_first, go_on = threading.Event(), threading.Event()

    def progress(made: int, left: int) -> None:
        batches.append(made)
        at_the_first.set()
        go_on.wait(GUARD)

    async def main() -> None:
        settings = load_settings(memory={"rag": {"background": False}})
        async with AsyncMemoryManager(url, settings=settings, embedder=embedder) as memory:
            session = (await memory.create_session("alice")).id
            await memory.add_messages([said(session, f"word{number}") for number in range(300)])
            reindexing = asyncio.create_task(memory.reindex(progress=progress))
            await until(at_the_first.is_set)
            await _cancelled(reindexing)
            go_on.set()
        done = len(embedder.texts)
        assert batches == [64]
        assert done <= 128, "it went on although nobody waited"
        async with AsyncMemoryManager(url, settings=settings, embedder=embedder) as memory:
            assert await memory.reindex() == 300 - done

    asyncio.run(main())
