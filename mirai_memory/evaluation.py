"""How well a memory finds what its user knows to be in it: labelled questions, recall and latency.

One JSON object per line: ``query``, and what should be found, as ``ids`` or as ``texts`` that stand in it; ``kind``
("messages" or "knowledge") where only one of them is asked, which ``ids`` need.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mirai_memory.entities import Knowledge, Message
from mirai_memory.errors import InvalidInput
from mirai_memory.scoped import UserMemory

__all__ = ["DEPTHS", "Evaluation", "Question", "evaluate", "read_questions"]

Kind = Literal["messages", "knowledge"]
KINDS: tuple[Kind, ...] = ("messages", "knowledge")
DEPTHS = (1, 5, 10, 20)
_MOST_CHARACTERS = 1_000_000  # of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question and what should be found for it: items with these ids, or items in which these texts stand."""

    query: str
    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    kind: Kind | None = None

    @property
    def wanted(self) -> int:
        return len(self.ids) + len(self.texts)

    def found_in(self, item: Knowledge | Message) -> set[int | str]:
        """Which of the wanted things this item is, or holds."""
        text = _folded(item.content if isinstance(item, Message) else item.value)
        found: set[int | str] = {wanted for wanted in self.texts if _folded(wanted) in text}
        return found | ({item.id} & set(self.ids) if item.id is not None else set())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over the questions, in percent; latencies in milliseconds."""

    questions: int
    recall: dict[int, float]  # by how many results were looked at
    mrr: float  # the mean of 1 / the rank of the first that was wanted
    p50_ms: float
    p95_ms: float
    missed: list[str] = field(default_factory=list)  # queries for which nothing wanted was found

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"recall": {str(depth): share for depth, share in self.recall.items()}}


def evaluate(memory: UserMemory, questions: Sequence[Question], *, depths: Sequence[int] = DEPTHS) -> Evaluation:
    """Ask the owner's memory every question. Raises InvalidInput where there is none."""
    if not questions:
        raise InvalidInput("questions", "must hold at least one question")
    hits, times = [], []
    for question in questions:
        started = time.perf_counter()
        found = _ask(memory, question, max(depths))
        times.append(1000 * (time.perf_counter() - started))
        hits.append([question.found_in(item) for item in found])
    times.sort()
    return Evaluation(
        questions=len(questions),
        recall={
            depth: _percent(
                len(set().union(*found[:depth])) / question.wanted
                for question, found in zip(questions, hits, strict=True)
            )
            for depth in depths
        },
        mrr=_percent(next((1 / rank for rank, found in enumerate(ranks, 1) if found), 0.0) for ranks in hits),
        p50_ms=round(statistics.median(times), 2),
        p95_ms=round(times[math.ceil(0.95 * len(times)) - 1], 2),
        missed=[question.query for question, found in zip(questions, hits, strict=True) if not any(found)],
    )


def _ask(memory: UserMemory, question: Question, limit: int) -> Sequence[Knowledge | Message]:
    if question.kind == "messages":
        return memory.search_messages(question.query, limit=limit)
    if question.kind == "knowledge":
        return memory.search_knowledge(question.query, limit)
    return memory.recall(question.query, limit=limit)


def _percent(shares: Iterable[float]) -> float:
    return round(100 * statistics.mean(shares), 1)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def read_questions(path: Path) -> list[Question]:
    """The questions of a file of JSON lines. Raises InvalidInput, which names the line, and OSError."""
    questions = []
    with path.open(encoding="utf-8-sig", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    questions.append(_question(number, line))
        except UnicodeDecodeError:
            raise InvalidInput(path.name, "is not UTF-8") from None
    if not questions:
        raise InvalidInput(path.name, "holds no questions")
    return questions


def _question(number: int, line: str) -> Question:
    place = f"line {number}"
    try:
        read = json.loads(line) if len(line) <= _MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise InvalidInput(place, 'is no JSON object such as {"query": "...", "texts": ["..."]}')
    unknown = sorted(read.keys() - {"query", "ids", "texts", "kind"})
    if unknown:
        raise InvalidInput(place, f"has the unknown name {unknown[0][:40]!r}; there are query, ids, texts and kind")
    query, ids, texts, kind = (read.get(name) for name in ("query", "ids", "texts", "kind"))
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput(place, "needs a query, a string")
    if kind is not None and kind not in KINDS:
        raise InvalidInput(place, f"kind must be one of {', '.join(KINDS)}")
    if not _are(ids, int) or not _are(texts, str) or not (ids or texts):
        raise InvalidInput(place, "needs ids, a list of integers, or texts, a list of non-empty strings")
    if ids and kind is None:
        raise InvalidInput(place, "needs kind as well: a message and a fact may have the same id")
    return Question(
        query=query, ids=tuple(dict.fromkeys(ids or ())), texts=tuple(dict.fromkeys(texts or ())), kind=kind
    )


def _are(values: Any, kind: type) -> bool:
    """Whether it is a list of these, or not there."""
    if values is None:
        return True
    return isinstance(values, list) and all(type(value) is kind and value not in ("",) for value in values)
