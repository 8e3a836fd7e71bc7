"""Learning for asyncio: methods that only hand a call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mirai_memory._learning import Learns
from mirai_memory.aio.facade import AsyncFacade
from mirai_memory.learning import Learned

Face = TypeVar("Face", bound=Learns)


class LearningMethods(AsyncFacade[Face]):
    """``learn``, for the sessions that the face can see."""

    # Made by tests/aio/test_methods.py --write

    async def learn(
        self,
        session_id: str,
        *,
        apply: bool = True,
        proposals: Learned | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Learned:
        """Have the extractor read what it has not read of a session yet, and keep what it proposes; what became of it.

        Only what user and assistant said is read, without what was recalled from the memory into it, some thousand
        tokens at a time; each range is stored in one transaction, and once, whoever else is at it. A fact follows the
        policy ``memory.long_term.on_conflict``, has the extractor as ``source``, and is true from when it was said.
        ``apply=False`` only proposes and changes nothing; ``proposals`` takes such a report back, with the items that
        are wanted, and asks nobody. ``progress(done, total)`` is called with positions after each range.

        Raises ConfigurationError where there is no extractor, NotFound, ModelError (what was stored before stays),
        Busy where others work on the session for longer than ``memory.busy_timeout_ms``, Conflict for proposals of a
        range that was learned meanwhile.
        """
        return await self._slow(
            lambda memory: memory.learn(session_id, apply=apply, proposals=proposals, progress=progress)
        )
