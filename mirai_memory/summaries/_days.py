"""Days in words: "yesterday" says nothing once the day is past, so a summary says which day that was."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final

_MONTHS: Final = (
    "January February March April May June July August September October November December",
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
)
_ENGLISH, _RUSSIAN = (names.split() for names in _MONTHS)
_NUMBERS: Final = {name.lower(): number for names in (_ENGLISH, _RUSSIAN) for number, name in enumerate(names, 1)}
_LINE: Final = re.compile(r"(\d{1,2}) ([^\W\d_]{3,9}) (\d{4}):?")
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RUSSIAN_WEEKDAYS: Final = ("понедельник", "вторник", "сред", "четверг", "пятниц", "суббот", "воскресень")
_STEPS: Final = {
    "yesterday": -1, "last night": -1, "tomorrow": 1, "вчера": -1, "позавчера": -2, "завтра": 1, "послезавтра": 2,
}  # fmt: skip
_COUNTS: Final = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "два": 2, "две": 2, "три": 3, "четыре": 4,
}  # fmt: skip
_RELATIVE: Final = re.compile(
    r"\b(?:(?P<step>yesterday|last night|tomorrow|позавчера|вчера|послезавтра|завтра)"
    r"|(?:last|this past) (?P<weekday>mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|в прошл\w{2,3} (?P<russian>понедельник|вторник|среду|четверг|пятницу|субботу|воскресенье)"
    r"|(?P<count>\d{1,2}|two|three|four|five|six|два|две|три|четыре) (?P<unit>days?|weeks?|дня|дней|недели|недель)"
    r" (?:ago|назад))\b(?! \()",
    re.IGNORECASE,
)


def day_line(day: date, *, russian: bool) -> str:
    names = _RUSSIAN if russian else _ENGLISH
    return f"{day.day} {names[day.month - 1]} {day.year}"


def day_of_line(line: str) -> date | None:
    """The day that a line consists of."""
    found = _LINE.fullmatch(line.strip())
    if found is None or found[2].lower() not in _NUMBERS:
        return None
    try:
        return date(int(found[3]), _NUMBERS[found[2].lower()], int(found[1]))
    except ValueError:
        return None


def with_days(text: str, day: date | None) -> str:
    """The text with the day behind each word that means one by its distance from ``day``."""
    return text if day is None else _RELATIVE.sub(_explained(day), text)


def _explained(day: date) -> Callable[[re.Match[str]], str]:
    def explained(found: re.Match[str]) -> str:
        try:
            meant = _meant(found, day)
        except OverflowError:
            return found[0]
        russian = not found[0].isascii()
        return f"{found[0]} ({_named(meant, day, russian=russian)})"

    return explained


def _named(meant: date, day: date, *, russian: bool) -> str:
    """Without the year where it is that of the day itself."""
    line = day_line(meant, russian=russian)
    return line if meant.year != day.year else line.rsplit(" ", 1)[0]


def _meant(found: re.Match[str], day: date) -> date:
    if found["step"]:
        return day + timedelta(days=_STEPS[found["step"].lower()])
    if found["weekday"] or found["russian"]:
        name = (found["weekday"] or found["russian"]).lower()
        names = _WEEKDAYS if found["weekday"] else _RUSSIAN_WEEKDAYS
        wanted = next(number for number, stem in enumerate(names) if name.startswith(stem))
        return day - timedelta(days=(day.weekday() - wanted - 1) % 7 + 1)
    count = found["count"].lower()
    number = int(count) if count.isdecimal() else _COUNTS[count]
    return day - timedelta(days=number * (7 if found["unit"][0].lower() in "wн" else 1))
