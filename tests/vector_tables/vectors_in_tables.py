"""What the tests of tables of vectors share."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mirai_memory import MemoryManager

Opened = Callable[..., AbstractContextManager[MemoryManager]]
Asked = Callable[..., list[tuple[Any, ...]]]


def table_rows(ask: Asked, table: str) -> set[tuple[Any, ...]]:
    """The rows of a table of pgvector's."""
    found = ask(f"SELECT embedding_id, kind, user_id, item_id, vector::text FROM {table}")
    return {(*row, tuple(round(number, 3) for number in json.loads(vector))) for *row, vector in found}


def known_vectors(ask: Asked, model: str = "fake") -> set[tuple[Any, ...]]:
    """The rows of ``embeddings`` as a table of pgvector's has them."""
    columns = "id, kind, user_id, item_id, vector"
    found = ask(f"SELECT {columns} FROM embeddings WHERE status = 'ready' AND model = %s", model)
    return {(*row, _numbers(vector)) for *row, vector in found}


def _numbers(packed: bytes) -> tuple[float, ...]:
    return tuple(round(number, 3) for number in struct.unpack(f"<{len(packed) // 2}e", packed))
