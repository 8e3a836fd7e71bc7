"""What of an item is indexed: the same rule when it is written and when the index is made anew."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from mirai_memory._render import HASHED_KEY
from mirai_memory.search.analyzer import index_terms
from mirai_memory.search.base import Place
from mirai_memory.search.cues import message_cues

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A speaker is a name, or the role where there is none. A role is nobody that a question could name.
_NAME, _ROLE = "name:", "role:"


def message_terms(content: str, name: str | None, timestamp: datetime) -> list[str]:
    """Who spoke and when are searched with what was said."""
    return index_terms(content, speaker=name, when=timestamp)


def message_place(
    content: str, name: str | None, role: str | None, timestamp: datetime, session_id: str, position: int
) -> Place:
    return Place(
        session=session_number(session_id),
        position=position,
        speaker=_NAME + name if name else _ROLE + (role or ""),
        cues=message_cues(content),
        time=microseconds(timestamp),
    )


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def session_number(session_id: str) -> int:
    """A session as a number of 63 bits: eight bytes to read, not forty, and the chance of two alike is none."""
    return int.from_bytes(hashlib.blake2b(session_id.encode(), digest_size=8).digest(), "big") >> 1


def named_speaker(speaker: str) -> str | None:
    """The name of a speaker that has one."""
    return speaker.removeprefix(_NAME) if speaker.startswith(_NAME) else None


def knowledge_terms(key: str, value: str) -> list[str]:
    """A key is text too: the fact ``favorite_drink = tea`` is found by "drink"."""
    return index_terms(value if key.startswith(HASHED_KEY) else f"{key}\n{value}")
