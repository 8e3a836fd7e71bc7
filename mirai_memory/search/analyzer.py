"""From text to search terms: the one analyser of both database engines, for what is indexed and what is asked.

The decisions, so that nobody has to guess them:

- A word is a run of letters, digits and the marks that belong to them, in any script. All else separates, ``_``, ``.``
  and ``-`` included: ``snake_case`` is two words, ``camelCase`` is one. C++, C#, F#, G++ and .NET get a spelling.
- Folded, for matching only: compatibility forms, case, ё -> е, accents of Latin and stress marks of Cyrillic (й stays
  й, ї stays ї). Numbers lose leading zeros and ordinal endings, so that "08.05", "8th" and "8" are the same day.
- Stop words go, irregular forms become their base form, then Snowball takes the ending: Russian for Cyrillic words,
  English for Latin ones. Words of other scripts, of two scripts or with digits stay as they are.
- Scripts written without spaces (Chinese, Japanese, Thai, Khmer ...) and Korean become pairs of neighbouring
  characters; a character that stands alone is a term. An index holds every such character alone as well, so that a
  query of one character finds the texts it occurs in.

A term has at most 64 characters, all of them letters, digits or marks: it can be joined with spaces or quoted for any
engine. Everything here takes time linear in the text, whatever the text.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final

import Stemmer

from mirai_memory.search.words import BASE_FORMS, MONTHS, SPELLED_SIGNS, STOP_WORDS

__all__ = ["ANALYZER", "ANALYZER_VERSION", "MAX_TERM_LENGTH", "analyze", "date_terms", "index_terms", "query_terms"]

# Stored beside the terms. Any change to what this module or words.py makes of a text needs a new
# number: the stored terms are then made anew.
ANALYZER_VERSION: int = 2
# What is stored: another stemmer makes other stems ("skis", between PyStemmer 3.0 and 3.1), so it is part of the name.
ANALYZER: Final = f"{ANALYZER_VERSION}/{Stemmer.version()}"
MAX_TERM_LENGTH: Final = 64

_QUERY_CHARACTERS: Final = 10_000  # more of a question than this says nothing new, and is not worth folding
_CACHED_WORDS: Final = 32_768  # about the vocabulary of one owner; near 10 MB when full


def _mark_ranges() -> str:
    """The combining marks as the inside of a regex set; ``\\w`` knows letters and digits only, and would cut Hindi."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x1F000):  # the marks beyond are variation selectors, which are ignored anyway
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _unaccented() -> dict[int, str | None]:
    """What each accented letter becomes; built from composed forms, so that й, ї and ў, being letters, stay."""
    table: dict[int, str | None] = dict.fromkeys(range(0x300, 0x370))  # accents that composed with nothing
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if ord(base) != code:
            table[code] = base
    return table | {ord("ё"): "е", ord("ѐ"): "е", ord("ѝ"): "и"}


_MARKS: Final = _mark_ranges()
_UNACCENTED: Final = _unaccented()
_WORD: Final = re.compile(rf"\w[\w{_MARKS}]*")  # "_" is made a space before
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
# Unicode's default ignorable characters: soft hyphens, joiners, directions, variation selectors, fillers.
_IGNORED: Final = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]+"
)
# Normalising sorts a run of marks by insertion: 40,000 of them took a second, the square of that for more. No
# language needs over a handful on one letter; 30 is also the limit of Unicode's stream-safe format. The set of marks is
# slow to search for, a gap between words is not, and every run of marks is one.
_LONG_GAP: Final = re.compile(r"\W{31}")
_MARK_FLOOD: Final = re.compile(f"[{_MARKS}]{{31,}}")
_UNSPACED: Final = re.compile(
    "[\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff\u1100-\u11ff\uac00-\ud7ff"  # Han, kana; Hangul
    "\u0e01-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1780-\u17d3]+"  # Thai, Lao, Burmese, Khmer
)
# Two apostrophes, the second a letter to Unicode; two marks whose compatible form would be glued to the word as "tm".
_PLAIN_SIGNS: Final = (("\u2019", "'"), ("\u02bc", "'"), ("™", " "), ("℠", " "))
_SIGNS: Final = re.compile(rf"(?<!\w)(?:(?:{'|'.join(map(re.escape, SPELLED_SIGNS))})(?![a-z])|won't)")
_ORDINAL: Final = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_LATIN: Final = re.compile("[a-zß-öø-ɏḀ-ỿ]+")
_CYRILLIC: Final = re.compile("[\u0400-\u0481\u048a-\u052f]+")


class _Stemmers(threading.local):
    """Stemmers keep state while they work, so every thread has its own; a forked child has its thread's."""

    def __init__(self) -> None:
        # 0: no cache of their own, _terms_of_word has one
        self.english = Stemmer.Stemmer("english", 0)
        self.russian = Stemmer.Stemmer("russian", 0)


