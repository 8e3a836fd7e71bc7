"""What a text tells beyond its words: that it asks, that it speaks of the speaker, that it names a time.

The lists are English and Russian; a text in another language has no cues and is found by its words alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from mirai_memory.search.analyzer import analyze
from mirai_memory.search.words import MONTHS, STOP_WORDS

__all__ = ["ASKS", "ENDS_ASKING", "NAMES_TIME", "OF_ONESELF", "NamedDate", "Question", "message_cues", "read_question"]

# The cues of a message, as bits of one number.
ASKS, ENDS_ASKING, OF_ONESELF, NAMES_TIME = 1, 2, 4, 8
_READ: Final = 20_000  # characters of a message: what it is about stands there, and nothing grows with longer ones
_SHORTEST_NICKNAME: Final = 3
_MOST_NAMES: Final = 300  # a scope with more speakers than this is a crowd, where a name says little

_OF_ONESELF: Final = re.compile(
    r"\b(?:i|my|mine|we|our|ours|я|мы|мо(?:й|я|[её]|и|его|ей|ему|им|ём|ем|ю|их|ими)|наш(?:а|е|и|его|ей|ему|им|ем|у|их|ими)?)\b",
    re.IGNORECASE,
)
_ENGLISH_MONTH = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
_RUSSIAN_MONTH = (
    "январ[ьяе]|феврал[ьяе]|март[ае]?|апрел[ьяе]|ма[йяе]|июн[ьяе]|июл[ьяе]|август[ае]?|сентябр[ьяе]|октябр[ьяе]"
    "|ноябр[ьяе]|декабр[ьяе]"
)
_NAMES_TIME: Final = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|ago|next|weeks?|weekends?|months?|years?|recently"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:19|20)\d\d|\d{1,2}(?:st|nd|rd|th)"
    r"|january|february|march|april|june|july|august|september|october|november|december"
    r"|(?:поза)?вчера|сегодня|(?:после)?завтра|назад|недавно|прошл\w+|следующ\w+|недел\w+|месяц\w*|год(?:а|у|ом|ы|ов)?|лет|выходн\w+"
    r"|понедельник\w*|вторник\w*|сред[ауы]|четверг\w*|пятниц\w+|суббот\w+|воскресень\w+"
    rf"|{_RUSSIAN_MONTH})\b",
    re.IGNORECASE,
)
_ASKS_WHEN: Final = re.compile(
    r"\b(?:when|how long|how many (?:days|weeks|months|years)|(?:what|which) (?:date|day|week|month|year|time)"
    r"|когда|как (?:долго|давно)|сколько (?:времени|дней|недель|месяцев|лет)|с каких пор|какого числа"
    r"|как(?:ой|ая|ого|ом|ую) (?:день|дат\w|месяц\w*|год\w*))\b",
    re.IGNORECASE,
)
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY = r"(?P<day>[0-3]?\d)"
_DATES: Final = tuple(
    re.compile(rf"\b{pattern}\b", re.IGNORECASE)
    for pattern in (
        rf"{_YEAR}-(?P<number>[01]?\d)-{_DAY}",
        rf"{_DAY}\.(?P<number>[01]?\d)\.{_YEAR}",
        rf"{_DAY}(?:st|nd|rd|th)?(?: of)? (?P<month>{_ENGLISH_MONTH}|{_RUSSIAN_MONTH})\.?,?(?: {_YEAR})?",
        rf"(?P<month>{_ENGLISH_MONTH})\.? {_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})?(?!\d)",
        rf"(?P<month>{_ENGLISH_MONTH}|{_RUSSIAN_MONTH})\.?,?(?: of)? {_YEAR}",
        # Without a day or a year "may" and "march" are other words as often as months.
        rf"(?:in|during|в) (?P<month>(?!may\b|mar\b|march\b)(?:{_ENGLISH_MONTH})|May|March|{_RUSSIAN_MONTH})",
    )
)
# By three letters, which are left of every case and abbreviation of a month; all but two cases of one.
_MONTH_NUMBERS: Final = {name[:3]: number for number, names in MONTHS.items() for name in names} | {"мая": 5, "мае": 5}
_WORD: Final = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class NamedDate:
    """A day, or a month where ``day`` is None, of one year, or of any where ``year`` is None."""

    month: int
    day: int | None = None
    year: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: its terms without the names of speakers, who is named, whether a time is wanted, named dates."""

    terms: tuple[str, ...]
    speakers: tuple[str, ...] = ()
    asks_when: bool = False
    dates: tuple[NamedDate, ...] = ()


def message_cues(content: str) -> int:
    """The cues of a message as bits."""
    text = content[:_READ]
    cues = 0
    if "?" in text or "？" in text:
        cues |= ASKS | (ENDS_ASKING if text.rstrip().endswith(("?", "？")) else 0)
    if _OF_ONESELF.search(text):
        cues |= OF_ONESELF
    if _NAMES_TIME.search(text):
        cues |= NAMES_TIME
    return cues


def read_question(text: str, terms: Sequence[str], names: Sequence[str]) -> Question:
    """The question as the signals use it; ``names`` are those of the speakers that may be named in it."""
    named, consumed = _named(text, terms, names)
    return Question(
        tuple(term for term in terms if term not in consumed) or tuple(terms),
        tuple(named),
        _ASKS_WHEN.search(text[:_READ]) is not None,
        tuple(_dates(text[:_READ])),
    )


def _named(text: str, terms: Sequence[str], names: Sequence[str]) -> tuple[list[str], set[str]]:
    """The speakers that are named, and the terms that name them: by any word of a name, or by a nickname."""
    capitals = [
        word
        for word in _WORD.findall(text[:_READ])
        if word[0].isupper() and len(word) >= _SHORTEST_NICKNAME and word.lower() not in STOP_WORDS
    ]
    named, consumed = [], set()
    for name in names[:_MOST_NAMES]:
        own = {term for term in analyze(name) if term in terms}
        for word in capitals:
            if any(part.lower().startswith(word.lower()) for part in _WORD.findall(name)):
                own.update(analyze(word))
        if own:
            named.append(name)
            consumed |= own
    return named, consumed


def _dates(text: str) -> list[NamedDate]:
    found: dict[NamedDate, None] = {}
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            named = _date_of(match.groupdict())
            if named:
                found[named] = None
                taken.append(match.span())
    return list(found)


def _date_of(parts: dict[str, str | None]) -> NamedDate | None:
    word, number, day, year = (parts.get(name) for name in ("month", "number", "day", "year"))
    month = _MONTH_NUMBERS[word.lower()[:3]] if word else int(number or 0)
    named = NamedDate(month, int(day) if day else None, int(year) if year else None)
    try:
        date(named.year or 2000, named.month, 1 if named.day is None else named.day)  # 2000: a leap year
    except ValueError:
        return None
    return named
