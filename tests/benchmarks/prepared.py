"""What it costs that no statement is prepared: append and the newest 12, with and without, in turns.

    python tests/benchmarks/prepared.py URL [--rounds 200]

The database at URL is at head; an owner of the benchmark's own is forgotten at the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

from sqlalchemy import event

from mirai_memory import MemoryManager, Message

OWNER = "benchmark-of-prepared-statements"
WARM = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    with MemoryManager(arguments.url) as without, MemoryManager(arguments.url) as prepared:
        without._database.dispose()
        prepared._database.dispose()
        engine = prepared._database.engine
        event.listen(engine, "connect", lambda driver, _: setattr(driver, "prepare_threshold", 5))
        memories = {"without": without, "prepared": prepared}
        sessions = {name: memory.create_session(OWNER).id for name, memory in memories.items()}
        for round_ in range(WARM + arguments.rounds):
            for name, memory in memories.items():
                started = time.perf_counter()
                memory.add_message(Message(session_id=sessions[name], role="user", content="good tea in the morning"))
                appended = time.perf_counter()
                memory.get_recent_messages(sessions[name], 12)
                read = time.perf_counter()
                if round_ >= WARM:
                    times["append", name].append(appended - started)
                    times["newest 12", name].append(read - appended)
        without.forget_user(OWNER, compact=False)
    for call in ("append", "newest 12"):
        medians = {name: statistics.median(times[call, name]) for name in memories}
        ratio = medians["without"] / medians["prepared"]
        print(f"{call}: {1e3 * medians['without']:.2f} ms without prepared statements, x{ratio:.2f}")


if __name__ == "__main__":
    main()
