"""What the analyser promises: one text, one list of terms, whatever the spelling, the script or the size."""

from __future__ import annotations

import doctest
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirai_memory.search import analyzer
from mirai_memory.search.analyzer import MAX_TERM_LENGTH, analyze, date_terms, index_terms, query_terms
from mirai_memory.search.words import BASE_FORMS, MONTHS, STOP_WORDS

NASTY = [
    "a" * 1_000_000,
    "я" * 1_000_000,
    "\u0301" * 1_000_000,
    "a" + "\u0301\u0316" * 500_000,  # marks out of order: sorting them is what would take the square of the time
    "a\u0301\u0316" * 300_000,
    "字" * 1_000_000,
    "a'" * 500_000,
    "c+" * 500_000,
    ".net" * 250_000,
    "\ufdfa" * 50_000,  # one character that folds to eighteen
    "\u200d" * 1_000_000,
    " " * 1_000_000,
    "7" * 1_000_000,
    "word " * 200_000,
]


def same_terms(one: str, other: str) -> bool:
    return set(analyze(one)) == set(analyze(other)) != set()


# --- words of English and Russian -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("кратких ответов", "Краткие ответы"),
        ("зеленого чая", "Зелёный чай"),
        ("любимый город", "любимые города"),
        ("running the tests", "run a test"),
        ("the group", "groups"),
        ("She went there", "going"),
        ("he goes", "gone"),
        ("they bought mice", "buying a mouse"),
        ("the children ran", "a child runs"),
        ("people thought", "a person thinks"),
        ("Sept 2023", "September 2023"),
    ],
)
def test_forms_of_a_word_are_one_term(one, other):
    assert same_terms(one, other)


def test_order_and_repeats_are_kept():
    assert analyze("tea, coffee, tea") == ["tea", "coffe", "tea"]


def test_stop_words_and_questions_leave_nothing():
    assert analyze("Who was it, and what did they do when you were there?") == []
    assert analyze("Кто это был, и что они ещё делать будут — когда, где и почему?") == ["дела"]


def test_a_word_list_entry_is_folded():
    for word in (*STOP_WORDS, *BASE_FORMS, *BASE_FORMS.values()):
        assert word == word.casefold()
        assert "ё" not in word


def test_every_irregular_form_meets_its_base():
    for form, base in BASE_FORMS.items():
        assert analyze(form) == analyze(base) != []


def test_stems_are_those_that_stored_terms_have():
    # If this fails for a new PyStemmer, the terms in existing databases are other ones: raise ANALYZER_VERSION.
    assert analyze("internal news generously dying organization universities early Skies") == [
        *("internal", "news", "generous", "die", "organiz", "universiti", "earli", "sky"),
    ]
    assert analyze("важнейшие предпочтения пользователя сохранились вчера вечером") == [
        *("важн", "предпочтен", "пользовател", "сохран", "вчер", "вечер"),
    ]
    assert analyzer.ANALYZER_VERSION == 2


# --- spelling ---------------------------------------------------------------------------------------------------------


def test_yo_is_folded_and_short_i_stays():
    assert analyze("ёж") == analyze("еж") == ["еж"]
    assert analyze("йод") == ["йод"]
    assert analyze("район") != analyze("раион")


def test_stress_marks_and_latin_accents_are_dropped():
    assert analyze("за\u0301мок") == analyze("замок")
    assert analyze("Café Ångström naïve") == analyze("cafe angstrom naive")


def test_ukrainian_letters_stay():
    assert analyze("її ґудзик") == ["її", "ґудзик"]


@pytest.mark.parametrize("text", ["Зелёный йогурт", "Café", "한국어 가방", "ガラス", "नमस्ते क़लम", "Ελλάδα ΐ"])
def test_composed_and_decomposed_text_are_equal(text):
    assert analyze(unicodedata.normalize("NFD", text)) == analyze(unicodedata.normalize("NFC", text)) != []


def test_fullwidth_and_ligatures_are_their_plain_forms():
    assert analyze("Ｐｙｔｈｏｎ ３") == ["python", "3"]
    assert analyze("ｶﾞﾗｽ") == analyze("ガラス")
    assert analyze("ﬁnish") == analyze("finish")
    assert analyze("Acme™") == analyze("Acme")


def test_invisible_characters_do_not_split_a_word():
    assert analyze("co\xadoperate wo\u200drd\ufeff") == analyze("cooperate word")


@pytest.mark.parametrize("apostrophe", ["'", "\u2019", "\u02bc", "\uff07"])
def test_possessives_and_contractions(apostrophe):
    assert analyze(f"Caroline{apostrophe}s") == analyze("Caroline")
    assert analyze(f"I don{apostrophe}t, we WON{apostrophe}T, they{apostrophe}ll, I{apostrophe}ve") == []


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("C++ and C", ["cplusplus", "c"]),
        ("c++17, C#.", ["cplusplus", "17", "csharp"]),
        ("(F#)", ["fsharp"]),
        ("Ｃ＋＋", ["cplusplus"]),
        (".NET", ["dotnet"]),
        ("example.net", ["exampl", "net"]),
        ("#tag +7", ["tag", "7"]),
    ],
)
def test_names_made_of_signs_are_found(text, terms):
    assert analyze(text) == terms


def test_identifiers_are_split_at_signs_only():
    assert analyze("favorite_drink") == analyze("favorite drink")
    assert analyze("alice@example.com") == ["alic", "exampl", "com"]
    assert analyze("camelCase") == ["camelcas"]


def test_numbers_lose_leading_zeros_and_ordinal_endings():
    assert analyze("08.05.2023") == ["8", "5", "2023"]
    assert analyze("May 8th, 1st") == ["may", "8", "1"]
    assert analyze("٤٢ mp3") == ["42", "mp3"]


