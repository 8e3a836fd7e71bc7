"""Conversations that outgrow their window, for asyncio: methods that only hand a call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mirai_memory._summaries import Summarizes
from mirai_memory.aio.facade import AsyncFacade
from mirai_memory.entities import Session

Face = TypeVar("Face", bound=Summarizes)


class SummaryMethods(AsyncFacade[Face]):
    """``summarize`` and ``trim_old_messages``, for the sessions that the face can see."""

    # Made by tests/aio/test_methods.py --write

    async def summarize(self, session_id: str, *, progress: Callable[[int, int], object] | None = None) -> Session:
        """Summarise what has left the window and is in no summary yet; the session with its summary.

        With ``memory.short_term.auto_summarize`` this is done in the background as well. No message is changed or
        deleted. A long backlog is done piece by piece, each kept by itself, so that the next call goes on where one was
        cut short; nobody is asked where nothing is to be done. ``progress(done, total)`` is called with messages.
        Raises NotFound, ModelError where the summariser fails, Busy where others work on the session for longer than
        ``memory.busy_timeout_ms``.
        """
        return await self._slow(lambda memory: memory.summarize(session_id, progress=progress))

    async def trim_old_messages(self, session_id: str, keep: int | None = None) -> int:
        """Delete all but the newest ``keep`` messages (None: ``max_messages``), in whole groups; how many went.

        With ``memory.short_term.auto_summarize`` they are summarised first, and what could not be stays. Raises
        NotFound.
        """
        return await self._slow(lambda memory: memory.trim_old_messages(session_id, keep))
