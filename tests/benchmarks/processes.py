"""Whole processes: eight that write to one file, and one from its start to its first durable write.

    python tests/benchmarks/processes.py [--quick] [--json FILE] [--dir FOLDER]

The arms take turns. "queue" is what the package does; "busy_timeout" is the same without the queue of writers, as
SQLite has it. A share is how many writes a process got done in the time, by that of the process with the most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measure
import rawsql

from mirai_memory import Message

WRITERS = 8
WRITER = "--writer"
FIRST_WRITE = """
from mirai_memory import MemoryManager, Message, load_settings
with MemoryManager({path!r}, settings=load_settings(memory={{"rag": {{"embedder": "none"}}}})) as memory:
    memory.add_message(Message(session_id={session!r}, role="user", content="good morning"))
"""
BARE = """
from sqlalchemy import create_engine
with create_engine("sqlite:///" + {path!r}).connect() as connection:
    connection.exec_driver_sql("SELECT 1")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What eight writers got done together."""

    writes: int
    errors: int
    least_share: float
    worst_wait_s: float


def write(path: Path, seconds: float, arm: str) -> None:
    """One of the writers, in a process of its own."""
    with rawsql.opened(path) as memory:
        if arm == "busy_timeout":
            memory._database.queue = None
        session = memory.create_session("owner").id
        memory.add_message(Message(session_id=session, role="user", content="warm"))
        print("ready", flush=True)
        sys.stdin.readline()
        done, errors, worst, end = 0, 0, 0.0, time.monotonic() + seconds
        while (started := time.monotonic()) < end:
            try:
                memory.add_message(Message(session_id=session, role="user", content=f"message number {done}"))
                done += 1
            except Exception:
                errors += 1
            worst = max(worst, time.monotonic() - started)
    print(json.dumps([done, errors, worst]))


def crowd(folder: Path, seconds: float, arm: str) -> Crowd:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, __file__, WRITER, str(Path(place) / "crowd.db"), str(seconds), arm]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WRITERS)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        results = [json.loads(writer.communicate()[0]) for writer in writers]
    counts = [done for done, _, _ in results]
    return Crowd(
        writes=sum(counts),
        errors=sum(errors for _, errors, _ in results),
        least_share=min(counts) / max(1, *counts),
        worst_wait_s=max(worst for _, _, worst in results),
    )


def crowds(folder: Path, seconds: float, rounds: int) -> Iterator[tuple[str, list[Crowd]]]:
    runs: dict[str, list[Crowd]] = {"queue": [], "busy_timeout": []}
    for _ in range(rounds):
        for arm, done in runs.items():
            done.append(crowd(folder, seconds, arm))
    yield from runs.items()


def cold(folder: Path, rounds: int) -> list[measure.Result]:
    """A process that imports the package, opens an existing file and writes; and one that only opens it."""
    path = folder / "cold.db"
    with rawsql.opened(path) as memory:
        session = memory.create_session("owner").id
    arms: dict[str, measure.Call] = {
        name: lambda script=script: subprocess.run([sys.executable, "-c", script], check=True)  # type: ignore[misc]
        for name, script in (
            ("first durable write", FIRST_WRITE.format(path=str(path), session=session)),
            ("SQLAlchemy and SQLite opened", BARE.format(path=str(path))),
        )
    }
    return measure.interleaved("cold process", arms, rounds=rounds, base="SQLAlchemy and SQLite opened", warm_up=1)


def _printed(runs: dict[str, list[Crowd]]) -> Iterator[str]:
    yield f"| {WRITERS} writers | writes, median | worst wait, median | least share, median | errors |"
    yield "|---|---:|---:|---:|---:|"
    for arm, done in runs.items():
        writes, wait, share = (
            statistics.median(getattr(run, name) for run in done) for name in ("writes", "worst_wait_s", "least_share")
        )
        yield f"| {arm} | {writes:.0f} | {wait:.2f} s | {share:.2f} | {sum(run.errors for run in done)} |"


def main() -> None:
    if sys.argv[1:2] == [WRITER]:
        write(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="a folder on the disk to measure")
    arguments = parser.parse_args()
    seconds, rounds = (0.3, 1) if arguments.quick else (5.0, 5)
    facts = measure.machine()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.dir) as name:
        started = cold(Path(name), 3 if arguments.quick else 15)
        runs = dict(crowds(Path(name), seconds, rounds))
    print("\nsynchronous=FULL; " + ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    print(measure.table(started), end="\n\n")
    print("\n".join(_printed(runs)))
    if arguments.json:
        found: dict[str, Any] = measure.report(started, facts)
        found["writers"] = {arm: [asdict(run) for run in done] for arm, done in runs.items()}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
