"""Signals and their sum: pure arithmetic over a layout, each from one point of view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mirai_memory.search import bm25, fusion, signals
from mirai_memory.search.cues import ENDS_ASKING, NAMES_TIME, OF_ONESELF, NamedDate, Question
from mirai_memory.search.layout import Layout
from mirai_memory.search.nearest import Near
from mirai_memory.search.terms import microseconds


def _layout(*speakers: str, session: int = 1, cues: Sequence[int] = (), times: Sequence[int] = ()) -> Layout:
    """A session of messages of these speakers, with ids from 1, each of ten terms."""
    rows: list[tuple[Any, ...]] = [
        (place + 1, session, place, speaker, cues[place] if cues else 0, 10, times[place] if times else 0)
        for place, speaker in enumerate(speakers)
    ]
    return Layout.of(rows)


def _words(layout: Layout, weights: Mapping[str, float], **ids: list[int]) -> dict[str, list[float]]:
    places = {term: layout.places(held) for term, held in ids.items()}
    return {name: values.tolist() for name, values in signals.words(layout, places, weights, 10.0).items()}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]


# --- words ------------------------------------------------------------------------------------------------------------


def test_near_is_the_share_of_the_question_s_words_here_or_beside() -> None:
    found = _words(_layout(*"abababa"), {"tea": 3.0, "cup": 1.0}, tea=[3], cup=[3, 5])
    assert _rounded(found["near"]) == [0.5, 0.8, 1.0, 0.8, 0.75 * 0.5 + 0.25, 0.2, 0.125]


def test_near_stops_at_the_end_of_the_session() -> None:
    rows = [(n, 1 if n < 4 else 2, n, "a", 0, 10, 0) for n in range(1, 7)]
    assert _rounded(_words(Layout.of(rows), {"tea": 1.0}, tea=[4])["near"]) == [0, 0, 0, 1, 0.8, 0.5]


def test_a_word_that_nobody_has_said_covers_nothing() -> None:
    found = _words(_layout("a"), {"tea": 2.0, "cup": 9.0}, tea=[1], cup=[])
    assert _rounded(found["near"]) == [0.2]  # 2 of 2 + 8


def test_bm_is_bm25_of_each_word_once() -> None:
    found = _words(_layout("a", "b"), {"tea": 2.0, "cup": 3.0}, tea=[1, 2], cup=[2])
    one = bm25.weight(1, 10, 10.0)
    assert found["bm"] == pytest.approx([2 * one, 5 * one], rel=1e-6)


def test_a_long_message_says_less() -> None:
    layout = Layout.of([(1, 1, 0, "a", 0, 5, 0), (2, 2, 0, "a", 0, 50, 0)])
    short, long = _words(layout, {"tea": 1.0}, tea=[1, 2])["bm"]
    assert [short, long] == pytest.approx([bm25.weight(1, 5, 10.0), bm25.weight(1, 50, 10.0)], rel=1e-6)
    assert short > long


def test_sess_is_bm25_of_the_session_as_one_document() -> None:
    rows = [(1, 1, 0, "a", 0, 10, 0), (2, 1, 1, "a", 0, 10, 0), (3, 2, 0, "a", 0, 40, 0), (4, 3, 0, "a", 0, 30, 0)]
    found = _words(Layout.of(rows), {"tea": 1.0}, tea=[1, 2, 3])["sess"]
    idf = bm25.idf(3, 2)
    expected = [idf * bm25.weight(2, 20, 30.0)] * 2 + [idf * bm25.weight(1, 40, 30.0), 0.0]
    assert found == pytest.approx(expected, rel=1e-6)


def test_reply_is_what_the_question_scores_that_is_answered() -> None:
    found = _words(_layout("a", "b", "a", cues=[1, 0, 0]), {"tea": 2.0}, tea=[1])
    assert found["reply"] == pytest.approx([0.0, found["bm"][0], 0.0])


def test_no_words_and_no_messages() -> None:
    assert all(values == [0.0] for values in _words(_layout("a"), {}).values())
    assert all(values == [] for values in _words(Layout.of(()), {"tea": 1.0}, tea=[]).values())


# --- context ----------------------------------------------------------------------------------------------------------

TALK = ("name:Ann", "name:Ben", "name:Ann", "role:user")


def test_who_is_named_speaks_of_himself_or_asks() -> None:
    layout = _layout(*TALK, cues=[OF_ONESELF, OF_ONESELF | ENDS_ASKING, ENDS_ASKING, OF_ONESELF])
    found = signals.context(layout, Question(("tea",), ("Ann",)))
    assert _rounded(found["speaker"]) == [1, 0, 1, 0]
    assert _rounded(found["of_oneself"]) == [1, 0, 0, 0]
    assert _rounded(found["asks"]) == [0, 0, 1, 0]
    assert _rounded(found["opens"]) == [1, 0, 0, 0]
    assert not {"time", "date"} & found.keys()


def test_a_role_is_nobody_that_is_named() -> None:
    layout = _layout("role:user", "role:assistant", "name:user")
    assert _rounded(signals.context(layout, Question((), ("user",)))["speaker"]) == [0, 0, 1]


def test_where_one_speaks_alone_nobody_is_named_and_nothing_is_opened() -> None:
    found = signals.context(_layout("name:Ann", "name:Ann"), Question((), ("Ann",)))
    assert _rounded(found["speaker"]) == _rounded(found["opens"]) == [0, 0]


def test_messages_that_name_a_time_where_one_is_asked_for() -> None:
    layout = _layout("name:Ann", "name:Ben", cues=[NAMES_TIME, 0])
    assert _rounded(signals.context(layout, Question((), asks_when=True))["time"]) == [1, 0]


# --- dates ------------------------------------------------------------------------------------------------------------


def _dated(moments: Sequence[datetime], *dates: NamedDate) -> list[float]:
    return _rounded(signals.dated(np.array([microseconds(moment) for moment in moments]), dates))


def _days(*days: tuple[int, int, int]) -> list[datetime]:
    return [datetime(*day, tzinfo=UTC) for day in days]


def test_a_day_its_month_and_the_two_weeks_after() -> None:
    days = _days((2023, 5, 8), (2023, 5, 1), (2023, 5, 31), (2023, 4, 30), (2023, 6, 1), (2022, 5, 8))
    assert _dated(days, NamedDate(5, 8, 2023)) == [1, 0.5, 0.5, 0, 0, 0]
    assert _dated(_days((2023, 6, 8), (2023, 6, 9)), NamedDate(5, 25, 2023)) == [0.5, 0]


def test_a_day_begins_and_ends_with_its_microseconds() -> None:
    ends = [datetime(2023, 5, 8, tzinfo=UTC), datetime(2023, 5, 8, 23, 59, 59, 999_999, tzinfo=UTC)]
    assert _dated(ends, NamedDate(5, 8, 2023)) == [1, 1]
    assert _dated([datetime(1969, 7, 20, 23, 59, tzinfo=UTC)], NamedDate(7, 20, 1969)) == [1]


def test_a_month_and_the_ten_days_after() -> None:
    days = _days((2023, 5, 1), (2023, 5, 31), (2023, 6, 10), (2023, 6, 11), (2023, 4, 30))
    assert _dated(days, NamedDate(5, None, 2023)) == [0.5, 0.5, 0.5, 0, 0]
    assert _dated(_days((2024, 1, 10), (2024, 1, 11)), NamedDate(12, None, 2023)) == [0.5, 0]


def test_without_a_year_any_will_do() -> None:
    days = _days((1999, 5, 8), (2023, 5, 8), (2023, 5, 20), (2023, 7, 8))
    assert _dated(days, NamedDate(5, 8)) == [1, 1, 0.5, 0]
    assert _dated(_days((2024, 1, 5)), NamedDate(12, 28)) == [0.5]  # of the December before


def test_the_29th_of_february_is_in_leap_years_only() -> None:
    days = _days((2024, 2, 29), (2024, 3, 1), (2023, 3, 1), (2023, 2, 28))
    assert _dated(days, NamedDate(2, 29)) == [1, 0.5, 0, 0.5]


def test_the_first_and_the_last_year_there_are() -> None:
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    assert _dated(ends, NamedDate(5, 8, 2023), NamedDate(5, 8)) == [0, 0]
    assert _dated(ends, NamedDate(1, 1), NamedDate(12, 31)) == [1, 1]


def test_the_nearest_of_several_dates_counts() -> None:
    assert _dated(_days((2023, 5, 8)), NamedDate(5, 20, 2023), NamedDate(5, 8, 2023)) == [1]
    assert _dated([], NamedDate(5)) == []


# --- meaning ----------------------------------------------------------------------------------------------------------


def _near(*cosines: float) -> Near:
    return Near.of_all(np.arange(1, len(cosines) + 1), np.array(cosines, dtype=np.float32))


def test_dense_is_how_far_above_the_mean_a_cosine_is() -> None:
    cosines = np.array([0.9, 0.1, 0.2, 0.2], dtype=np.float32)
    mean, spread = float(cosines.mean()), float(cosines.std())
    found = signals.dense(_layout(*"abab"), _near(0.9, 0.1, 0.2, 0.2).signal(4))
    top = (0.9 - mean) / spread
    assert found["dense"].tolist() == pytest.approx([top, 0, 0, 0], abs=1e-5)
    assert found["dense_near"].tolist() == pytest.approx([0, top, top / 2, 0], abs=1e-5)
    assert found["dense_sess"].tolist() == pytest.approx([top] * 4, abs=1e-5)


def test_dense_stays_in_its_session() -> None:
    rows = [(1, 1, 0, "a", 0, 1, 0), (2, 2, 0, "a", 0, 1, 0), (3, 2, 1, "a", 0, 1, 0)]
    found = signals.dense(Layout.of(rows), _near(0.9, 0.1, 0.2).signal(3))
    assert found["dense_near"].tolist() == [0, 0, 0]
    assert found["dense_sess"][1:].tolist() == [0, 0]


def test_few_vectors_among_many_items_say_little() -> None:
    assert _near(0.9, 0.1).signal(3).tolist() == pytest.approx([2 / 3, 0], abs=1e-5)
    assert _near(0.9, 0.1).signal(1).tolist() == pytest.approx([1, 0], abs=1e-5)  # never more than all


@pytest.mark.parametrize("cosines", [[], [0.3], [0.3, 0.3, 0.3]])
def test_few_or_equal_cosines_make_no_nonsense(cosines: list[float]) -> None:
    found = _near(*cosines).signal(len(cosines))
    assert len(found) == len(cosines)
    assert all(0 <= value <= 1 for value in found.tolist())


def test_what_is_left_out_still_counts_for_how_near_all_are() -> None:
    near = _near(0.9, 0.1, 0.5)
    kept = near.kept(np.array([True, False, True]))
    assert kept.items.tolist() == [1, 3]
    assert kept.signal(3).tolist() == pytest.approx(near.signal(3)[[0, 2]].tolist())
    assert near.highest(2).tolist() == [1, 3]


# --- the sum ----------------------------------------------------------------------------------------------------------


def test_a_score_is_the_sum_of_its_parts() -> None:
    values = {name: np.array([0.5, 0.0], dtype=np.float32) for name in fusion.WEIGHTS}
    scores = fusion.fused(values, 2)
    assert scores.tolist() == pytest.approx([0.5 * sum(fusion.WEIGHTS.values()), 0], rel=1e-5)
    assert sum(fusion.parts(values, 0).values()) == pytest.approx(float(scores[0]), abs=1e-3)
    assert fusion.parts(values, 1) == {}


def test_the_best_of_those_that_may_be_found_and_of_equals_the_newer() -> None:
    scores, ids = np.array([1, 3, 3, 2, 9], dtype=np.float32), np.array([10, 11, 12, 13, 14])
    eligible = np.array([0, 1, 2, 3])
    for limit in (1, 2, 3, 4, 9):
        assert ids[fusion.best(scores, ids, eligible, limit)].tolist() == [12, 11, 13, 10][:limit]
    assert fusion.best(scores, ids, np.array([], dtype=np.int64), 3).tolist() == []