# --- other scripts ----------------------------------------------------------------------------------------------------


def test_hindi_and_arabic_words_stay_whole():
    assert analyze("हिन्दी में नमस्ते") == ["हिन्दी", "में", "नमस्ते"]
    assert analyze("مُحَمَّد، كتاب") == ["مُحَمَّد", "كتاب"]


def test_scripts_without_spaces_become_pairs():
    assert analyze("東京タワー") == ["東京", "京タ", "タワ", "ワー"]
    assert analyze("猫") == ["猫"]
    assert analyze("iPhone手机2台") == ["iphon", "手机", "2", "台"]
    assert analyze("가방") == ["가방"]
    assert analyze("ภาษา") == ["ภา", "าษ", "ษา"]


def test_a_query_of_one_character_finds_the_texts_it_is_in():
    assert set(query_terms("猫")) <= set(index_terms("黒猫がいる"))


def test_words_of_two_scripts_are_not_stemmed():
    assert analyze("testингs") == ["testингs"]


@pytest.mark.parametrize(
    "text", ["", " \n\t", "😀🎉👍🏽 ❤️ 👩‍👩‍👧‍👦", "...!?—«»", "\x00\x01", "\ud800", "\u0301\u0302", "_ __"]
)
def test_a_text_without_words_has_no_terms(text):
    assert analyze(text) == query_terms(text) == index_terms(text) == []


# --- any text ---------------------------------------------------------------------------------------------------------


@given(st.text())
@example("x\u0301\u0316" * 40)
@example("฿ก฿ข ㈱🄰½ﷺ")
def test_a_term_is_letters_digits_and_marks(text):
    for term in index_terms(text, speaker=text[::-1]):
        assert 0 < len(term) <= MAX_TERM_LENGTH
        assert {unicodedata.category(character)[0] for character in term} <= {"L", "N", "M"}


@given(st.text(), st.text())
def test_texts_that_stand_apart_do_not_touch(one, other):
    assert analyze(f"{one} {other}") == analyze(one) + analyze(other)


@given(st.text())
def test_normal_forms_are_equal(text):
    assert analyze(unicodedata.normalize("NFD", text)) == analyze(text)


@given(st.text(alphabet="abcxyzабвёй ЁЙABC'"))
def test_case_is_nothing(text):
    assert analyze(text.upper()) == analyze(text.lower()) == analyze(text)


@given(st.text(min_size=1))
def test_a_query_finds_the_text_it_was_taken_from(text):
    assert set(query_terms(text)) <= set(index_terms(text))


@pytest.mark.parametrize("text", NASTY, ids=lambda text: f"{text[:3]!a}x{len(text)}")
def test_a_huge_text_is_analysed_to_the_end(text):
    assert analyze(text + " конец")[-1] == "конец"
    assert all(len(term) <= MAX_TERM_LENGTH for term in query_terms(text))


def test_a_long_word_is_found_by_itself():
    word = "ab" * 500
    assert analyze(word) == [word[:MAX_TERM_LENGTH]]
    assert analyze("é" * 500) == ["e" * MAX_TERM_LENGTH]


# --- queries, messages, dates -----------------------------------------------------------------------------------------


def test_query_terms_are_distinct_and_capped():
    assert query_terms("Tea or coffee? Teas!") == ["tea", "coffe"]
    many = " ".join(f"w{number}" for number in range(100))
    assert query_terms(many) == [f"w{number}" for number in range(32)]
    assert query_terms(many, limit=2) == ["w0", "w1"]
    assert query_terms(many, limit=0) == []


def test_only_the_beginning_of_a_query_is_read():
    assert query_terms("tea " * 10_000 + "coffee") == ["tea"]


@pytest.mark.parametrize("month", range(1, 13))
def test_a_date_is_found_by_its_words_in_both_languages(month):
    terms = set(date_terms(datetime(2023, month, 8, 12, tzinfo=UTC)))
    genitive = ["января", "февраля", "марта", "апреля", "мая", "июня", "июля", "августа", "сентября", "октября"]
    genitive += ["ноября", "декабря"]
    assert set(analyze(f"{MONTHS[month][0].title()} 8th, 2023")) < terms
    assert set(analyze(f"8 {genitive[month - 1]} 2023 г.")) - {"г"} < terms
    assert set(analyze(f"8 {MONTHS[month][1]} 2023")) < terms


def test_a_date_is_that_of_utc():
    eastern = datetime(2023, 5, 9, 1, tzinfo=timezone(timedelta(hours=9)))
    assert date_terms(eastern) == date_terms(eastern.astimezone(UTC)) == ["8", "may", "ма", "2023"]


def test_index_terms_begin_with_speaker_and_date():
    when = datetime(2023, 5, 8, tzinfo=UTC)
    content = "I went to the museum"
    assert index_terms(content, speaker="Caroline", when=when) == ["carolin", *date_terms(when), *analyze(content)]
    assert index_terms(content) == analyze(content)


# --- threads and processes --------------------------------------------------------------------------------------------


def test_threads_get_equal_terms():
    texts = [f"running tests{number} кратких ответов{number} {word}s" for number, word in enumerate(sorted(STOP_WORDS))]
    alone = [analyze(text) for text in texts]
    analyzer._terms_of_word.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda _: [analyze(text) for text in texts], range(8)))
    assert together == [alone] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the test runner has threads of its own
def test_a_forked_child_analyses_too():
    expected = analyze("running кратких")
    child = os.fork()
    if child == 0:
        analyzer._terms_of_word.cache_clear()
        os._exit(0 if analyze("running кратких") == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_examples_in_the_docstrings_run():
    result = doctest.testmod(analyzer)
    assert result.attempted > 0
    assert result.failed == 0
