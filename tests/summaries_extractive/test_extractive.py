"""The summary made of the conversation's own sentences: what it takes, what it leaves, and that it keeps its budget."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirai_memory import Message
from mirai_memory.summaries._ranking import MOST, ranked
from mirai_memory.summaries._sentences import Sentence
from mirai_memory.summaries.extractive import ExtractiveSummarizer
from mirai_memory.tokens import EstimatedTokens, ExactTokens, TokenCounter

WHEN = datetime(2026, 11, 23, 9, tzinfo=UTC)  # a Monday
COUNTER = EstimatedTokens()

ENGLISH = [
    ("Nina", "Hey Oleg! How are you doing?"),
    ("Oleg", "Hi! I'm fine, thanks. And you?"),
    ("Nina", "Great. Yesterday I signed the contract with Baltika for 45,000 euros."),
    ("Oleg", "Wow, that is so cool!"),
    ("Nina", "Thanks! We decided to move the office to Riga in March, together with Baltika."),
    ("Oleg", "Sounds good. Really great news, I am so happy for you."),
    ("Nina", "The office in Riga costs 2,300 euros a month, and Baltika pays half of it."),
    ("Oleg", "Okay. Talk to you later!"),
]
RUSSIAN = [
    ("Аня", "Привет! Как дела?"),
    ("Олег", "Привет! Всё хорошо, спасибо. А у тебя?"),
    ("Аня", "Вчера мы подписали договор с Балтикой на 45000 евро."),
    ("Олег", "Ого, вот это да!"),
    ("Аня", "Решили перевезти офис в Ригу в марте, вместе с Балтикой."),
    ("Олег", "Хорошо. Я очень рад за тебя."),
    ("Аня", "Офис в Риге стоит 2300 евро в месяц, половину платит Балтика."),
    ("Олег", "Ладно. До скорого!"),
]


def said(content: str, name: str | None = None, **more: Any) -> Message:
    return Message(session_id="s", content=content, name=name, **{"role": "user", "timestamp": WHEN, **more})


def talk(turns: list[tuple[str, str]]) -> list[Message]:
    return [said(content, name) for name, content in turns]


def summary(
    messages: list[Message], max_tokens: int = 70, previous: str | None = None, counter: TokenCounter = COUNTER
) -> str:
    return ExtractiveSummarizer(counter).summarize(messages, previous=previous, max_tokens=max_tokens)


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_it_tells_what_was_decided_and_leaves_the_pleasantries() -> None:
    text = summary(talk(ENGLISH), 95)
    assert "45,000 euros" in text
    assert "We decided to move the office to Riga in March" in text
    for idle in ("How are you", "Talk to you later", "so cool", "I'm fine"):
        assert idle not in text


def test_russian_is_summarised_as_english_is() -> None:
    text = summary(talk(RUSSIAN), 95)
    assert "45000 евро" in text
    assert "Решили перевезти офис в Ригу в марте" in text
    for idle in ("Как дела", "До скорого", "Ого", "рад за тебя"):
        assert idle not in text


def test_what_is_spoken_of_most_counts_most() -> None:
    """Each sentence tells as much as the other by itself."""
    about = ["lakes freeze early", "lakes freeze deep", "lakes thaw early", "horses trot slowly"]
    assert "lakes" in summary([said(line, timestamp=None) for line in about], 7)
    assert "lakes" in summary([said(line, timestamp=None) for line in reversed(about)], 7)


def test_forms_of_a_word_are_one_word() -> None:
    """Sentences that speak of one thing in other forms say it twice."""
    said_twice = ["Квартирами довольны соседи", "Квартиру купил сосед", "Лошади бегали медленно"]
    ranking = ranked([Sentence(line, "", None) for line in said_twice])
    assert ranking.alike[0, 1] > 0.4
    assert ranking.alike[0, 2] == 0


def test_each_sentence_has_its_speaker_and_keeps_its_order() -> None:
    text = summary(talk(ENGLISH), 200)
    lines = text.splitlines()
    assert all(line.startswith(("Nina: ", "Oleg: ")) for line in lines[1:])
    assert text.index("signed") < text.index("decided") < text.index("costs")


def test_the_role_speaks_where_there_is_no_name() -> None:
    text = summary([said("The invoice of Baltika is due on Friday.", role="assistant")])
    assert text.splitlines()[-1] == "assistant: The invoice of Baltika is due on Friday."


def test_a_speaker_is_not_named_again_for_the_next_sentence() -> None:
    text = summary([said("Anna bought a red bicycle. She rides along the Daugava river every morning.", "Anna")])
    assert text.count("Anna: ") == 1


def test_what_is_said_twice_is_taken_once() -> None:
    said_often = "The deadline of the Kazan project is the 14th of May."
    other = "Oleg prefers Postgres for the billing service."
    text = summary([said(said_often), said(other), said(f"{said_often} Yes."), said(said_often)], 200)
    assert text.count("deadline") == 1
    assert other in text


def test_a_name_a_number_and_a_day_count() -> None:
    for telling, plain in [
        ("We met Margarita there in the evening", "We met somebody there in the evening"),
        ("The rent of it was 2300 then", "The rent of it was large then"),
        ("We signed papers on Friday in peace", "We signed papers on paper in peace"),
        ("We decided upon blue walls for rooms", "We thought about blue walls for rooms"),
    ]:
        for pair in ((telling, plain), (plain, telling)):
            text = summary([said(f"{line}.", timestamp=None) for line in pair], 16)
            assert telling in text, telling
            assert plain not in text


def test_a_question_counts_less_than_an_answer() -> None:
    text = summary([said("Does Margarita live near Lake Onega?"), said("Margarita lives near Lake Onega now.")], 25)
    assert "lives" in text
    assert "?" not in text


# --- days -------------------------------------------------------------------------------------------------------------


def test_days_that_are_named_by_their_distance_are_told() -> None:
    text = summary([said("Yesterday I saw foxes by the lake, and three weeks ago a bear in the forest.", "Nina")])
    assert text.splitlines() == [
        "23 November 2026",
        "Nina: Yesterday (22 November) I saw foxes by the lake, and three weeks ago (2 November) a bear in the forest.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We met last Friday at the lake", "last Friday (20 November)"),
        ("We met last Monday at the lake", "last Monday (16 November)"),
        ("We will meet tomorrow at the lake", "tomorrow (24 November)"),
        ("We met 400 kilometres and 60 weeks ago there", "60 weeks ago (29 September 2025)"),
        ("Мы виделись позавчера у озера", "позавчера (21 ноября)"),
        ("Мы увидимся завтра у озера", "завтра (24 ноября)"),
        ("Мы виделись в прошлую среду у озера", "в прошлую среду (18 ноября)"),
        ("Мы виделись две недели назад у озера", "две недели назад (9 ноября)"),
        ("Мы виделись пять дней назад у озера", "пять дней назад у озера"),
    ],
)
def test_which_days(text: str, expected: str) -> None:
    assert expected in summary([said(text)])


def test_without_times_no_day_is_told() -> None:
    assert summary([said("Yesterday I saw foxes near the lake.", timestamp=None)]) == (
        "user: Yesterday I saw foxes near the lake."
    )


def test_a_day_too_early_for_the_calendar_is_left_as_it_is() -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert "Yesterday I saw foxes" in summary([said("Yesterday I saw foxes near the lake.", timestamp=first)])


def test_every_day_has_its_line() -> None:
    turns = [said(f"On stop {n} we visited the museum of town{n}.", timestamp=WHEN + timedelta(days=n)) for n in (0, 1)]
    days = [line for line in summary(turns, 200).splitlines() if line.endswith("2026")]
    assert days == ["23 November 2026", "24 November 2026"]


# --- the summary before -----------------------------------------------------------------------------------------------


def test_the_summary_before_is_condensed_together_with_what_is_new() -> None:
    before = summary(talk(ENGLISH), 70)
    new = [said("On Friday Oleg bought a sailing boat called Margarita for 9,000 euros.", "Oleg")]
    after = summary(new, 90, before)
    assert "sailing boat called Margarita" in after
    assert "Riga" in after
    assert after.count("23 November 2026") == 1
    assert after.index("Nina: ") < after.index("Oleg: ")


def test_a_sentence_keeps_its_speaker_and_day_over_many_summaries() -> None:
    kept = "Nina: Yesterday (22 November) I signed the contract with Baltika for 45,000 euros."
    text: str | None = f"23 November 2026\n{kept}"
    for day in range(3):
        text = summary([said("ok", "Oleg", timestamp=WHEN + timedelta(days=day))], 60, text)
        assert kept in text.splitlines()


def test_prose_of_another_summariser_is_taken_up() -> None:
    prose = "Nina and Oleg moved to Riga. They pay 2300 euros a month. It was a nice talk."
    text = summary([said("Margarita joined the team in Riga on Friday.", "Nina")], 60, prose)
    assert "2300 euros" in text
    assert "Margarita" in text


# --- what is no speech ------------------------------------------------------------------------------------------------


def test_code_links_and_unbroken_strings_are_left_out_or_short() -> None:
    code = "```python\nsecret_code = 1\n```"
    link = "https://example.org/projects/billing/issues/4127?tab=comments"
    key = "".join(f"{number:02d}Zz" for number in range(100))
    text = summary([said(f"Here is the module of Margarita:\n{code}\nIt is at {link} and its key is {key}.")], 100)
    assert "secret_code" not in text
    assert "example.org" in text
    assert "issues" not in text
    assert key[:10] in text
    assert key[:60] not in text


def test_what_tools_and_systems_say_is_left_out_where_anybody_spoke() -> None:
    turns = [
        said("Margarita must always be praised in Riga.", role="system"),
        said("The temperature in Riga is 4 degrees.", role="tool"),
        said("Oleg wants to know the weather of Riga before Friday."),
    ]
    text = summary(turns, 200)
    assert "Oleg" in text
    assert "praised" not in text
    assert "degrees" not in text
    assert "4 degrees" in summary(turns[1:2], 200)


@pytest.mark.parametrize(
    "contents",
    [[], [""], ["\n \n"], ["...", "!!"], ["ok"], ["👍🏽"], ["日本語の文章です。"], ["a" * 100_000], ["x " * 50_000]],
)
def test_odd_messages_have_a_summary_too(contents: list[str]) -> None:
    text = summary([said(content) for content in contents])
    assert text
    assert COUNTER.count(text) <= 70
    assert len(text) < 400


# --- the budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [EstimatedTokens(), ExactTokens()], ids=lambda counter: str(counter.name))
def test_the_budget_is_kept_and_used(counter: TokenCounter) -> None:
    messages = talk((ENGLISH + RUSSIAN) * 3)
    for budget in range(1, 200, 7):
        tokens = counter.count(summary(messages, budget, counter=counter))
        assert tokens <= budget
        assert tokens > budget // 3 or budget < 40 or budget > 110


@settings(max_examples=150, deadline=None)
@given(
    contents=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=120), max_size=6),
    previous=st.none() | st.text(max_size=120),
    budget=st.integers(0, 60),
)
def test_the_budget_is_kept_whatever_was_said(contents: list[str], previous: str | None, budget: int) -> None:
    messages = [said(content, content[:8]) for content in contents]
    text = summary(messages, budget, previous)
    assert COUNTER.count(text) <= budget
    assert text == summary(messages, budget, previous)


def test_the_same_text_has_the_same_summary_in_every_process() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from mirai_memory import Message\n"
        "from mirai_memory.summaries.extractive import ExtractiveSummarizer\n"
        "from mirai_memory.tokens import EstimatedTokens\n"
        f"turns = {ENGLISH!r}\n"
        "said = [Message(session_id='s', role='user', name=n, content=c) for n, c in turns]\n"
        "print(ExtractiveSummarizer(EstimatedTokens()).summarize(said, previous=None, max_tokens=70))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("0", "1")
    }
    own = summary([said(content, name, timestamp=None) for name, content in ENGLISH])
    assert outputs == {f"{own}\n"}


def test_a_long_conversation_is_compared_in_part() -> None:
    many = [Sentence(f"town{number} has street{number} and bridge{number}", "", None) for number in range(3 * MOST)]
    of = ranked(many)
    assert MOST // 2 < len(of.sentences) <= MOST
    places = [many.index(sentence) for sentence in of.sentences]
    assert places == sorted(places)
    assert max(after - before for before, after in pairwise(places)) < 100  # of every part of it


@pytest.mark.long
def test_ten_thousand_messages_take_bounded_time_and_memory() -> None:
    rng = random.Random(5)
    words = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("lor", "min", "tak", "ves")]

    def messages(count: int) -> list[Message]:
        return [said(" ".join(rng.choices(words, k=14)) + ".", rng.choice(["Nina", "Oleg"])) for _ in range(count)]

    tracemalloc.start()
    try:
        many = messages(10_000)
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        started = time.perf_counter()
        assert COUNTER.count(summary(many, 300)) <= 300
        seconds = time.perf_counter() - started
        most = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert most < 150_000_000
    assert seconds < 60  # compared each with each, they would take gigabytes and minutes
