"""A context is the summary and what comes after it, and what is trimmed is in the summary."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from mirai_memory import Context, MemoryManager, NotFound
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.contract.making import answering, calling, contents, new_session, said, say


@pytest.fixture
def trimming(opened: Any) -> Iterator[MemoryManager]:
    """A memory that summarises before it trims."""
    with opened(auto_summarize=True) as memory:
        yield memory


def _numbers(first: int, last: int) -> list[str]:
    return [f"m{number}" for number in range(first, last + 1)]


def _places(context: Context) -> list[int]:
    return [message.position or 0 for message in context.history]


def _left_out(context: Context) -> list[tuple[str, str]]:
    return [(item.kind, item.reason) for item in context.omitted if item.kind in ("history", "summary")]


# --- the context ------------------------------------------------------------------------------------------------------


def test_the_window_begins_right_behind_the_summary(memory: MemoryManager) -> None:
    session = new_session(memory)
    say(memory, session, *_numbers(1, 10))
    assert _left_out(memory.build_context(session)) == [("history", "limit")]
    memory.summarize(session)
    context = memory.build_context(session)
    assert context.summary == "6 messages, the last: m6"
    assert _places(context) == [7, 8, 9, 10]
    assert _left_out(context) == []
    assert "6 messages" in context.to_prompt()


def test_what_has_left_the_window_since_is_still_there(memory: MemoryManager) -> None:
    session = new_session(memory)
    say(memory, session, *_numbers(1, 10))
    memory.summarize(session)
    say(memory, session, *_numbers(11, 14))
    context = memory.build_context(session)
    assert _places(context) == [7, 8, 9, 10, 11, 12, 13, 14]
    assert _left_out(context) == []


def test_a_wider_gap_is_told(memory: MemoryManager) -> None:
    session = new_session(memory)
    say(memory, session, *_numbers(1, 10))
    memory.summarize(session)
    say(memory, session, *_numbers(11, 15))
    context = memory.build_context(session)
    assert _places(context) == [12, 13, 14, 15]
    assert _left_out(context) == [("history", "limit")]


def test_a_group_larger_than_the_window_leaves_word_of_what_is_before_it(opened: Any) -> None:
    with opened(max_messages=1) as memory:
        session = new_session(memory)
        memory.add_messages([said(session, "m1"), calling(session, "c1"), answering(session, "c1")])
        context = memory.build_context(session)
        assert (_places(context), _left_out(context)) == ([2, 3], [("history", "limit")])


def test_what_the_summary_tells_is_not_in_the_window_too(opened: Any) -> None:
    with opened() as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
        memory.summarize(session)
    with opened(max_messages=8) as memory:  # a larger window reaches back into what was told
        assert _places(memory.build_context(session)) == [7, 8, 9, 10]
        assert contents(memory.get_recent_messages(session)) == _numbers(3, 10)
        for _ in range(3):
            memory.pop_message(session)
        context = memory.build_context(session)
        assert (_places(context), _left_out(context)) == ([7], [])


def test_a_summary_that_does_not_fit_is_told(memory: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(memory)
    say(memory, session, *_numbers(1, 10))
    summarizer.answer_with("A long summary. " * 20)
    memory.summarize(session)
    least = memory.build_context(session, max_tokens=120)
    assert least.summary is None
    assert ("summary", "budget") in _left_out(least)
    assert least.tokens <= 120


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 40), marks=pytest.mark.long)])
def test_neither_gap_nor_overlap_whatever_is_done(opened: Any, seeds: range) -> None:
    """Of everything that is there, each message is told by the summary, handed on, or left out with a word of it."""
    for seed in seeds:
        chance = random.Random(seed)
        with opened(max_messages=chance.randint(1, 5), auto_summarize=chance.random() < 0.5) as memory:
            session = new_session(memory)
            for _ in range(25):
                _do_something(memory, session, chance)
                _check_joined(memory, session)


def _do_something(memory: MemoryManager, session: str, chance: random.Random) -> None:
    what = chance.choice(["say", "say", "say", "call", "summarize", "trim", "pop", "delete"])
    if what == "say":
        say(memory, session, *("words" for _ in range(chance.randint(1, 4))))
    elif what == "call":
        id = f"c{chance.random()}"
        memory.add_messages([calling(session, id), answering(session, id), said(session, "so")])
    elif what == "summarize":
        memory.summarize(session)
    elif what == "trim":
        memory.trim_old_messages(session, chance.choice([None, 0, 2]))
    elif what == "pop":
        memory.pop_message(session)
    else:
        messages = memory.get_messages(session)
        if messages:
            memory.delete_message(chance.choice(messages).id or 0)


def _check_joined(memory: MemoryManager, session: str) -> None:
    context = memory.build_context(session)
    there = [message.position or 0 for message in memory.get_messages(session)]
    through = context.session.summarized_through or 0
    shown = _places(context)
    assert all(place > through for place in shown)
    untold = [place for place in there if place > through]
    if shown == untold:
        assert ("history", "limit") not in _left_out(context)
    else:
        assert shown == untold[len(untold) - len(shown) :]
        assert ("history", "limit") in _left_out(context)
        assert len(untold) > memory.settings.memory.short_term.max_messages or not shown


# --- trimming ---------------------------------------------------------------------------------------------------------


def test_what_is_trimmed_is_summarised_first(trimming: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(trimming)
    say(trimming, session, *_numbers(1, 10))
    assert trimming.trim_old_messages(session, 2) == 8
    assert summarizer.calls == [_numbers(1, 8)]
    context = trimming.build_context(session)
    assert context.summary == "8 messages, the last: m8"
    assert _places(context) == [9, 10]
    assert trimming.trim_old_messages(session, 2) == 0
    assert len(summarizer.calls) == 1


def test_all_of_it_may_go(trimming: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(trimming)
    say(trimming, session, *_numbers(1, 5))
    assert trimming.trim_old_messages(session, 0) == 5
    assert trimming.build_context(session).summary == "5 messages, the last: m5"
    assert trimming.get_messages(session) == []


def test_what_could_not_be_summarised_is_not_trimmed(
    trimming: MemoryManager, summarizer: FakeSummarizer, lines: list[str]
) -> None:
    session = new_session(trimming)
    say(trimming, session, *_numbers(1, 6))
    trimming.summarize(session)
    say(trimming, session, *_numbers(7, 10))
    summarizer.fail()
    assert trimming.trim_old_messages(session) == 2  # what was in the summary already
    assert contents(trimming.get_messages(session)) == _numbers(3, 10)
    [line] = lines
    assert "not trimmed" in line
    assert "m3" not in line
    summarizer.recover()
    assert trimming.trim_old_messages(session) == 4
    assert contents(trimming.get_messages(session)) == _numbers(7, 10)


def test_what_comes_meanwhile_is_not_trimmed_untold(trimming: MemoryManager) -> None:
    session = new_session(trimming)
    say(trimming, session, *_numbers(1, 10))

    class Disturbed(FakeSummarizer):
        def summarize(self, messages: Any, *, previous: Any, max_tokens: Any) -> Any:
            say(trimming, session, "late", "later")
            return super().summarize(messages, previous=previous, max_tokens=max_tokens)

    trimming._tools.summarizing._summarizer._summarizer = Disturbed()
    assert trimming.trim_old_messages(session) == 6
    assert contents(trimming.get_messages(session)) == [*_numbers(7, 10), "late", "later"]


def test_switched_off_trimming_asks_nobody(memory: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(memory)
    say(memory, session, *_numbers(1, 10))
    assert memory.trim_old_messages(session) == 6
    assert summarizer.calls == []


def test_an_unknown_session_is_not_found(trimming: MemoryManager) -> None:
    session = new_session(trimming, "bob")
    for id in ("nobody", session):
        with pytest.raises(NotFound):
            trimming.for_user("alice").trim_old_messages(id)


def test_a_summary_whose_messages_were_trimmed_goes_with_what_is_taken_back(
    trimming: MemoryManager, summarizer: FakeSummarizer
) -> None:
    """Privacy first: what only the summary knew of them is lost, and the next one tells what is still there."""
    session = new_session(trimming)
    say(trimming, session, *_numbers(1, 6))
    trimming.trim_old_messages(session)
    say(trimming, session, *_numbers(7, 10))
    trimming.summarize(session)
    [third, *_] = trimming.get_messages(session)
    trimming.delete_message(third.id or 0)
    assert trimming.build_context(session).summary is None
    trimming.summarize(session)
    assert summarizer.calls[-1] == _numbers(4, 6)
