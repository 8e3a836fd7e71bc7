"""What has left the window is summarised: all of it, once, and nothing is lost on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from mirai_memory import (
    Busy,
    InvalidInput,
    MemoryManager,
    Message,
    ModelError,
    NotFound,
    ReadOnly,
    Session,
    Summarizer,
    UnitOfWork,
    summarizing,
)
from mirai_memory.services import summaries
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import answering, calling, contents, new_session, said, say

GUARD = 60.0
Opened = Callable[..., AbstractContextManager[MemoryManager]]


@pytest.fixture
def session(memory: MemoryManager) -> str:
    """Ten messages, of which six have left the window."""
    session = new_session(memory)
    say(memory, session, *(f"m{number}" for number in range(1, 11)))
    return session


def _numbers(first: int, last: int) -> list[str]:
    return [f"m{number}" for number in range(first, last + 1)]


def _get(memory: MemoryManager, session: str) -> Session:
    found = memory.get_session(session)
    assert found is not None
    return found


# --- what is summarised -----------------------------------------------------------------------------------------------


def test_what_has_left_the_window_is_told_and_the_messages_stay(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer
) -> None:
    before = memory.get_messages(session)
    made = memory.summarize(session)
    assert summarizer.calls == [_numbers(1, 6)]
    assert made.summary == "6 messages, the last: m6"
    assert (made.summarized_through, made.summary_method) == (6, "fake")
    counter = memory._counter
    assert made.summary_tokens == counter.count("6 messages, the last: m6")
    assert made.summary_source_tokens == sum(counter.count(text) for text in _numbers(1, 6))
    assert _get(memory, session) == made
    assert memory.get_messages(session) == before


def test_where_nothing_is_new_nobody_is_asked(memory: MemoryManager, session: str, summarizer: FakeSummarizer) -> None:
    made = memory.summarize(session)
    assert memory.summarize(session) == made
    assert len(summarizer.calls) == 1
    short = new_session(memory)
    say(memory, short, *_numbers(1, 4))
    assert memory.summarize(short).summary is None
    assert len(summarizer.calls) == 1


def test_what_is_new_is_added_to_what_was_told(memory: MemoryManager, session: str, summarizer: FakeSummarizer) -> None:
    first = memory.summarize(session)
    say(memory, session, *_numbers(11, 13))
    made = memory.summarize(session)
    assert summarizer.calls[1:] == [_numbers(7, 9)]
    assert summarizer.previous == [None, first.summary]
    assert (made.summary, made.summarized_through) == ("9 messages, the last: m9", 9)
    assert made.summary_source_tokens == sum(memory._counter.count(text) for text in _numbers(1, 9))


def test_a_long_backlog_is_told_in_ranges_each_kept_by_itself(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LOOKED_AT", 3)  # of which the last may go on behind
    seen: list[tuple[int, int]] = []
    made = memory.summarize(session, progress=lambda done, total: seen.append((done, total)))
    assert [text for call in summarizer.calls for text in call] == _numbers(1, 6)
    assert len(summarizer.calls) == 3
    assert (made.summary, made.summarized_through) == ("6 messages, the last: m6", 6)
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_a_question_has_no_more_tokens_than_it_may(
    memory: MemoryManager, summarizer: FakeSummarizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarizing, "INPUT_TOKENS", 100)
    session = new_session(memory)
    say(memory, session, *["word " * 40] * 5, "word. " * 5_000, *_numbers(1, 4))
    made = memory.summarize(session)
    assert made.summarized_through == 6
    sizes = [sum(memory._counter.count(text) for text in call) for call in summarizer.calls]
    assert len(sizes) == 4
    assert max(sizes) <= 100
    assert summarizer.calls[-1][0].startswith("word. word. ")
    assert (made.summary_source_tokens or 0) > 5_000  # of what was said, not of what was sent


def test_what_failed_in_the_middle_is_gone_on_with(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LOOKED_AT", 3)
    with pytest.raises(ModelError):
        memory.summarize(session, progress=lambda done, total: summarizer.fail())
    assert _get(memory, session).summarized_through == 2
    summarizer.recover()
    assert memory.summarize(session).summary == "6 messages, the last: m6"
    assert contents_of(summarizer) == [*_numbers(1, 2), *_numbers(3, 4), *_numbers(3, 4), *_numbers(5, 6)]


def contents_of(summarizer: FakeSummarizer) -> list[str]:
    return [text for call in summarizer.calls for text in call]


def test_groups_are_told_as_a_whole(
    memory: MemoryManager, summarizer: FakeSummarizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LOOKED_AT", 4)
    session = new_session(memory)
    memory.add_messages(
        [
            *(said(session, text) for text in ("a", "b")),
            calling(session, "c1", "c2", content="call"),
            answering(session, "c1", "r1"),
            answering(session, "c2", "r2"),
            *(said(session, text) for text in ("c", "d", "e", "f", "g")),
        ]
    )
    memory.summarize(session)
    assert summarizer.calls == [["a", "b"], ["call", "r1", "r2"], ["c"]]


def test_a_group_across_the_windows_edge_stays_in_the_window(memory: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(memory)
    memory.add_messages(
        [
            said(session, "a"),
            calling(session, "c1", content="call"),
            answering(session, "c1"),
            *(said(session, text) for text in ("b", "c", "d")),
        ]
    )
    assert memory.summarize(session).summarized_through == 3  # of whole groups only three fit into the window
    assert summarizer.calls == [["a", "call", "result"]]


def test_entries_of_a_framework_and_empty_ones_need_nobody(memory: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(memory)
    item = Message(session_id=session, kind="item", payload={"type": "reasoning"})
    memory.add_messages([item, said(session, " \n"), *(said(session, text) for text in _numbers(1, 4))])
    made = memory.summarize(session)
    assert (made.summary, made.summarized_through, summarizer.calls) == ("", 2, [])
    assert memory.build_context(session).summary is None
    say(memory, session, "m5")
    assert memory.summarize(session).summary == "1 messages, the last: m1"
    assert summarizer.previous == [""]


def test_calls_without_a_text_are_told(memory: MemoryManager, summarizer: FakeSummarizer) -> None:
    session = new_session(memory)
    memory.add_messages([calling(session, "c1"), answering(session, "c1"), *(said(session, "x") for _ in range(4))])
    memory.summarize(session)
    assert summarizer.calls == [["", "result"]]


# --- who may, and what is refused -------------------------------------------------------------------------------------


def test_an_owner_summarises_their_own(memory: MemoryManager, session: str) -> None:
    assert memory.for_user("alice").summarize(session).summarized_through == 6
    with pytest.raises(NotFound):
        memory.for_user("bob").summarize(session)


@pytest.mark.parametrize("wrong", [None, 7, "", "x" * 256, "a\x00b"])
def test_bad_input_is_refused(memory: MemoryManager, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="session_id"):
        memory.summarize(wrong)


def test_an_unknown_session_is_not_found(memory: MemoryManager) -> None:
    with pytest.raises(NotFound):
        memory.summarize("nobody")


def test_a_read_only_memory_asks_nobody(opened: Any, summarizer: FakeSummarizer) -> None:
    with opened() as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
    with opened(read_only=True) as memory:
        with pytest.raises(ReadOnly):
            memory.summarize(session)
        with pytest.raises(ReadOnly):
            memory.trim_old_messages(session)
        assert memory.build_context(session).summary is None
    assert summarizer.calls == []


def test_what_is_no_summarizer_is_refused_when_the_memory_is_opened(opened: Any) -> None:
    class Nameless:
        def summarize(self, messages: Any, *, previous: Any, max_tokens: Any) -> str:
            return "x"

    for wrong in (object(), Nameless(), "extractive"):
        with pytest.raises(InvalidInput, match="summarizer"), opened(wrong):
            pass


def test_the_protocol_is_what_is_asked_for(summarizer: FakeSummarizer) -> None:
    assert isinstance(summarizer, Summarizer)
    assert not isinstance(object(), Summarizer)


# --- a summariser that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["", " \n", None, 7, b"x", ["x"], "a\x00b", "a\ud800b"])
def test_nonsense_is_refused_and_changes_nothing(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, answer: Any
) -> None:
    before = _get(memory, session)
    summarizer.answer_with(answer)
    with pytest.raises(ModelError, match="'fake' answered with what is no summary"):
        memory.summarize(session)
    assert _get(memory, session) == before
    summarizer.recover()
    assert memory.summarize(session).summarized_through == 6  # at once: the lease was given back


@pytest.mark.parametrize("error", [None, ValueError("m1"), SystemExit(1), ModelError("own words")])
def test_failures_are_model_errors(memory: MemoryManager, session: str, summarizer: FakeSummarizer, error: Any) -> None:
    summarizer.fail(error)
    with pytest.raises(ModelError) as caught:
        memory.summarize(session)
    assert "m1" not in str(caught.value)
    summarizer.recover()
    assert memory.summarize(session).summarized_through == 6


def test_one_that_hangs_is_left_alone(opened: Any, summarizer: FakeSummarizer) -> None:
    with opened(timeout_s=0.05) as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
        summarizer.hang()
        with pytest.raises(ModelError, match="no answer within"):
            memory.summarize(session)
        assert _get(memory, session).summary is None


def test_its_own_time_is_kept(opened: Any, summarizer: FakeSummarizer, clock: FrozenClock) -> None:
    """The lease lasts longer, too: nobody takes it over while an answer may still come."""
    summarizer.longest_s = 5_000.0  # type: ignore[attr-defined]
    with opened(busy_timeout_ms=0) as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
        summarizer.hang()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(memory.summarize, session)
            while not summarizer.calls:
                pass
            clock.advance(seconds=5_001)
            with pytest.raises(Busy):
                memory.summarize(session)
            summarizer.release()
            assert waiting.result(GUARD).summarized_through == 6


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("One. Two is here. " + "word " * 100, "One. Two is here."),
        ("Он сказал «да!» Потом ушёл. " + "слово " * 100, "Он сказал «да!» Потом ушёл."),
        ("- first\n- second\n" + "word " * 100, "- first\n- second"),
        ("word " * 100, None),
        ("x" * 100_000, None),
    ],
)
def test_what_is_too_long_ends_behind_a_sentence(
    opened: Any, summarizer: FakeSummarizer, answer: str, kept: str | None
) -> None:
    with opened(summary_tokens=20) as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
        summarizer.answer_with(answer)
        made = memory.summarize(session)
        assert made.summary
        assert answer.startswith(made.summary)
        assert kept in (None, made.summary)
        assert 1 <= (made.summary_tokens or 0) <= 20
        assert kept is not None or not answer.startswith("word") or made.summary.endswith("word")


# --- others at the same time ------------------------------------------------------------------------------------------


def test_writers_do_not_wait_for_the_summariser(opened: Opened, session: str, summarizer: FakeSummarizer) -> None:
    """Neither for a lock nor for a connection: on a server there is one here."""
    summarizer.hang()
    with opened(pool_size=1, busy_timeout_ms=2_000) as memory, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(memory.summarize, session)
        while not summarizer.calls:
            pass
        try:
            say(memory, session, "while it hangs")
        finally:
            summarizer.release()
        assert waiting.result(GUARD).summarized_through == 6


def test_of_two_at_once_one_asks_and_both_get_the_summary(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer
) -> None:
    summarizer.hang()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(memory.summarize, session) for _ in range(2)]
        while not summarizer.calls:
            pass
        summarizer.release()
        assert [one.result(GUARD).summary for one in both] == ["6 messages, the last: m6"] * 2
    assert summarizer.calls == [_numbers(1, 6)]


def test_a_lease_of_somebody_elses_is_waited_for_and_taken_over_when_it_has_run_out(
    opened: Any, summarizer: FakeSummarizer, clock: FrozenClock
) -> None:
    with opened(busy_timeout_ms=1) as memory:
        session = new_session(memory)
        say(memory, session, *_numbers(1, 10))
        token = memory.run(lambda uow: uow.leases.take(session, "learning", 10))
        assert token is not None
        with pytest.raises(Busy, match="works on the session"):
            memory.summarize(session)
        assert summarizer.calls == []
        clock.advance(seconds=10)
        assert memory.summarize(session).summarized_through == 6
        assert memory._store.read(lambda uow: uow.leases.holds(session, token)) is False


def test_a_late_answer_is_not_kept_where_somebody_else_was_quicker(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, clock: FrozenClock
) -> None:
    """The lease of the first has run out, and another has taken it over."""
    late = threading.Event()

    class Late(FakeSummarizer):
        def summarize(self, messages: Any, *, previous: Any, max_tokens: Any) -> Any:
            if not late.is_set():
                late.set()
                clock.advance(hours=1)
                summarizing_meanwhile()
                return "too late"
            return super().summarize(messages, previous=previous, max_tokens=max_tokens)

    def summarizing_meanwhile() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(memory.summarize, session).result(GUARD)

    memory._tools.summarizing._summarizer._summarizer = Late()
    made = memory.summarize(session)
    assert (made.summary, made.summarized_through) == ("6 messages, the last: m6", 6)
    assert made.summary_source_tokens == sum(memory._counter.count(text) for text in _numbers(1, 6))


@pytest.mark.parametrize("how", ["delete", "update", "clear", "pop"])
def test_what_is_taken_back_while_it_is_summarised_is_in_no_summary(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, how: str
) -> None:
    [first, *_] = memory.get_messages(session)
    assert first.id is not None
    summarizer.hang()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(memory.summarize, session)
        while not summarizer.calls:
            pass
        _take_back(memory, how, session, first.id)
        summarizer.release()
        made = waiting.result(GUARD)
    told = summarizer.calls[-1] if made.summary else []
    expected = {
        "delete": _numbers(2, 6), "update": ["new", *_numbers(2, 6)], "clear": [], "pop": _numbers(1, 6)
    }  # fmt: skip
    assert told == expected[how]
    assert made.summary == (f"{len(told)} messages, the last: m6" if told else None)


def _take_back(memory: MemoryManager, how: str, session: str, id: int) -> None:
    if how == "delete":
        memory.delete_message(id)
    elif how == "update":
        memory.update_message(id, "new")
    elif how == "clear":
        memory.clear_session(session)
    else:
        memory.pop_message(session)


def test_who_changes_messages_without_end_is_told_so(memory: MemoryManager, session: str) -> None:
    [first, *_] = memory.get_messages(session)
    assert first.id is not None
    id = first.id

    class Disturbed(FakeSummarizer):
        def summarize(self, messages: Any, *, previous: Any, max_tokens: Any) -> Any:
            memory.update_message(id, f"version {len(self.calls)}")
            return super().summarize(messages, previous=previous, max_tokens=max_tokens)

    memory._tools.summarizing._summarizer._summarizer = Disturbed()
    with pytest.raises(Busy, match="changed again and again"):
        memory.summarize(session)
    assert _get(memory, session).summary is None


def test_a_lease_is_kept_by_its_token_alone(memory: MemoryManager, session: str, clock: FrozenClock) -> None:
    def work(uow: UnitOfWork) -> None:
        token = uow.leases.take(session, "one", 10)
        assert token is not None
        assert uow.leases.take(session, "two", 10) is None
        uow.leases.release(session, "another")
        assert uow.leases.holds(session, token)
        clock.advance(seconds=10)
        assert uow.leases.holds(session, token)  # nobody has taken it over yet
        second = uow.leases.take(session, "two", 10)
        assert second is not None
        uow.leases.release(session, token)
        assert uow.leases.holds(session, second)
        uow.leases.release(session, second)
        assert uow.leases.take(session, "one", 10)
        with pytest.raises(NotFound):
            uow.leases.take("nobody", "one", 10)

    memory.run(work)
    with pytest.raises(NotFound):
        memory.for_user("bob").run(lambda uow: uow.leases.take(session, "one", 10))


# --- what happens to a summary ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "update"])
def test_a_summary_that_may_tell_what_was_taken_back_is_made_anew(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer, how: str
) -> None:
    memory.summarize(session)
    [first, *_] = memory.get_messages(session)
    assert first.id is not None
    _take_back(memory, how, session, first.id)
    gone = _get(memory, session)
    assert (gone.summary, gone.summarized_through, gone.summary_method) == (None, None, None)
    assert (gone.summary_tokens, gone.summary_source_tokens) == (None, None)
    memory.summarize(session)
    assert summarizer.calls[-1] == ([] if how == "delete" else ["new"]) + _numbers(2, 6)
    assert summarizer.previous[-1] is None


@pytest.mark.parametrize("how", ["delete", "update", "pop"])
def test_one_that_cannot_tell_it_stays(memory: MemoryManager, session: str, how: str) -> None:
    made = memory.summarize(session)
    last = memory.get_messages(session)[-1]
    assert last.id is not None
    _take_back(memory, how, session, last.id)
    assert _get(memory, session).summary == made.summary


def test_popping_into_what_was_told_takes_the_summary_along(memory: MemoryManager, session: str) -> None:
    memory.summarize(session)
    for _ in range(4):
        memory.pop_message(session)
    assert _get(memory, session).summary is not None
    assert memory.pop_message(session) is not None
    assert _get(memory, session).summary is None


def test_clearing_takes_it_along_and_positions_go_on(
    memory: MemoryManager, session: str, summarizer: FakeSummarizer
) -> None:
    memory.summarize(session)
    memory.clear_session(session)
    assert _get(memory, session).summary is None
    say(memory, session, *_numbers(11, 15))
    memory.summarize(session)
    assert summarizer.calls[-1] == ["m11"]


def test_one_owner_s_export_takes_it_elsewhere(memory: MemoryManager, session: str, tmp_path: Any) -> None:
    made = memory.summarize(session)
    memory.export_user("alice", tmp_path / "alice.jsonl")
    with MemoryManager(":memory:") as other:
        other.import_user(tmp_path / "alice.jsonl")
        found = _get(other, session)
        assert (found.summary, found.summarized_through) == (made.summary, 6)
        assert (found.summary_method, found.summary_source_tokens) == ("fake", made.summary_source_tokens)
        assert contents(other.build_context(session).history) == _numbers(7, 10)


def test_forgetting_takes_it_along(memory: MemoryManager, session: str, summarizer: FakeSummarizer) -> None:
    summarizer.answer_with("They spoke of zebrafinches.")
    memory.summarize(session)
    assert memory.verify_forgotten("alice", ["zebrafinches"]).ok is False
    memory.forget_user("alice")
    assert memory.verify_forgotten("alice", ["zebrafinches"]).ok
