"""How long it takes to forget one owner of many, to look for faults, and how much memory that takes.

    python tests/benchmarks/forgetting.py [--messages 1000000] [--quick] [--database FILE]

The owner has a hundredth of all messages, between those of others. Every step runs in a process of its own, whose peak
of resident memory is reported. While rows are deleted, while the files are written anew, and while all that is left is
cleaned up, another process writes; its longest waits are reported apart: the second of them grows with the file.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import rawsql
from corpus import Corpus

from mirai_memory import Message

OWNERS, SESSIONS, BATCH = 100, 20, 200
FORGOTTEN = "owner7"
_A_SECOND = 1 / 86_400  # in days: all but the session of the one who writes is older


def fill(path: Path, messages: int) -> None:
    chance = random.Random(1)
    texts = Corpus().messages(messages)
    with rawsql.opened(path) as memory:
        sessions = [[memory.create_session(f"owner{n}").id for _ in range(SESSIONS)] for n in range(OWNERS)]
        owner = 0
        while said := list(islice(texts, BATCH)):
            session = chance.choice(sessions[owner % OWNERS])
            owner += 1
            memory.add_messages([Message(session_id=session, role="user", content=text) for text in said])


def write(path: Path) -> None:
    """Somebody who goes on writing: the longest wait of a write in each phase, which is named on standard input."""
    with rawsql.opened(path) as memory:
        session = memory.create_session("writer").id
        print("ready", flush=True)
        phases: dict[str, float] = {}
        for phase in sys.stdin:
            stop = Path(f"{path}.{phase.strip()}")
            longest = 0.0
            while not stop.exists():
                started = time.perf_counter()
                memory.add_message(Message(session_id=session, role="user", content="good morning"))
                longest = max(longest, time.perf_counter() - started)
            phases[phase.strip()] = longest
            print(json.dumps(phases), flush=True)


def take(step: str, path: Path) -> None:
    """One step; one line of JSON about it."""
    with rawsql.opened(path) as memory:
        started = time.perf_counter()
        if step == "verify":
            about: dict[str, Any] = {"ok": memory.verify().ok}
        elif step == "cleanup":
            about = {"messages": memory.cleanup(_A_SECOND).messages}
        else:
            done = memory.forget_user(FORGOTTEN, compact=step != "rows")
            about = {"messages": done.messages, "state": done.state}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**about, "seconds": time.perf_counter() - started, "peak_mib": peak}))


def measured(step: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--take", step, "--database", str(path)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def waits(path: Path) -> dict[str, float]:
    """The longest wait of another process's write: while rows go, the files are written anew, the rest goes."""
    command = [sys.executable, __file__, "--write", "--database", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        answer = "{}"
        for step in ("rows", "files", "cleanup"):
            print(step, file=writer.stdin, flush=True)
            measured(step, path)
            Path(f"{path}.{step}").touch()
            answer = writer.stdout.readline()
        writer.stdin.close()
    return dict(json.loads(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 messages")
    parser.add_argument("--database", type=Path, help="one that was filled before, which is copied")
    parser.add_argument("--take", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.database)
    elif arguments.take:
        take(arguments.take, arguments.database)
    else:
        run(arguments.database, 20_000 if arguments.quick else arguments.messages)


def run(given: Path | None, messages: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "memory.db"
        if given is None:
            fill(path, messages)
        else:
            shutil.copy(given, path)
        print(f"{path.stat().st_size / 1e6:,.0f} MB")
        copy = shutil.copy(path, Path(folder) / "copy.db")
        for step in ("verify", "all", "verify"):
            done = measured(step, path)
            print(step, ", ".join(f"{name} {_shown(value)}" for name, value in done.items()))
        for step, seconds in waits(Path(copy)).items():
            print(f"longest wait of another's write, {step}: {seconds:.3f} s")


def _shown(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