_stemmers = _Stemmers()


def analyze(text: str) -> list[str]:
    """The terms of a text in order, repeats included.

    >>> analyze("Caroline's children went running in C++")
    ['carolin', 'child', 'go', 'run', 'cplusplus']
    >>> analyze("Краткие ответы, пожалуйста") == analyze("кратких ответов")
    True
    """
    terms: list[str] = []
    for word in _words(text):
        # Long words are rare and could fill the memory of a cache that counts entries.
        terms += _terms_of_word(word) if len(word) <= MAX_TERM_LENGTH else _terms_of_word.__wrapped__(word)
    return terms


def query_terms(text: str, *, limit: int = 32) -> list[str]:
    """The distinct terms of a query in order of first appearance, at most ``limit``; only its beginning is read.

    >>> query_terms("tea or coffee? Tea!")
    ['tea', 'coffe']
    """
    return list(dict.fromkeys(analyze(text[:_QUERY_CHARACTERS])))[: max(limit, 0)]


def date_terms(when: datetime) -> list[str]:
    """The terms a date is found by, in UTC: day, month in English and Russian, year.

    >>> date_terms(datetime(2023, 5, 8, tzinfo=UTC))
    ['8', 'may', 'ма', '2023']
    """
    day = when.astimezone(UTC) if when.tzinfo else when  # what is stored is UTC, and an index is made from it again
    return list(_terms_of_day(day.year, day.month, day.day))


@lru_cache(1_000)
def _terms_of_day(year: int, month: int, day: int) -> tuple[str, ...]:
    # Nearly every message is of the same day as the one before it.
    return tuple(analyze(f"{day} {' '.join(MONTHS[month])} {year}"))


def index_terms(content: str, *, speaker: str | None = None, when: datetime | None = None) -> list[str]:
    """The terms one indexed text is found by: its speaker's and its date's, where it has them, then its own.

    >>> index_terms("Adopting a cat", speaker="Mel", when=datetime(2023, 5, 8, tzinfo=UTC))
    ['mel', '8', 'may', 'ма', '2023', 'adopt', 'cat']
    >>> index_terms("黒猫")
    ['黒猫', '黒', '猫']
    """
    terms = [*(analyze(speaker) if speaker else ()), *(date_terms(when) if when else ()), *analyze(content)]
    return terms + list(dict.fromkeys(_paired_characters(terms)))


def _paired_characters(terms: list[str]) -> Iterator[str]:
    for term in terms:
        if len(term) == 2 and _UNSPACED.match(term):
            yield from filter(str.isalnum, term)


def _words(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(_spelled(text.lower()))
    folded = _UNSPACED.sub(r" \g<0> ", _spelled(_folded(text))).replace("_", " ")
    return _WORD.findall(folded)


def _folded(text: str) -> str:
    """NFKC and case folding; accents go later, per word, where a cache remembers the work."""
    text = _IGNORED.sub("", text)
    for sign, plain in _PLAIN_SIGNS:
        text = text.replace(sign, plain)
    if _LONG_GAP.search(text):
        text = _MARK_FLOOD.sub(lambda found: found[0][:30], text)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _spelled(text: str) -> str:
    if "+" in text or "#" in text or ".net" in text or "won't" in text:
        return _SIGNS.sub(lambda found: f" {SPELLED_SIGNS.get(found[0], '')} ", text)
    return text


@lru_cache(_CACHED_WORDS)
def _terms_of_word(word: str) -> tuple[str, ...]:
    if _UNSPACED.match(word):
        return tuple(map("".join, pairwise(word))) or (word,)
    if not word.isascii():
        # Cut before folding, generously: what is cut off can hold a whole text, accents included.
        bare = word[: 4 * MAX_TERM_LENGTH].translate(_UNACCENTED)
        word = unicodedata.normalize("NFC", bare)
    if len(word) > MAX_TERM_LENGTH:
        return (word[:MAX_TERM_LENGTH],)  # no stem: what the word ends in is not known
    return () if word in STOP_WORDS else (_stem(BASE_FORMS.get(word, word)),)


def drop_cached() -> None:
    """Remember none of the words that were analysed."""
    _terms_of_word.cache_clear()


def _stem(word: str) -> str:
    if _LATIN.fullmatch(word):
        stem = _stemmers.english.stemWord(word)
    elif _CYRILLIC.fullmatch(word):
        stem = _stemmers.russian.stemWord(word)
    else:
        return _number(word)
    return str(stem)[:MAX_TERM_LENGTH] or word


def _number(word: str) -> str:
    """A number as ``str(int())`` writes it, in the digits of any script; any other word as it is."""
    ordinal = _ORDINAL.fullmatch(word)
    digits = ordinal[1] if ordinal else word
    return str(int(digits)) if digits.isdecimal() else word
