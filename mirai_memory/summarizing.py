"""Summaries of what has left the window: made when asked for, before messages are trimmed, and in the background.

One range after the other, each by itself: a lease, so that nobody else asks for the same; the model, outside of any
transaction; one transaction that keeps the summary, unless the session is not any more what it was. So nothing is lost
wherever it ends, no range is told twice, and no message is ever changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from mirai_memory._process import OncePerProcess
from mirai_memory.background import Worker
from mirai_memory.config import ShortTermSettings
from mirai_memory.entities import Message, Session
from mirai_memory.errors import Busy, MiraiMemoryError, ModelError, NotFound
from mirai_memory.logging import logger
from mirai_memory.summaries import GuardedSummarizer
from mirai_memory.summaries.guard import beginning
from mirai_memory.tokens import TokenCounter
from mirai_memory.unit_of_work import Store

__all__ = ["Summarizing"]

Progress = Callable[[int, int], object]

PURPOSE = "summary"
INPUT_TOKENS = 6_000  # of one question, so that small models of one's own can be asked
_SPARE_S = 60.0  # of a lease, beyond the longest call: for the transactions around it
_LOOK_AGAIN_S = 0.05  # while somebody else has the lease
_LOST = 5  # ranges in a row that were changed while they were summarised

# In the background: a session is left alone while it grows, so that who stores many messages is not slowed down.
_QUIET_S, _LONGEST_DELAY_S = 0.5, 30.0
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 300.0  # without a try after a failure, doubled each time
_TRIES = 5  # in a row; then a session has to grow to be tried again


class Summarizing:
    """A summariser at work for one database."""

    def __init__(
        self,
        store: Store,
        summarizer: GuardedSummarizer,
        counter: TokenCounter,
        settings: ShortTermSettings,
        *,
        wait_s: float,
        read_only: bool,
    ) -> None:
        """``wait_s``: how long a call waits for somebody else who summarises the same session."""
        self._store = store
        self._summarizer = summarizer
        self._counter = counter
        self._settings = settings
        self._wait_s = wait_s
        self._writes = not read_only
        self._closed = False
        self._agenda = OncePerProcess(_Agenda)
        self._worker = OncePerProcess(lambda: Worker(self._work_off, "summaries"))
        self._failures = 0

    def summarize(self, session_id: str, owner: str | None, progress: Progress | None = None) -> Session:
        """Summarise what has left the window; the session as it is then."""
        self._run(session_id, owner, None, self._wait_s, progress)
        session = self._store.read(lambda uow: uow.sessions.get(session_id), owner=owner)
        if session is None:
            raise NotFound("session", session_id)
        return session

    def before_trimming(self, session_id: str, owner: str | None, keep: int) -> None:
        """Summarise all but the newest ``keep``, as far as possible: what is not summarised is not to be trimmed."""
        if not self._writes:
            return
        try:
            self._run(session_id, owner, keep, self._wait_s, None)
        except (ModelError, Busy) as error:
            logger.warning("messages that could not be summarised are not trimmed: {}", error)

    def notify(self, session_ids: Iterable[str]) -> None:
        """Messages of these sessions have left the window."""
        if self._settings.auto_summarize and self._writes and not self._closed:
            self._agenda().add(session_ids)
            self._worker().wake()

    def close(self) -> None:
        """End the thread in the background, after the range that it is at."""
        self._closed = True
        self._worker().stop()

    # One session

    def _run(
        self, session_id: str, owner: str | None, keep: int | None, wait_s: float, progress: Progress | None
    ) -> None:
        before, total = self._store.read(lambda uow: uow.summaries.due(session_id, keep), owner=owner)
        left, lost = total, 0
        while left and lost < _LOST:
            lost = 0 if self._range(session_id, owner, before, self._lease(session_id, owner, wait_s)) else lost + 1
            left = self._store.read(lambda uow: uow.summaries.left(session_id, before), owner=owner)
            if progress is not None:
                progress(max(0, total - left), total)
        if left:
            raise Busy("messages of the session are changed again and again while they are summarised; try again")

    def _lease(self, session_id: str, owner: str | None, wait_s: float) -> str:
        """A lease, once nobody else has one. Raises Busy."""
        seconds, until = self._summarizer.longest_s + _SPARE_S, time.monotonic() + wait_s
        while True:
            token = self._store.write(lambda uow: uow.leases.take(session_id, PURPOSE, seconds), owner=owner)
            if token is not None:
                return token
            if time.monotonic() >= until:
                raise Busy(f"somebody else works on the session, and has not ended within {wait_s:g} s; try again")
            time.sleep(_LOOK_AGAIN_S)

    def _range(self, session_id: str, owner: str | None, before: int, token: str) -> bool:
        """Summarise the next messages; False where they were changed meanwhile. The lease is given back in any case."""
        stored = False
        try:
            seen = self._store.read(lambda uow: uow.summaries.next(session_id, before), owner=owner)
            if seen is None:
                return True
            groups = self._fitting(seen.groups)
            through = groups[-1][-1].position or 0
            messages = [message for group in groups for message in group if _says_something(message)]
            values = self._made(seen.session, messages)
            stored = self._store.write(
                lambda uow: uow.summaries.store(seen.session, through, values, token), owner=owner
            )
        finally:
            if not stored:
                with suppress(MiraiMemoryError):  # it runs out by itself
                    self._store.write(lambda uow: uow.leases.release(session_id, token), owner=owner)
        if stored:
            logger.info("session {}: summarised through position {}", session_id, through)
        return stored

    def _fitting(self, groups: Sequence[list[Message]]) -> Sequence[list[Message]]:
        """As many whole groups as one question may hold, but one always."""
        tokens = 0
        for number, group in enumerate(groups):
            tokens += sum(self._counter.count(message.content) for message in group)
            if number and tokens > INPUT_TOKENS:
                return groups[:number]
        return groups

    def _made(self, session: Session, messages: Sequence[Message]) -> dict[str, object]:
        """What the session is to have: the summary, how it was made, and what it and all that it tells count."""
        tokens = sum(self._counter.count(message.content) for message in messages)
        summary = session.summary or ""
        if messages:
            summary = self._summarizer.summarize(
                self._shortened(messages, tokens), previous=session.summary, max_tokens=self._settings.summary_tokens
            )
        return {
            "summary": summary,
            "summary_method": self._summarizer.name,
            "summary_tokens": self._counter.count(summary),
            "summary_source_tokens": (session.summary_source_tokens or 0) + tokens,
        }

    def _shortened(self, messages: Sequence[Message], tokens: int) -> Sequence[Message]:
        """One group may be too much for any model: of each of its messages the beginning, then."""
        if tokens <= INPUT_TOKENS:
            return messages
        most = max(1, INPUT_TOKENS // len(messages))
        return [replace(message, content=beginning(message.content, most, self._counter)) for message in messages]

    # In the background

    def _work_off(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            session_id, wait_s = self._agenda().next()
            if session_id is not None:
                self._work_on(session_id, stopping)
            elif wait_s is not None:
                stopping.wait(wait_s)
            else:
                return

    def _work_on(self, session_id: str, stopping: threading.Event) -> None:
        try:
            self._run(session_id, None, None, 0.0, None)
        except (NotFound, Busy):
            return  # deleted, or somebody else's work
        except ModelError as error:
            if self._failures < _TRIES:
                self._agenda().add([session_id])
            rest = min(_FIRST_REST_S * 2**self._failures, _LONGEST_REST_S)
            if not self._failures:
                logger.warning("{}; messages are kept, and summarised when it works again", error)
            self._failures = min(self._failures + 1, 10)
            stopping.wait(rest)
        else:
            if self._failures:
                logger.info("summarizer {!r} works again", self._summarizer.name)
            self._failures = 0


class _Agenda:
    """Sessions that are to be summarised: when each was first named, and when last."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._named: dict[str, tuple[float, float]] = {}

    def add(self, session_ids: Iterable[str]) -> None:
        now = time.monotonic()
        with self._changing:
            for id in session_ids:
                if id in self._named or len(self._named) < self._MOST:
                    self._named[id] = (self._named.get(id, (now,))[0], now)

    def next(self) -> tuple[str | None, float | None]:
        """A session that is due, which is taken out; else in how many seconds one will be, None where none is there."""
        now = time.monotonic()
        with self._changing:
            if not self._named:
                return None, None
            due = {id: min(last + _QUIET_S, first + _LONGEST_DELAY_S) for id, (first, last) in self._named.items()}
            id = min(due, key=due.__getitem__)
            if due[id] > now:
                return None, due[id] - now
            del self._named[id]
            return id, None


def _says_something(message: Message) -> bool:
    return message.kind == "chat" and bool(message.content.strip() or message.tool_calls)
