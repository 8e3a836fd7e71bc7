"""A program that summarises when it is told to: ``python asking.py URL SESSION BASE_URL``, then a line on stdin."""

from __future__ import annotations

import sys

from mirai_memory import MemoryManager, load_settings

url, session, base_url = sys.argv[1:]
settings = load_settings(
    memory={
        "short_term": {"max_messages": 4, "auto_summarize": False, "summarizer": "openai"},
        "busy_timeout_ms": 60_000,
    },
    models={"chat": {"base_url": base_url, "timeout_s": 60}},
)
with MemoryManager(url, settings=settings) as memory:
    print("ready", flush=True)
    sys.stdin.readline()
    print(memory.summarize(session).summarized_through, flush=True)
