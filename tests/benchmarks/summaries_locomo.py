"""How much of what is asked later stands in a summary of the session, on a file of the LoCoMo set.

    python tests/benchmarks/summaries_locomo.py FILE [--tokens 150] [--without-days]

The set (snap-research/locomo, CC BY-NC 4.0) is for evaluation and no part of this project; FILE is your own copy.
Every session is summarised by itself. A question counts for the session that all of its evidence is in; questions of
category 5, which have no answer, are left out. An answer is there when all of its content words, stemmed, stand in the
summary. Beside the extractive summary: the session's opening sentences, with their speakers, cut at as many tokens.
``--without-days`` gives no message a time: what the sentences are worth without the days that are added to them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from mirai_memory import Message
from mirai_memory.search.analyzer import analyze
from mirai_memory.summaries.extractive import ExtractiveSummarizer
from mirai_memory.tokens import EstimatedTokens

COUNTER = EstimatedTokens()
_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")  # some are written "D:11:26"
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")

Summary = Callable[[Sequence[Message], int], str]


@dataclass(frozen=True, slots=True)
class Session:
    messages: list[Message]
    answers: list[frozenset[str]]


@dataclass(frozen=True, slots=True)
class Score:
    """Of the answers: the share that is there whole, the mean share of words; and the most tokens of a summary."""

    whole: float
    words: float
    tokens: int


def sessions(sample: dict[str, Any]) -> Iterator[Session]:
    talk = sample["conversation"]
    numbers = sorted(int(found[1]) for key in talk if (found := re.fullmatch(r"session_(\d+)", key)))
    for number in numbers:
        said = " ".join(talk[f"session_{number}_date_time"].split())
        when = datetime.strptime(said, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        messages = [_message(turn, when) for turn in talk[f"session_{number}"]]
        yield Session(messages, list(_answers(sample, number)))


def _message(turn: dict[str, Any], when: datetime) -> Message:
    caption = f" [shared image: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
    return Message(
        session_id="s", role="user", name=turn["speaker"], content=turn["text"] + caption, timestamp=when, id=1
    )


def _timeless(session: Session) -> Session:
    return replace(session, messages=[replace(message, timestamp=None) for message in session.messages])


def _answers(sample: dict[str, Any], session: int) -> Iterator[frozenset[str]]:
    """The content words of each answer whose evidence is all in this session."""
    for asked in sample["qa"]:
        found = {int(number) for text in asked["evidence"] for number, _ in _EVIDENCE.findall(text)}
        words = frozenset(analyze(str(asked.get("answer", ""))))
        if asked["category"] != 5 and found == {session} and words:
            yield words


def opening(messages: Sequence[Message], tokens: int) -> str:
    """The session's first sentences, as many as fit."""
    said = ""
    for message in messages:
        for place, sentence in enumerate(_SENTENCE.split(message.content)):
            longer = f"{said} {sentence}" if place else f"{said}\n{message.name}: {sentence}"
            if COUNTER.count(longer.strip()) > tokens:
                return said.strip()
            said = longer
    return said.strip()


def extractive(messages: Sequence[Message], tokens: int) -> str:
    return ExtractiveSummarizer(COUNTER).summarize(messages, previous=None, max_tokens=tokens)


def score(summary: Summary, held: Sequence[Session], tokens: int) -> Score:
    whole, words, most = [], [], 0
    for session in held:
        text = summary(session.messages, tokens)
        most = max(most, COUNTER.count(text))
        there = set(analyze(text))
        for answer in session.answers:
            whole.append(answer <= there)
            words.append(len(answer & there) / len(answer))
    return Score(mean(whole), mean(words), most)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--without-days", action="store_true")
    arguments = parser.parse_args()
    samples = json.loads(arguments.file.read_text(encoding="utf-8"))
    groups = {sample["sample_id"]: list(sessions(sample)) for sample in samples}
    if arguments.without_days:
        groups = {name: [_timeless(session) for session in held] for name, held in groups.items()}
    groups["ALL"] = [session for held in groups.values() for session in held]
    print("| conversation | answers | opening | words | extractive | words | ratio |\n|" + "---|" * 7)
    for name, held in groups.items():
        first, own = (score(summary, held, arguments.tokens) for summary in (opening, extractive))
        count = sum(len(session.answers) for session in held)
        shares = (first.whole, first.words, own.whole, own.words)
        print(f"| {name} | {count} | " + " | ".join(f"{100 * share:.1f} %" for share in shares), end="")
        print(f" | {own.whole / first.whole if first.whole else float('inf'):.2f} |")
    print(f"tokens of the longest: opening {first.tokens}, extractive {own.tokens}")


if __name__ == "__main__":
    main()
