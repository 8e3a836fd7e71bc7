"""Conversations that outgrow their window: what both faces of the memory offer in the same words."""

from __future__ import annotations

from collections.abc import Callable

from mirai_memory import _checks
from mirai_memory._facade import Facade
from mirai_memory.entities import Session


class Summarizes(Facade):
    """``summarize`` and ``trim_old_messages``, for the sessions that the face can see."""

    def summarize(self, session_id: str, *, progress: Callable[[int, int], object] | None = None) -> Session:
        """Summarise what has left the window and is in no summary yet; the session with its summary.

        With ``memory.short_term.auto_summarize`` this is done in the background as well. No message is changed or
        deleted. A long backlog is done piece by piece, each kept by itself, so that the next call goes on where one was
        cut short; nobody is asked where nothing is to be done. ``progress(done, total)`` is called with messages.
        Raises NotFound, ModelError where the summariser fails, Busy where others work on the session for longer than
        ``memory.busy_timeout_ms``.
        """
        return self._tools.summarizing.summarize(_checks.name("session_id", session_id), self._owner, progress)

    def trim_old_messages(self, session_id: str, keep: int | None = None) -> int:
        """Delete all but the newest ``keep`` messages (None: ``max_messages``), in whole groups; how many went.

        With ``memory.short_term.auto_summarize`` they are summarised first, and what could not be stays. Raises
        NotFound.
        """
        count = _checks.limit("keep", keep, self._settings.short_term.max_messages)
        summarized = self._settings.short_term.auto_summarize
        if summarized:
            self._tools.summarizing.before_trimming(_checks.name("session_id", session_id), self._owner, count)
        return self._write(lambda uow: uow.messages.trim(session_id, count, summarized_only=summarized))
