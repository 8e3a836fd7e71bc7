"""Cues: what a message tells beyond its words, and what a question asks for, in English and in Russian."""

from __future__ import annotations

import pytest

from mirai_memory.search.analyzer import query_terms
from mirai_memory.search.cues import (
    ASKS,
    ENDS_ASKING,
    NAMES_TIME,
    OF_ONESELF,
    NamedDate,
    Question,
    message_cues,
    read_question,
)

MONTHS = {
    1: "January Jan январь января январе",
    2: "February Feb февраль февраля феврале",
    3: "March Mar март марта марте",
    4: "April Apr апрель апреля апреле",
    5: "May май мая мае",
    6: "June Jun июнь июня июне",
    7: "July Jul июль июля июле",
    8: "August Aug август августа августе",
    9: "September Sep Sept сентябрь сентября сентябре",
    10: "October Oct октябрь октября октябре",
    11: "November Nov ноябрь ноября ноябре",
    12: "December Dec декабрь декабря декабре",
}


def _read(text: str, *names: str) -> Question:
    return read_question(text, query_terms(text), names)


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "cues"),
    [
        ("Where is it?", ASKS | ENDS_ASKING),
        ("Где это? \n", ASKS | ENDS_ASKING),
        ("これは何ですか？", ASKS | ENDS_ASKING),
        ("Really? Good.", ASKS),
        ("I went home", OF_ONESELF),
        ("Это моя собака", OF_ONESELF),
        ("Мы живём в Казани", OF_ONESELF),
        ("нашему коту пять", OF_ONESELF),
        ("She went yesterday", NAMES_TIME),
        ("Это было в 1999", NAMES_TIME),
        ("позавчера шёл дождь", NAMES_TIME),
        ("on the 3rd", NAMES_TIME),
        ("we moved two years ago, did you?", ASKS | ENDS_ASKING | OF_ONESELF | NAMES_TIME),
        ("Immy told a story of mines", 0),  # words that only begin like ours
        ("мостовая, нашествие", 0),
        ("room 2099999", 0),
        ("", 0),
    ],
)
def test_what_a_message_tells(content: str, cues: int) -> None:
    assert message_cues(content) == cues


def test_a_long_message_is_read_at_its_beginning() -> None:
    assert message_cues("x " * 1_000_000 + "I moved yesterday?") == 0
    assert message_cues("I asked? " + "x " * 1_000_000) == ASKS | OF_ONESELF


# --- questions: dates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "date",
    [
        "8 May 2023",
        "May 8, 2023",
        "May 8th 2023",
        "8th of May, 2023",
        "08.05.2023",
        "8.5.2023",
        "2023-05-08",
        "8 мая 2023",
    ],
)
def test_a_day_is_read_however_it_is_written(date: str) -> None:
    for text in (date, f"What did she say on {date}?", f"Что она сказала {date} года?", date.upper(), date.lower()):
        assert _read(text).dates == (NamedDate(5, 8, 2023),), text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("who came on 8 May?", NamedDate(5, 8)),
        ("кто пришёл 8 мая?", NamedDate(5, 8)),
        ("what happened in May 2023", NamedDate(5, None, 2023)),
        ("в мае 2023 года", NamedDate(5, None, 2023)),
        ("what happened in May?", NamedDate(5)),
        ("что было в мае?", NamedDate(5)),
        ("31 февраля 2023", NamedDate(2, None, 2023)),  # there is no such day, but such a month
        ("29 February", NamedDate(2, 29)),
        ("29.02.2024", NamedDate(2, 29, 2024)),
        ("1.1.1900", NamedDate(1, 1, 1900)),
        ("31.12.2099", NamedDate(12, 31, 2099)),
    ],
)
def test_a_date_may_lack_its_day_or_its_year(text: str, named: NamedDate) -> None:
    assert _read(text).dates == (named,)


@pytest.mark.parametrize("month", MONTHS)
def test_every_name_of_a_month_is_known(month: int) -> None:
    for name in MONTHS[month].split():
        assert _read(f"on 7 {name} 2023").dates == (NamedDate(month, 7, 2023),), name
        assert _read(f"{name} 2023").dates == (NamedDate(month, None, 2023),), name


@pytest.mark.parametrize(
    "text",
    [
        "31 February",
        "31 февраля",
        "31.02.2023",
        "2023-02-31",
        "29.02.2023",
        "2023-13-01",
        "00.05.2023",
        "39 May",
        "May 9999",
        "08.05.9999",
        "08.05.0001",
        "0001-05-08",
        "you may ask 2023 things",
        "march on",
        "версия 1.2.3",
        "192.168.10.1",
        "",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert _read(text).dates == ()


def test_a_year_beyond_the_two_centuries_is_passed_over() -> None:
    assert _read("8 May 9999").dates == _read("8 May 1").dates == (NamedDate(5, 8),)


def test_several_dates_in_one_question() -> None:
    found = _read("between 8 May 2023 and 09.06.2023, or in июле 2024").dates
    assert set(found) == {NamedDate(5, 8, 2023), NamedDate(6, 9, 2023), NamedDate(7, None, 2024)}
    assert _read("8 May 2023, that is 08.05.2023").dates == (NamedDate(5, 8, 2023),)


# --- questions: when --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "When did she move?",
        "How long is he married?",
        "for how many years",
        "what day was it",
        "Which year?",
        "Когда она переехала?",
        "Как давно они знакомы?",
        "сколько лет прошло",
        "С каких пор?",
        "Какого числа?",
        "в каком году",
        "в какой день",
    ],
)
def test_a_question_for_a_time(text: str) -> None:
    assert _read(text).asks_when


@pytest.mark.parametrize(
    "text", ["Where is she?", "whenever", "how many cats", "Где она?", "сколько кошек", "никогда", ""]
)
def test_a_question_for_something_else(text: str) -> None:
    assert not _read(text).asks_when


# --- questions: names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "speakers", "terms"),
    [
        ("What did Caroline buy?", ("Caroline",), ("buy",)),
        ("what did caroline buy?", ("Caroline",), ("buy",)),
        ("Caroline's car", ("Caroline",), ("car",)),
        ("What did Mel buy?", ("Melanie",), ("buy",)),
        ("Did Mel see Caroline?", ("Caroline", "Melanie"), ("see",)),
        ("Что купила Маша Петрова?", ("Маша Петрова",), ("куп",)),
        ("Что купила Петрова?", ("Маша Петрова",), ("куп",)),
        ("a melon for mel", (), ("melon", "mel")),  # a nickname has a capital
        ("Me and my car", (), ("car",)),
        ("The car", (), ("car",)),  # no nickname of Theodore: a stop word
        ("Ca buys", (), ("ca", "buy")),  # too short
        ("Caroline", ("Caroline",), ("carolin",)),  # nothing else is left to look for
    ],
)
def test_who_is_named(text: str, speakers: tuple[str, ...], terms: tuple[str, ...]) -> None:
    question = _read(text, "Caroline", "Melanie", "Маша Петрова", "Theodore")
    assert question.speakers == speakers
    assert question.terms == terms


def test_a_crowd_has_no_names() -> None:
    crowd = [f"Nobody{number}" for number in range(300)]
    assert _read("Caroline's car", *crowd[1:], "Caroline").speakers == ("Caroline",)
    assert _read("Caroline's car", *crowd, "Caroline").speakers == ()
