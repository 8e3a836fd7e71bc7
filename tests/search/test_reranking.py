"""A reranker: what it is given, what becomes of its answer, and that its faults cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from mirai_memory import Knowledge, MemoryManager, Message
from mirai_memory.reranking import RERANKED
from mirai_memory.testing.contract.making import contents, new_session, said, say


class Reranker:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, Sequence[str]], Any]) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._answer = answer

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        self.asked.append((query, list(texts)))
        return self._answer(query, texts)


def _reversed(query: str, texts: Sequence[str]) -> list[int]:
    return list(reversed(range(len(texts))))


@contextmanager
def _memory(reranker: Any, count: int = 4) -> Any:
    with MemoryManager(":memory:", reranker=reranker) as memory:
        session = new_session(memory)
        # Sessions of their own, so that none is found beside another.
        for number in range(count):
            say(memory, session if not number else new_session(memory), "tea" + " and more" * number)
            fact = Knowledge(user_id="alice", key=f"key {number}", value="tea" + " and more" * number)
            memory.add_knowledge(fact)
        yield memory


def _plain(memory_call: Callable[[MemoryManager], list[Any]], count: int = 4) -> list[Any]:
    with _memory(None, count) as memory:
        return _texts(memory_call(memory))


def _texts(found: list[Any]) -> list[str]:
    return [item.content if isinstance(item, Message) else item.value for item in found]


CALLS: list[Callable[[MemoryManager], list[Any]]] = [
    lambda memory: memory.search_messages("tea", user_id="alice"),
    lambda memory: memory.for_user("alice").search_messages("tea"),
    lambda memory: memory.search_messages("tea"),
    lambda memory: memory.search_knowledge("tea", user_id="alice"),
    lambda memory: memory.for_user("alice").search_knowledge("tea"),
    lambda memory: memory.recall("tea", user_id="alice"),
    lambda memory: memory.for_user("alice").recall("tea"),
]


@pytest.mark.parametrize("call", CALLS)
def test_every_search_is_put_in_its_order(call: Callable[[MemoryManager], list[Any]]) -> None:
    expected = _plain(call)
    assert len(expected) >= 4
    reranker = Reranker(_reversed)
    with _memory(reranker) as memory:
        assert _texts(call(memory)) == expected[::-1]
    [(query, texts)] = reranker.asked
    assert query == "tea"
    assert len(texts) == len(expected)


def test_facts_are_given_with_their_keys_and_messages_as_they_are() -> None:
    reranker = Reranker(_reversed)
    with _memory(reranker, 2) as memory:
        memory.recall("tea", user_id="alice")
        [(_, texts)] = reranker.asked
        assert set(texts) == {"key 0: tea", "key 1: tea and more", "tea", "tea and more"}


def test_the_best_fifty_are_given_however_few_are_wanted() -> None:
    reranker = Reranker(_reversed)
    with _memory(reranker, 60) as memory:
        [found] = memory.search_messages("tea", user_id="alice", limit=1)
        assert [len(texts) for _, texts in reranker.asked] == [RERANKED] == [50]
        assert found.content == reranker.asked[0][1][-1]
        many = memory.search_messages("tea", user_id="alice", limit=58)
        assert len(reranker.asked[1][1]) == 50
    plain = _plain(lambda memory: memory.search_messages("tea", user_id="alice", limit=58), 60)
    assert contents(many) == plain[:50][::-1] + plain[50:]


def test_nothing_and_a_single_result_are_not_reranked() -> None:
    reranker = Reranker(_reversed)
    with _memory(reranker, 1) as memory:
        assert len(memory.search_messages("tea", user_id="alice")) == 1
        assert memory.search_messages("coffee", user_id="alice") == []
        assert memory.search_messages("tea", user_id="alice", limit=0) == []
    assert reranker.asked == []


def test_scores_and_explanations_stay_those_of_the_search() -> None:
    with _memory(Reranker(_reversed)) as memory:
        found = memory.search_messages("tea", user_id="alice", explain=True)
        assert [message.score for message in found] == sorted(message.score or 0 for message in found)
        assert all(message.explanation for message in found)


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ([2, 0, 3, 1], [2, 0, 3, 1]),
        ((3,), [3, 0, 1, 2]),
        ([3, 1], [3, 1, 0, 2]),
        ([], [0, 1, 2, 3]),
        (np.array([2, 0, 3, 1]), [2, 0, 3, 1]),
        (dict.fromkeys([1, 0]), [1, 0, 2, 3]),
    ],
    ids=str,
)
def test_what_is_left_out_follows_in_the_order_of_the_search(order: Any, places: list[int]) -> None:
    expected = _plain(CALLS[0])
    with _memory(Reranker(lambda query, texts: order)) as memory:
        assert _texts(CALLS[0](memory)) == [expected[place] for place in places]


@pytest.mark.parametrize(
    "answer",
    [
        [0, 0, 1, 2],
        [4],
        [-1],
        [0.9, 1.7, 0.1, 2.2],  # scores, not an order
        np.array([1.0, 0.0]),
        ["1", "0"],
        "10",
        [None],
        None,
        5,
        [[1], [0]],
        {"order": [1, 0]},
    ],
    ids=str,
)
def test_an_answer_that_is_no_order_changes_nothing(answer: Any) -> None:
    expected = _plain(CALLS[0])
    with _memory(Reranker(lambda query, texts: answer)) as memory:
        assert _texts(CALLS[0](memory)) == expected


def test_one_that_fails_costs_nothing_and_is_said_without_a_word_of_the_texts(
    capfd: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    from mirai_memory import configure_logging, load_settings

    def fail(query: str, texts: Sequence[str]) -> Any:
        raise RuntimeError(f"no idea about {texts}")

    expected = _plain(CALLS[0])
    log = tmp_path / "log.jsonl"
    with configure_logging(load_settings(monitoring={"logs": {"path": str(log)}})), _memory(Reranker(fail)) as memory:
        assert _texts(CALLS[0](memory)) == expected
    text = log.read_text("utf-8")
    assert "the reranker failed with RuntimeError" in text
    assert "tea" not in text


def test_a_context_s_window_is_not_a_search(tmp_path: Any) -> None:
    """``build_context`` orders by time and budget; a reranker has no say in it."""
    reranker = Reranker(_reversed)
    with MemoryManager(":memory:", reranker=reranker) as memory:
        session = new_session(memory)
        memory.add_messages([said(session, f"tea {number}") for number in range(3)])
        assert [message.content for message in memory.build_context(session).history] == ["tea 0", "tea 1", "tea 2"]
