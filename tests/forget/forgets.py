"""Forgets an owner and prints a line after each batch, for whoever wants to end it in between."""

from __future__ import annotations

import sys

from mirai_memory import MemoryManager, load_settings, retention

retention._MOST = retention._FIRST = 20  # many batches
settings = load_settings(memory={"rag": {"embedder": "none"}})
with MemoryManager(sys.argv[1], settings=settings) as memory:
    memory.forget_user(sys.argv[2], progress=lambda done, total: print(done, flush=True))
