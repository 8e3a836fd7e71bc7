"""How fast one owner is exported and imported, and how much memory that takes.

    python tests/benchmarks/exporting.py [--messages 1000000] [--messages 10000]

The owner has sessions of 200 messages, a task for each session and a fact for every ten messages. Each step runs in a
process of its own, whose peak of resident memory is reported beside that of one that only opens the database.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import rawsql
from corpus import Corpus

from mirai_memory import Knowledge, MemoryManager, Message, Task

SESSION = 200
OWNER = "owner"


def fill(memory: MemoryManager, messages: int) -> None:
    texts, alone = Corpus().messages(messages), memory.for_user(OWNER)
    while said := list(islice(texts, SESSION)):
        session = alone.create_session().id
        roles = ("user", "assistant")
        ids = alone.add_messages(
            [Message(session_id=session, role=roles[n % 2], content=text) for n, text in enumerate(said)]  # type: ignore[arg-type]
        )
        alone.add_task(Task(session_id=session, description=said[0][:80]))
        facts = [Knowledge(user_id=OWNER, value=f"{id}: {said[n][:80]}", message_id=id) for n, id in enumerate(ids)]
        alone.add_knowledge_many(facts[::10])


def peak_mib() -> float:
    """Of this process: what getrusage says may be the peak of the one that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def step(name: str, database: Path, file: Path) -> None:
    """One step; a line of JSON about it."""
    with rawsql.opened(database) as memory:
        started = time.perf_counter()
        if name == "export":
            memory.export_user(OWNER, file)
        elif name == "check":
            memory.import_user(file, dry_run=True)
        elif name in ("import", "again"):
            memory.import_user(file)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib()}))


def measured(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--step", *arguments], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measure(messages: int, folder: Path) -> None:
    source, target, file = (folder / name for name in ("source.db", "target.db", "owner.jsonl"))
    with rawsql.opened(source) as memory:
        fill(memory, messages)
    print(f"{messages:,} messages, {messages // SESSION:,} tasks, {messages // 10:,} facts:")
    for name, database in (("open", source), ("export", source), ("import", target), ("again", target)):
        done = measured(name, str(database), str(file))
        rate = "" if name == "open" else f", {messages / done['seconds']:,.0f} messages a second"
        print(f"  {name:<7} {done['seconds']:7.2f} s, peak {done['peak_mib']:.0f} MiB{rate}")
    print(f"  file of {file.stat().st_size / 1e6:,.1f} MB, database of {source.stat().st_size / 1e6:,.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, action="append")
    parser.add_argument("--step", nargs=3, metavar=("NAME", "DATABASE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, database, file = arguments.step
        step(name, Path(database), Path(file))
        return
    for messages in arguments.messages or [1_000_000]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            measure(messages, Path(folder))


if __name__ == "__main__":
    main()
