"""What was said, as sentences: each with who said it and when. Code, links and unbroken strings are cut out or short.

A summary of before is read the same way: its lines name a speaker, or a day on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from mirai_memory.entities import Message
from mirai_memory.summaries._days import day_line, day_of_line, with_days

LONGEST: Final = 300  # characters of a sentence; one without an end is cut at a word
_READ: Final = 20_000  # characters of a message: more of it would crowd out all others
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_LINK: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/?#<>\"]{1,80})[^\s<>\"]*", re.IGNORECASE)
_UNBROKEN: Final = re.compile(r"[!-~]{41,}")  # keys, hashes, base64; scripts without spaces are no such thing
_ENDS: Final = re.compile(r"(?<=[.!?…])[\"'»”)\]]*\s+|(?<=[。！？])|\s*\n+\s*")
_SPEAKER: Final = re.compile(r"([^:\n]{1,60}): (.+)")
_BULLET: Final = re.compile(r"^[\s>#*•–—-]+|^\d+[.)]\s+")
_HAS_WORD: Final = re.compile(r"[^\W\d_]{2}|\d")
# Who speaks in a conversation. What tools answered and what a system was told is neither said nor agreed by anybody.
_VOICES: Final = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    speaker: str
    day: date | None
    kept: bool = False  # it was in the summary before


def of_messages(messages: Sequence[Message]) -> list[Sentence]:
    """Sentences in order; those of users and assistants, or of whoever there is where they said nothing."""
    found = [sentence for message in messages if message.role in _VOICES for sentence in _of_message(message)]
    return found or [sentence for message in messages for sentence in _of_message(message)]


def _of_message(message: Message) -> Iterator[Sentence]:
    day = _day(message.timestamp)
    speaker = " ".join((message.name or message.role or "").split()).replace(":", "")[:60]
    for text in split(message.content[:_READ]):
        yield Sentence(with_days(text, day), speaker, day)


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.astimezone(UTC).date() if moment.tzinfo else moment.date()


def of_summary(summary: str) -> Iterator[Sentence]:
    """The sentences of a summary, whoever wrote it."""
    day = None
    for line in summary.splitlines():
        named = day_of_line(line)
        if named is not None:
            day = named
            continue
        spoken = _SPEAKER.fullmatch(line.strip())
        speaker, said = spoken.groups() if spoken else ("", line)
        for text in split(said):
            yield Sentence(text, speaker, day, kept=True)


def split(text: str) -> Iterator[str]:
    """The sentences of a text that have a word in them."""
    plain = _LINK.sub(r"\1", _CODE.sub("\n", text))
    plain = _UNBROKEN.sub(lambda found: f"{found[0][:20]}…", plain)
    for part in _ENDS.split(plain):
        sentence = " ".join(_BULLET.sub("", part).split())
        if _HAS_WORD.search(sentence):
            yield _shortened(sentence)


def _shortened(sentence: str) -> str:
    if len(sentence) <= LONGEST:
        return sentence
    cut = sentence[:LONGEST]
    return f"{cut[: cut.rfind(' ', LONGEST // 2)] if ' ' in cut[LONGEST // 2 :] else cut}…"


def lines(sentences: Iterable[Sentence], *, russian: bool) -> Iterator[str]:
    """Sentences as a summary's text: a day where it changes, a speaker where another one speaks."""
    day: date | None = None
    said: list[str] = []
    speaker: str | None = None
    for sentence in sentences:
        new_day = sentence.day is not None and sentence.day != day
        if said and (new_day or sentence.speaker != speaker):
            yield _line(speaker, said)
            said = []
        if new_day and sentence.day is not None:
            day = sentence.day
            yield day_line(day, russian=russian)
        speaker = sentence.speaker
        said.append(sentence.text)
    if said:
        yield _line(speaker, said)


def _line(speaker: str | None, said: Sequence[str]) -> str:
    return f"{speaker}: {' '.join(said)}" if speaker else " ".join(said)
