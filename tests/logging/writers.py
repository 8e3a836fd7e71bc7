"""Processes that write into one log: ``python writers.py METHOD LOG PROCESSES LINES MAX_BYTES``."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from mirai_memory.logging import configure_logging, logger


def configure(path: str, max_bytes: int) -> None:
    rotate = SimpleNamespace(enabled=True, max_bytes=max_bytes, backup_count=100_000)
    logs = SimpleNamespace(path=Path(path), level="INFO", format="json", rotate=rotate, fields=["message"])
    configure_logging(SimpleNamespace(monitoring=SimpleNamespace(logs=logs)))


def write(number: int, lines: int) -> None:
    ours = logger.patch(lambda record: record.update(name="mirai_memory.writers"))
    for line in range(lines):
        ours.info("writer {} line {} {}", number, line, "x" * (line % 97))


def spawned(number: int, lines: int, path: str, max_bytes: int) -> None:
    logger.remove()
    configure(path, max_bytes)
    write(number, lines)


def main(method: str, path: str, processes: int, lines: int, max_bytes: int) -> int:
    logger.remove()  # loguru's own sink on stderr
    if method == "fork":
        configure(path, max_bytes)  # before the fork: the children use the parent's sink
        children = []
        for number in range(processes):
            child = os.fork()
            if child == 0:
                write(number, lines)
                os._exit(0)
            children.append(child)
        return max(os.waitpid(child, 0)[1] for child in children)
    context = multiprocessing.get_context(method)
    started = [context.Process(target=spawned, args=(n, lines, path, max_bytes)) for n in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return max(process.exitcode or 0 for process in started)


if __name__ == "__main__":
    method, path, *numbers = sys.argv[1:]
    sys.exit(main(method, path, *map(int, numbers)))
