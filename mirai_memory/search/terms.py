"""What of an item is indexed: the same rule when it is written and when the index is made anew."""

from __future__ import annotations

from datetime import datetime

from mirai_memory._render import HASHED_KEY
from mirai_memory.search.analyzer import index_terms


def message_terms(content: str, name: str | None, timestamp: datetime) -> list[str]:
    """Who spoke and when are searched with what was said."""
    return index_terms(content, speaker=name, when=timestamp)


def knowledge_terms(key: str, value: str) -> list[str]:
    """A key is text too: the fact ``favorite_drink = tea`` is found by "drink"."""
    return index_terms(value if key.startswith(HASHED_KEY) else f"{key}\n{value}")
