"""A process of threads that append: ``python many_writers.py URL NAME THREADS CALLS SESSION...``.

It says "ready", waits for a line, and then what each thread was given: ids and positions are for the tests to judge.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from mirai_memory import MemoryManager, Message


def main(url: str, name: str, threads: int, calls: int, sessions: list[str]) -> None:
    with MemoryManager(url) as memory, ThreadPoolExecutor(threads) as pool:
        go = threading.Event()

        def write(thread: int) -> list[int]:
            go.wait()
            session = sessions[thread % len(sessions)]
            texts = (f"{name} thread {thread} number {number} drinks tea" for number in range(calls))
            return [memory.add_message(Message(session_id=session, role="user", content=text)) for text in texts]

        working = [pool.submit(write, thread) for thread in range(threads)]
        print("ready", flush=True)
        sys.stdin.readline()
        go.set()
        print(json.dumps([future.result() for future in working]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
