"""What both async faces offer in the same words, as ``_facade.py`` does for the others."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from mirai_memory._facade import Facade, T
from mirai_memory.aio import pages
from mirai_memory.aio.threads import Lane, Threads
from mirai_memory.entities import (
    Context,
    JsonObject,
    Knowledge,
    Message,
    OnConflict,
    Session,
    Task,
    TaskStatus,
)
from mirai_memory.errors import InvalidInput
from mirai_memory.manager import MemoryManager
from mirai_memory.unit_of_work import UnitOfWork

Face = TypeVar("Face", bound=Facade)


class AsyncFacade(Generic[Face]):
    """Methods whose arguments name no owner; ``face`` finds in a memory what they are called on."""

    def __init__(self, threads: Threads, face: Callable[[MemoryManager], Face]) -> None:
        self._threads = threads
        self._face = face

    async def _read(self, fn: Callable[[Face], T]) -> T:
        return await self._in("read", fn)

    async def _write(self, fn: Callable[[Face], T]) -> T:
        return await self._in("write", fn)

    async def _slow(self, fn: Callable[[Face], T]) -> T:
        """For what may ask an embedder, a reranker or a counter, or takes more than one transaction."""
        return await self._in("slow", fn)

    async def _in(self, lane: Lane, fn: Callable[[Face], T]) -> T:
        return await self._threads.call(lane, lambda memory: fn(self._face(memory)))

    async def run(self, fn: Callable[[UnitOfWork], T]) -> T:
        """Run ``fn(uow)`` in one transaction and return what it returns; all it did is kept, or nothing.

        ``fn`` is a plain function and runs in a thread, where it holds the transaction while nobody awaits anything;
        this is why there is no ``unit_of_work()`` here, whose body would keep all other writers waiting for whatever
        it awaits. On PostgreSQL ``fn`` may run several times (a serialisation failure, a deadlock): it must have no
        effects outside the database. Inside, use ``uow``, not the memory. Raises InvalidInput for an async ``fn``.
        """
        return await self._write(lambda face: face.run(lambda uow: self._threads.inside(lambda: _plain(fn(uow)))))

    def iterate_messages(self, session_id: str, *, page_size: int = 100) -> AsyncIterator[Message]:
        """All messages of the session in order, read by pages: what is added meanwhile is met at the end."""
        size = pages.page_size(page_size)
        return pages.numbered(lambda after: self.get_messages(session_id, limit=size, after=after), size)

    # Made by tests/aio/test_methods.py --write

    async def get_session(self, session_id: str) -> Session | None:
        """The session, or None."""
        return await self._read(lambda memory: memory.get_session(session_id))

    async def update_session(self, session_id: str, *, metadata: JsonObject) -> Session:
        """Replace the session's metadata. Raises NotFound."""
        return await self._write(lambda memory: memory.update_session(session_id, metadata=metadata))

    async def update_session_activity(self, session_id: str) -> Session:
        """Set the session's ``last_active`` to now. Raises NotFound."""
        return await self._write(lambda memory: memory.update_session_activity(session_id))

    async def clear_session(self, session_id: str) -> int:
        """Delete every message of the session, and its summary; how many messages. Raises NotFound."""
        return await self._write(lambda memory: memory.clear_session(session_id))

    async def delete_session(self, session_id: str) -> None:
        """Delete the session with its messages and tasks; facts learned from it stay. Raises NotFound."""
        await self._write(lambda memory: memory.delete_session(session_id))

    async def add_message(self, message: Message) -> int:
        """Append a message to its session; its id.

        A ``client_id`` that the session holds already stores nothing and returns the first id. Raises NotFound for
        an unknown session, Conflict for a known ``client_id`` with other content, InvalidInput.
        """
        return await self._write(lambda memory: memory.add_message(message))

    async def add_messages(self, messages: Sequence[Message]) -> list[int]:
        """Append messages, each to its session, all or none; their ids in the same order. Raises as add_message."""
        return await self._write(lambda memory: memory.add_messages(messages))

    async def get_message(self, message_id: int) -> Message | None:
        """The message, or None."""
        return await self._read(lambda memory: memory.get_message(message_id))

    async def update_message(self, message_id: int, content: str) -> Message:
        """Replace the text of a message; its ``parts`` and ``tokens``, which described the old text, go.

        Raises NotFound, InvalidInput.
        """
        return await self._write(lambda memory: memory.update_message(message_id, content))

    async def delete_message(self, message_id: int) -> None:
        """Delete one message; the places of the others stay. Raises NotFound."""
        await self._write(lambda memory: memory.delete_message(message_id))

    async def pop_message(self, session_id: str) -> Message | None:
        """Take the newest message out of the session; None where it has none. Raises NotFound."""
        return await self._write(lambda memory: memory.pop_message(session_id))

    async def get_recent_messages(self, session_id: str, limit: int | None = None) -> list[Message]:
        """The newest messages, oldest first: at most ``limit``, in whole groups, but the newest group always.

        A group is a message with tool calls and the results that answer it. ``limit`` None means
        ``memory.short_term.max_messages``. An unknown session has none.
        """
        return await self._read(lambda memory: memory.get_recent_messages(session_id, limit))

    async def get_messages(self, session_id: str, *, limit: int = 100, after: int | None = None) -> list[Message]:
        """One page of the session's messages in order; ``after`` is the id of the last one seen."""
        return await self._read(lambda memory: memory.get_messages(session_id, limit=limit, after=after))

    async def get_conversation_history(
        self, session_id: str, limit: int | None = None, *, max_tokens: int | None = None
    ) -> list[JsonObject]:
        """The newest chat messages as the OpenAI chat API accepts them, oldest first.

        ``limit`` as in ``get_recent_messages``; with ``max_tokens`` only as many of the newest groups as fit. Tool
        calls that lack a result, and results without their call, are left out: the API would refuse them.
        Raises InvalidInput for a ``max_tokens`` that cannot hold the newest group.
        """
        return await self._slow(
            lambda memory: memory.get_conversation_history(session_id, limit, max_tokens=max_tokens)
        )

    async def add_task(self, task: Task) -> int:
        """Store a task; its id. Raises NotFound for an unknown session, Conflict, InvalidInput."""
        return await self._write(lambda memory: memory.add_task(task))

    async def get_task(self, task_id: int) -> Task | None:
        """The task, or None."""
        return await self._read(lambda memory: memory.get_task(task_id))

    async def update_task_status(self, task_id: int, status: TaskStatus, result: str | None = None) -> Task:
        """Set the status, and the result where one is given; ``completed_at`` follows. Raises NotFound."""
        return await self._write(lambda memory: memory.update_task_status(task_id, status, result))

    async def delete_task(self, task_id: int) -> None:
        """Delete one task. Raises NotFound."""
        await self._write(lambda memory: memory.delete_task(task_id))

    async def add_knowledge(self, knowledge: Knowledge, *, on_conflict: OnConflict | None = None) -> int:
        """Store a fact; the id of the row that holds the key's current value.

        The same value again refreshes the row. Another value supersedes it ("replace"), does so only if it is at
        least as sure ("keep_higher_confidence"), or is a Conflict ("reject"); None means the setting
        ``memory.long_term.on_conflict`` for the category. A fact with ``valid_to`` is closed and stands beside.
        Raises NotFound for an unknown ``message_id``, InvalidInput.
        """
        return await self._slow(lambda memory: memory.add_knowledge(knowledge, on_conflict=on_conflict))

    async def add_knowledge_many(
        self, items: Sequence[Knowledge], *, on_conflict: OnConflict | None = None
    ) -> list[int]:
        """Store facts, all or none; as ``add_knowledge`` for each, in order."""
        return await self._slow(lambda memory: memory.add_knowledge_many(items, on_conflict=on_conflict))

    async def build_context(
        self, session_id: str, query: str | None = None, *, max_tokens: int | None = None
    ) -> Context:
        """What the model should have for the session's next turn, within ``max_tokens`` (None: no limit).

        Preferences, summary, the window, open tasks, and the facts and messages found for ``query`` (None: the newest
        user message). What does not fit is cut in the order recalled, knowledge, older history, tasks, summary, and
        stands in ``omitted``. Tokens are counted by the ``token_counter`` that the memory was opened with.
        Raises NotFound; InvalidInput for a budget that cannot hold preferences and the newest group.
        """
        return await self._slow(lambda memory: memory.build_context(session_id, query, max_tokens=max_tokens))


def _plain(result: T) -> T:
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        raise InvalidInput(
            "fn", "must be a plain function: its transaction lives in a thread, where nothing is awaited"
        )
    return result
