"""Words as a summariser compares them: folded and stemmed by script, without the ones that are in every text."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Final

import Stemmer

_WORD: Final = re.compile(r"[^\W_]+")
_LATIN: Final = re.compile("[a-zß-öø-ɏḀ-ỿ]+")
_CYRILLIC: Final = re.compile("[\u0400-\u0481\u048a-\u052f]+")
_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0eff]")
_COMMON_WORDS: Final = """
    a about after all also am an and any are as at back be because been before but by can could did do does don even
    for from get go going good got great had has have he her here hers hey hi him his how i if in into is it its just
    know last like lot ll m make me more most much my new no not now of oh on one or other our out over re really s
    see she should so some sounds such sure t than that thanks the their them then there these they thing things think
    this those time to too up us ve very want was way we well were what when where which while who why will with wow
    would yeah yes yep you your
    а без был была были было быть в вам вас ведь весь во вот все всё вы где да даже для до его ее её если есть еще
    ещё же за здесь и из или им их к как какой когда кто ли лучше меня мне мой моя мы на надо нас не него нее нет ни
    но ну о об один он она они от очень по под потом потому при про с со спасибо так также такой там тебе тебя то
    того тоже той только том ты у уже хорошо чего чем что чтобы эта эти это этот я
"""
_COMMON: Final = frozenset(_COMMON_WORDS.split())


class _Stemmers(threading.local):
    """Stemmers keep state while they work, so every thread has its own."""

    def __init__(self) -> None:
        self.english = Stemmer.Stemmer("english", 0)
        self.russian = Stemmer.Stemmer("russian", 0)


_stemmers = _Stemmers()


def stems(text: str) -> list[str]:
    """The stems of a text's words, in order, common words left out."""
    return [stem for word in _WORD.findall(text.casefold()) for stem in _stems(word)]


@lru_cache(16_384)
def _stems(word: str) -> tuple[str, ...]:
    if word in _COMMON:
        return ()
    if _UNSPACED.match(word):  # no spaces between words: pairs of characters will do
        return tuple(word[place : place + 2] for place in range(max(1, len(word) - 1)))
    word = word[:64].replace("ё", "е")
    if _LATIN.fullmatch(word):
        return (str(_stemmers.english.stemWord(word)),)
    return (str(_stemmers.russian.stemWord(word)) if _CYRILLIC.fullmatch(word) else word,)
