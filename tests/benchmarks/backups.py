"""What a backup costs beside ``cp`` and a sync, and what a drill costs, in time and memory.

    python tests/benchmarks/backups.py [DATABASE] [--megabytes 1000] [--rounds 5]

Without DATABASE one of about that size is made. The arms take turns; ``backup`` is the whole of it, with its checks and
its seal, ``cp and sync`` copies the closed file and brings the copy to the disk. Backup and drill are run once more in
processes of their own, for their peaks of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import rawsql
from corpus import Corpus
from measure import interleaved, table

from mirai_memory import MemoryManager, Message

_BATCH = 500
_BATCHES_OF_SESSION = 4


def make(path: Path, megabytes: int) -> None:
    """A database of that size at least."""
    texts = Corpus().messages(1_000_000_000)
    with rawsql.opened(path) as memory:
        number = 0
        while path.stat().st_size < 1_000_000 * megabytes:
            if number % _BATCHES_OF_SESSION == 0:
                session = memory.create_session(f"owner {number % 97}").id
            said = islice(texts, _BATCH)
            memory.add_messages([Message(session_id=session, role="user", content=text) for text in said])
            number += 1


def copied(source: Path, target: Path) -> None:
    subprocess.run(["cp", source, target], check=True)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    target.unlink()


def backed_up(memory: MemoryManager, target: Path) -> None:
    memory.backup(target).path.unlink()


def peak(what: str, path: Path, folder: Path) -> None:
    """Do it, and print one line of JSON about it."""
    with rawsql.opened(path) as memory:
        backup = memory.backup(folder / "peak.db", overwrite=True)
        report = backup if what == "backup" else memory.drill_backup(backup.path)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"what": what, "seconds": report.seconds, "peak_mib": kilobytes / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=("backup", "drill"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak, arguments.database, arguments.folder)
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as name:
        folder = Path(name)
        path = arguments.database or folder / "memory.db"
        if arguments.database is None:
            make(path, arguments.megabytes)
        print(f"{path.stat().st_size / 1e6:,.0f} MB")
        with rawsql.opened(path) as memory:
            arms = {
                "cp and sync": lambda: copied(path, folder / "copy.db"),
                "backup": lambda: backed_up(memory, folder / "backup.db"),
            }
            print(table(interleaved("backup", arms, rounds=arguments.rounds, base="cp and sync", warm_up=1)))
        for what in ("backup", "drill"):
            command = [sys.executable, __file__, str(path), "--peak", what, "--folder", str(folder)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{what}: {said['seconds']:.1f} s, peak {said['peak_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
