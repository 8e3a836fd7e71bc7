"""A program that dies while it summarises: ``python dying.py`` reads cases as JSON, a line each, and answers likewise.

A case is {"url": ..., "session": ..., "at": n, "log": ...}: a child of its own summarises the session and is killed
before the n-th step, be it a transaction or a question to the summariser; every question is noted in the file ``log``.
The answer is whether it was killed. Forked, since starting Python and importing takes longer than what is tested.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirai_memory import MemoryManager, load_settings
from mirai_memory.services import summaries
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.clock import FrozenClock

WINDOW, RANGE = 4, 3


def settings(**short_term: Any) -> Any:
    return load_settings(
        memory={"short_term": {"max_messages": WINDOW, "auto_summarize": False, **short_term}, "busy_timeout_ms": 0}
    )


class Noting(FakeSummarizer):
    """Notes each question in a file before it answers."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = Path(log)

    def summarize(self, messages: Any, *, previous: Any, max_tokens: Any) -> Any:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps([message.content for message in messages]) + "\n")
        return super().summarize(messages, previous=previous, max_tokens=max_tokens)


def _work(case: dict[str, Any]) -> None:
    steps = 0

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == case["at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **named)

        return run

    summaries.LOOKED_AT = RANGE
    with MemoryManager(case["url"], settings=settings(), summarizer=Noting(case["log"]), clock=FrozenClock()) as memory:
        store: Any = memory._store
        store.read, store.write = dying(store.read), dying(store.write)
        guarded: Any = memory._tools.summarizing._summarizer
        guarded.summarize = dying(guarded.summarize)
        if case["do"] == "trim":
            memory.settings.memory.short_term.__dict__["auto_summarize"] = True
            memory.trim_old_messages(case["session"])
        else:
            memory.summarize(case["session"])


def _run(case: dict[str, Any]) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _work(case)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{case} failed by itself")
    return killed


if __name__ == "__main__":
    MemoryManager(":memory:", settings=settings()).close()  # imported here once, not by every child
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
