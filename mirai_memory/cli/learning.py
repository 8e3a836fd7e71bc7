"""``learn``: what conversations teach, kept at once or looked through first."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, Yes, opened
from mirai_memory.cli.output import print_block, print_json, printable
from mirai_memory.cli.progress import shown
from mirai_memory.cli.reading import find_session

if TYPE_CHECKING:
    from mirai_memory import Learned, LearnedItem, Session, UserMemory

_PAGE = 100
_STYLES = {"proposed": "bold", "applied": "bold green", "refreshed": "green", "refused": "yellow"}
_QUESTION = "Keep it? [y]es, [n]o, [a]ll of them, [q]uit"


class _Quit(Exception):
    """Somebody at the terminal has seen enough."""


def learn(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id, or your own name for it; default: the latest.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conversations of the user.")] = False,
    review: Annotated[bool, typer.Option("--review", help="Show each proposal and ask, before it is kept.")] = False,
    yes: Yes = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Keep the facts and preferences that a conversation teaches; memory.long_term.extractor says who finds them.

    Each message is read once. With --review every proposal is shown with what it would replace; "q" leaves the
    conversation as it was, for another time. Without a terminal a review prints the proposals and changes nothing,
    unless --yes keeps them all. With --all, one that fails does not keep the others from being read.
    """
    if everything and session_id is not None:
        raise typer.BadParameter("name a session, or all of them with --all")
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        only = None if everything else find_session(mine, session_id)
        lessons = _Lessons(mine, review=review, yes=yes, silent=as_json)
        done = lessons.of(_sessions(mine) if everything else [only] if only else [], patient=everything)
    if as_json:
        print_json([learned.to_dict() for learned in done])
    _say_what_was_done(done, lessons, user)


class _Lessons:
    """Session after session; what is not to be kept without a word is asked about."""

    def __init__(self, mine: UserMemory, *, review: bool, yes: bool, silent: bool) -> None:
        self._mine = mine
        self._review = review and not yes
        self._may_ask = sys.stdin.isatty()
        self._silent = silent
        self.failed = self.left = 0

    def of(self, sessions: Iterator[Session] | Sequence[Session], *, patient: bool) -> list[Learned]:
        """What each has taught. ``patient``: one that fails is counted, and the next one read."""
        from mirai_memory import Busy, ModelError, NotFound

        done: list[Learned] = []
        for session in sessions:
            try:
                learned = self._one(session.id)
            except _Quit:
                break
            except (ModelError, Busy, NotFound) as error:
                if not patient:
                    raise
                say(f"session {session.id}: {error}")
                self.failed += 1
                continue
            if learned.messages:
                done.append(learned)
        return done

    def _one(self, session_id: str) -> Learned:
        with shown("reading messages") as progress:
            learned = self._mine.learn(session_id, apply=not self._review, progress=progress)
        if not self._review:
            self._print(learned)
            return learned
        proposed = [item for item in learned.items if item.outcome == "proposed"]
        if proposed and not self._may_ask:
            self.left += len(proposed)
            self._print(learned)
            return learned
        if learned.through <= learned.after or (not proposed and not self._may_ask):
            return learned
        self._print(learned.only(lambda item: item.outcome != "proposed"))
        wanted = self._chosen(learned, proposed)
        kept = self._mine.learn(session_id, proposals=learned.only(lambda item: any(item is one for one in wanted)))
        self._print(kept.only(lambda item: item.outcome not in ("applied", "refreshed")))  # not as was asked for
        return kept

    def _chosen(self, learned: Learned, proposed: list[LearnedItem]) -> list[LearnedItem]:
        """Those that somebody at the terminal wants."""
        wanted: list[LearnedItem] = []
        for number, item in enumerate(proposed, 1):
            _print_item(item, f"{number}/{len(proposed)}")
            reply = _asked()
            if reply == "q":
                say(f"session {learned.session_id}: nothing of it was kept; it will be read again")
                raise _Quit
            if reply == "a":
                return wanted + proposed[number - 1 :]
            if reply == "y":
                wanted.append(item)
        return wanted

    def _print(self, learned: Learned) -> None:
        if not self._silent:
            for item in learned.items:
                _print_item(item)


def _asked() -> str:
    while True:
        reply = str(typer.prompt(_QUESTION, err=True, prompt_suffix=" ")).strip().lower()[:1]
        if reply in ("y", "n", "a", "q"):
            return reply


def _print_item(item: LearnedItem, number: str = "") -> None:
    """A proposal: what it is of, its value, what it replaces or would, and why."""
    told: dict[str, Any] = item.proposal.to_dict() if item.proposal else {}
    name = "/".join(filter(None, [told.get("category"), told.get("key")])) or told.get("field", "")
    heading = [
        (number, "dim"),
        (item.outcome, _STYLES.get(item.outcome, "dim")),
        (f"{'preference ' if 'field' in told else ''}{name}", "bold cyan"),
    ]
    verb = "would replace" if item.outcome == "proposed" else "replaced" if item.outcome == "applied" else "known is"
    note = [
        f"{verb} {_one_text(item.replaces)}" if item.replaces else "",
        f"confidence {told['confidence']:g}" if told else "",
        told.get("reason", ""),
        item.note,
    ]
    line = " ".join("; ".join(filter(None, note)).split())
    print_block(heading, _one_text(told.get("value", "")), printable(line))


def _one_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _say_what_was_done(done: list[Learned], lessons: _Lessons, user: str) -> None:
    counts = Counter(item.outcome for learned in done for item in learned.items)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing to keep"
    messages = sum(learned.messages for learned in done)
    say(f"{messages} messages of user {user} read: {told}" if done else f"nothing new to learn from user {user}")
    if lessons.left:
        say("error: nothing was changed; --yes keeps all proposals without asking")
    if lessons.failed:
        say(f"error: {lessons.failed} conversations could not be learned from")
    if lessons.left or lessons.failed:
        raise typer.Exit(FAILED)


def _sessions(mine: UserMemory) -> Iterator[Session]:
    after: str | None = None
    while page := mine.list_sessions(limit=_PAGE, after=after):
        yield from page
        after = page[-1].id
