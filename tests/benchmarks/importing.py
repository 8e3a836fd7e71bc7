"""How fast a file is imported, and how much memory that takes.

    python tests/benchmarks/importing.py [FILE] [--messages 1000000]

Without FILE, a JSONL export of that many messages is made, 200 to a conversation. The import runs in a process of its
own, whose peak of resident memory is reported beside that of one that only opens the database.
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

from mirai_memory.importers import import_file

CONVERSATION = 200


def make(path: Path, messages: int) -> None:
    """A synthetic export: a line for each conversation."""
    texts = Corpus().messages(messages)
    with path.open("w", encoding="utf-8") as file:
        number = 0
        while said := list(islice(texts, CONVERSATION)):
            turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
            file.write(json.dumps({"id": f"chat-{number}", "messages": turns}, ensure_ascii=False) + "\n")
            number += 1


def take(path: Path | None, database: Path) -> None:
    """Import, or only open; one line of JSON about it."""
    started, added = time.perf_counter(), 0
    with rawsql.opened(database) as memory:
        if path is not None:
            added = import_file(memory.for_user("owner"), path).messages_added
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - started, "messages": added, "peak_mib": peak}))


def measured(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--take", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--take", type=Path, metavar="DATABASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.file, arguments.take)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = arguments.file or Path(folder) / "export.jsonl"
        if arguments.file is None:
            make(path, arguments.messages)
        opened = measured(str(Path(folder) / "empty.db"))
        done = measured(str(Path(folder) / "full.db"), str(path))
        rate = done["messages"] / done["seconds"]
        size = path.stat().st_size / 1e6
        print(f"{done['messages']:,} messages, {size:.0f} MB: {done['seconds']:.0f} s, {rate:,.0f} a second")
        print(f"peak {done['peak_mib']:.0f} MiB; {opened['peak_mib']:.0f} MiB to open an empty database")


if __name__ == "__main__":
    main()
