"""``demo``: one process stores a conversation and ends, another finds the answers in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mirai_memory.cli.failures import FAILED
from mirai_memory.cli.options import Config, Db, opened
from mirai_memory.cli.output import print_block, printable, shortened, when

DEFAULT_DB = "data/mirai_memory_demo.db"
DEMO_USER = "demo"
_WIDTH = 72  # of a text, indented, on a terminal of 80 columns

User = Annotated[str, typer.Option("--user", metavar="NAME", help="Whose memory.", rich_help_panel="Memory")]
Step = Literal["import", "ask"]


def demo(
    step: Annotated[Step | None, typer.Option("--step", hidden=True)] = None,
    user: User = DEMO_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Store a shipped conversation, then ask it questions from a new process.

    Needs no configuration; the database is data/mirai_memory_demo.db unless --db names another.
    """
    if step == "import":
        _import(user, db, config)
    elif step == "ask":
        _ask(user, db, config)
    else:
        _both(user, db or DEFAULT_DB, config)


def _both(user: str, db: str, config: Path | None) -> None:
    options = ["--user", user, "--db", db, *(["--config", os.fspath(config)] if config else [])]
    for step in ("import", "ask"):
        sys.stdout.flush()
        code = subprocess.run([sys.executable, "-m", "mirai_memory", "demo", "--step", step, *options]).returncode
        if code:
            raise typer.Exit(max(code, FAILED))  # below zero: ended by a signal


def _import(user: str, db: str | None, config: Path | None) -> None:
    from mirai_memory.demo import remember

    with opened(db, config, write=True) as memory:
        report = remember(memory.for_user(user))
    _title(f"1  Process {os.getpid()} stores a conversation, and ends")
    added, known = report.messages_added, report.messages_already_there
    print(f"   {report.sessions} sessions of Nina and her agent, {added} messages added, {known} already there.")
    if report.fault_count:
        raise typer.Exit(FAILED)


def _ask(user: str, db: str | None, config: Path | None) -> None:
    from mirai_memory.demo import ask, questions

    with opened(db, config) as memory:
        mine = memory.for_user(user)
        answers = [(question.text, ask(mine, question)) for question in questions()]
        preferences, facts = mine.get_user_preferences(), mine.get_knowledge(limit=10)
        place = memory.url
    _title(f"2  Process {os.getpid()} has only the database, and is asked")
    for question, message in answers:
        print()
        found = f"{message.name or message.role}, {when(message.timestamp)}: {message.content}" if message else "-"
        print_block([(f"   ? {question}", "bold cyan")], shortened(found, 2 * _WIDTH))
    _title("3  What it keeps besides the words that were said")
    if preferences:
        _line("style", preferences.coding_style or "")
        _line("tone", preferences.communication_tone or "")
        _line("tools", ", ".join(preferences.favorite_tools))
    for fact in facts:
        _line(fact.key or fact.category, fact.value)
    _next(user, place)


def _line(name: str, value: str) -> None:
    print(f"   {printable(name):<10} {shortened(printable(value), _WIDTH - 8)}")


def _next(user: str, place: str) -> None:
    shown = os.path.relpath(place) if os.path.isabs(place) else place
    shown = min(shown, place, key=len)
    _title("4  Try it")
    print(f"   mirai-memory recall 'зелёный чай' --user {user} --db {shown}")
    print(f"   mirai-memory sessions --user {user} --db {shown}")
    print(f"   mirai-memory import YOUR_CHAT.jsonl --db {shown}")
    print(f"   The database is {place}")


def _title(words: str) -> None:
    print()
    print_block([(words, "bold")], "")
