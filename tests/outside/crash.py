"""A program that dies in the middle: ``python crash.py`` reads cases as JSON, a line each, and answers likewise.

A case is {"file": ..., "do": a step's number or "upgrade" or "downgrade", "at": n}: a child of its own does it and is
killed before the n-th operation that changes the disk. The answer is [acknowledged, killed]. Forked, since starting
Python and importing takes a hundred times as long as what is tested.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import alembic.command  # noqa: F401 - imported here once, not by every child
from disk import Disk, installed
from work import FrozenClock, do, opened

from mirai_memory import schema


def _work(case: dict[str, Any], acknowledge: int) -> None:
    disk = Disk()
    disk.kill_at(case["at"])
    with installed(disk):
        if case["do"] == "downgrade":
            schema.downgrade(case["file"], revision="0001")
            os.write(acknowledge, b".")
            return
        clock = FrozenClock()
        with opened(Path(case["file"]), clock) as memory:
            if case["do"] != "upgrade":
                do(memory, clock, case["do"])
            os.write(acknowledge, b".")


def _run(case: dict[str, Any]) -> tuple[bool, bool]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _work(case, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    acknowledged = os.read(reading, 1) == b"."
    os.close(reading)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{case} failed by itself")
    return acknowledged, killed


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
