"""Long lists are iterated over by pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from beside import write_lock
from surroundings import said

from mirai_memory import AsyncMemoryManager, AsyncUserMemory, InvalidInput, Knowledge, Session, Task

SIZES = (1, 2, 3, 6, 7, 8, 100)  # seven rows of each kind are alice's, and one of what all may see is somebody else's


async def _filled(memory: AsyncMemoryManager) -> str:
    ids = [(await memory.create_session("alice")).id for _ in range(7)]
    await memory.create_session("bob")
    for number in range(7):
        await memory.add_message(said(ids[3], f"word{number}"))
        await memory.add_task(Task(user_id="alice", session_id=ids[3], description=f"word{number}"))
        await memory.add_knowledge(Knowledge(user_id="alice", key=f"{number}", value="words"))
    await memory.add_task(Task(user_id="bob", description="words"))
    await memory.add_knowledge(Knowledge(value="shared", category="other"))
    return ids[3]


async def _all(iterator: AsyncIterator[Any]) -> list[Any]:
    return [entity async for entity in iterator]


def _run(test: Callable[[AsyncMemoryManager, str], Awaitable[None]], url: str = ":memory:") -> None:
    async def main() -> None:
        async with AsyncMemoryManager(url) as memory:
            await test(memory, await _filled(memory))

    asyncio.run(main())


def test_all_pages_together_are_the_list() -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        for size in SIZES:
            assert await _all(memory.iterate_messages(session, page_size=size)) == await memory.get_messages(session)
            assert await _all(memory.iterate_sessions(page_size=size)) == await memory.list_sessions()
            assert await _all(memory.iterate_tasks(page_size=size)) == await memory.get_tasks()
            assert await _all(memory.iterate_knowledge(page_size=size)) == await memory.get_knowledge()

    _run(test)


def test_an_owner_s_pages_are_the_owner_s_list() -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        alice, bob = memory.for_user("alice"), memory.for_user("bob")
        for size in SIZES:
            assert await _all(alice.iterate_messages(session, page_size=size)) == await alice.get_messages(session)
            assert await _all(bob.iterate_messages(session, page_size=size)) == []
            for owner in (alice, bob):
                assert await _all(owner.iterate_sessions(page_size=size)) == await owner.list_sessions()
                assert await _all(owner.iterate_tasks(page_size=size)) == await owner.get_tasks()
                assert await _all(owner.iterate_knowledge(page_size=size)) == await owner.get_knowledge()

    _run(test)


def test_conditions_hold_on_every_page() -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        await memory.update_task_status(3, "completed")
        for face in (memory, memory.for_user("alice")):
            assert [task.id for task in await _all(face.iterate_tasks(session, "completed", page_size=1))] == [3]
            assert len(await _all(face.iterate_tasks(session, "pending", page_size=2))) == 6
            assert [fact.value for fact in await _all(face.iterate_knowledge("other", page_size=1))] == ["shared"]
        assert len(await _all(memory.iterate_sessions("alice", page_size=2))) == 7
        assert len(await _all(memory.iterate_tasks(user_id="bob", page_size=2))) == 1
        facts = memory.iterate_knowledge("general", key="4", user_id="alice", with_embedding=True, page_size=1)
        assert [fact.key for fact in await _all(facts)] == ["4"]

    _run(test)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_met_may_be_deleted(size: int) -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        async for message in memory.iterate_messages(session, page_size=size):
            await memory.delete_message(message.id or 0)
        async for task in memory.iterate_tasks(page_size=size):
            await memory.delete_task(task.id or 0)
        async for fact in memory.iterate_knowledge(user_id="alice", page_size=size):
            await memory.delete_knowledge(fact.id)
        kept: list[Session] = []
        async for found in memory.iterate_sessions(page_size=size):
            if len(kept) == 2:
                await memory.delete_session(found.id)
            else:
                kept.append(found)
        assert await memory.list_sessions() == kept
        stats = await memory.get_stats()
        assert (stats["total_messages"], stats["total_tasks"], stats["total_knowledge"]) == (0, 0, 0)

    _run(test)


def test_what_is_added_meanwhile_is_met() -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        seen = 0
        async for _ in memory.iterate_messages(session, page_size=3):
            seen += 1
            if seen == 1:
                await memory.add_message(said(session))
        assert seen == 8

    _run(test)


def test_nothing_is_open_between_two_steps(url: str) -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        iterator = memory.iterate_messages(session, page_size=2)
        async for _ in iterator:
            with write_lock(url):
                assert memory._threads.memory._database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            break  # and it is left behind half-way

    _run(test, url)


@pytest.mark.parametrize("size", [0, -1, "10", None, 2.5])
def test_a_page_holds_one_at_least(size: Any) -> None:
    memory = AsyncMemoryManager(":memory:")
    faces: list[AsyncMemoryManager | AsyncUserMemory] = [memory, memory.for_user("alice")]
    for face in faces:
        for iterate in (face.iterate_sessions, face.iterate_tasks, face.iterate_knowledge):
            with pytest.raises(InvalidInput, match="page_size"):
                iterate(page_size=size)
        with pytest.raises(InvalidInput, match="page_size"):
            face.iterate_messages("any", page_size=size)


def test_an_error_comes_out_of_the_iteration() -> None:
    async def test(memory: AsyncMemoryManager, session: str) -> None:
        for iterator in (memory.iterate_sessions(""), memory.iterate_tasks(user_id=""), memory.iterate_messages("")):
            with pytest.raises(InvalidInput):
                await _all(iterator)

    _run(test)
