"""What an agent gets for one turn: gathered in one transaction, then fitted into a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mirai_memory import _render
from mirai_memory.entities import Context, Knowledge, Message, Omitted, Session, Task, UserPreferences
from mirai_memory.errors import InvalidInput, NotFound
from mirai_memory.search import Query
from mirai_memory.services.base import Service, Work
from mirai_memory.services.knowledge import KnowledgeBase
from mirai_memory.services.messages import Messages
from mirai_memory.services.preferences import Preferences
from mirai_memory.services.sessions import Sessions
from mirai_memory.services.tasks import Tasks
from mirai_memory.tokens import TokenCounter

# How many of each may go in. More would cost the model attention, whatever the budget.
RECALLED, FACTS, TASKS = 10, 10, 20

_Left = tuple[str, Any, Literal["budget", "limit", "duplicate"]]  # kind, item, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """All that may go in, the most important first in every list; the history as groups, the newest first."""

    session: Session
    preferences: UserPreferences | None
    groups: list[list[Message]]
    tasks: list[Task]
    knowledge: list[Knowledge]
    recalled: list[Message]
    omitted: list[_Left] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a context is looked up for."""

    owner: str
    query: str


class Contexts(Service):
    def _session(self, session_id: str) -> Session:
        session = Sessions(self._work).get(session_id)
        if session is None:
            raise NotFound("session", session_id)
        return session

    def subject(self, session_id: str, query: str | None) -> Subject:
        """Whose memory is asked, and what for: the query, or else the newest user message of the window."""
        session = self._session(session_id)
        groups, _ = Messages(self._work).newest_groups(session.id, self._settings.short_term.max_messages)
        return Subject(owner=session.user_id, query=(_last_question(groups) or "") if query is None else query)

    def gather(self, session_id: str, query: Query | str | None) -> Gathered:
        session = self._session(session_id)
        # From here on as the owner of the session, whoever asks.
        work = replace(self._work, owner=session.user_id)
        groups, older = _history(work, session)
        query = Query.of((_last_question(groups) or "") if query is None else query)
        shown = {message.id for group in groups for message in group}
        recalled, facts, omitted = _found(work, query, shown)
        if older is not None:
            omitted.append(("history", older, "limit"))
        return Gathered(
            session=session,
            preferences=Preferences(work).get(),
            groups=groups,
            tasks=_open_tasks(work, omitted),
            knowledge=facts,
            recalled=recalled,
            omitted=omitted,
        )


def _history(work: Work, session: Session) -> tuple[list[list[Message]], Message | None]:
    """The window, newest group first, joined to the summary: nothing is told by both, and what neither of them has
    comes after it. Also the message before that, where neither has it."""
    limit, messages = work.settings.short_term.max_messages, Messages(work)
    groups, older = messages.newest_groups(session.id, limit)
    if session.summary is None or session.summarized_through is None:
        return groups, older
    through = session.summarized_through
    if _is_untold(older, through):
        # What has left the window since the last summary, which is no more than a window holds while summaries work.
        wider, before = messages.newest_groups(session.id, 2 * limit)
        if not _is_untold(before, through):
            groups, older = wider, before
    return [group for group in groups if _is_untold(group[-1], through)], older if _is_untold(older, through) else None


def _is_untold(message: Message | None, through: int) -> bool:
    return message is not None and (message.position or 0) > through


def _last_question(groups: Sequence[list[Message]]) -> str | None:
    newest = (message for group in groups for message in reversed(group))
    return next((message.content for message in newest if message.role == "user"), None)


def _found(work: Work, query: Query, shown: set[int | None]) -> tuple[list[Message], list[Knowledge], list[_Left]]:
    """Recalled messages that are not in the window, and facts: those found first, then the newest."""
    omitted: list[_Left] = []
    found = Messages(work).search(query, limit=RECALLED + len(shown)) if query.text else []
    omitted += (("recalled", message, "duplicate") for message in found if message.id in shown)
    others = [message for message in found if message.id not in shown]
    omitted += (("recalled", message, "limit") for message in others[RECALLED:])
    base = KnowledgeBase(work)
    facts = base.search(query, limit=FACTS + 1) if query.text else []
    known = {fact.id for fact in facts}
    facts += (fact for fact in base.newest(FACTS + 1) if fact.id not in known)
    omitted += (("knowledge", fact, "limit") for fact in facts[FACTS:])
    return others[:RECALLED], facts[:FACTS], omitted


def _open_tasks(work: Work, omitted: list[_Left]) -> list[Task]:
    tasks = Tasks(work)
    found = [task for status in ("in_progress", "pending") for task in tasks.page(None, status, limit=TASKS + 1)]
    omitted += (("task", task, "limit") for task in found[TASKS:])
    return found[:TASKS]


def fit(gathered: Gathered, max_tokens: int | None, counter: TokenCounter) -> Context:
    """As much as the budget holds; the rest is listed in ``omitted``.

    Taken in this order, and nothing more once something had to stay out: preferences and the newest group (which
    must fit), summary, tasks, older history, knowledge, recalled messages.
    """
    pieces = list(_pieces(gathered))
    context, count = _fitted(gathered, pieces, max_tokens, counter)
    left: list[_Left] = [(piece.kind, item, "budget") for piece in pieces[count:] for item in piece.items]
    omitted = [
        Omitted(kind=kind, id=item.id, tokens=counter.count(_LINES[kind](item)), reason=reason)
        for kind, item, reason in (*gathered.omitted, *left)
    ]
    return replace(context, omitted=omitted)


def _fitted(
    gathered: Gathered, pieces: Sequence[_Piece], max_tokens: int | None, counter: TokenCounter
) -> tuple[Context, int]:
    """The context, counted, with the most pieces that the budget holds, and how many these are."""

    def counted(count: int) -> Context:
        context = _build(gathered, pieces[:count])
        return replace(context, tokens=counter.count(_render.prompt(context)))

    count = _first_guess(pieces, _build(gathered, []), max_tokens, counter)
    context = counted(count)
    if max_tokens is None:
        return context, count
    if context.tokens <= max_tokens:
        # Lines cost less together than one by one: there may be room for more than was guessed.
        while count < len(pieces) and (larger := counted(count + 1)).tokens <= max_tokens:
            context, count = larger, count + 1
    while context.tokens > max_tokens:
        if not count:
            least = context.tokens
            raise InvalidInput("max_tokens", f"must be at least {least} to hold preferences and the newest messages")
        count -= 1
        context = counted(count)
    return context, count


def newest_within(groups: Sequence[list[Message]], max_tokens: int | None, counter: TokenCounter) -> list[Message]:
    """The newest groups (given newest first) that fit into the budget, as messages in order."""
    if max_tokens is None:
        return [message for group in reversed(groups) for message in group]
    kept: list[list[Message]] = []
    tokens = 0
    for group in groups:
        tokens += sum(counter.count(_render.history_line(message)) for message in group)
        if tokens > max_tokens:
            break
        kept.append(group)
    if groups and not kept:
        raise InvalidInput("max_tokens", f"must be at least {tokens} to hold the newest messages")
    return [message for group in reversed(kept) for message in group]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Things of one kind that go in together or not at all."""

    kind: str
    items: Sequence[Any]


def _pieces(gathered: Gathered) -> Iterator[_Piece]:
    """In the order in which they are taken."""
    if gathered.session.summary:
        yield _Piece("summary", [gathered.session])
    yield from (_Piece("task", [task]) for task in gathered.tasks)
    yield from (_Piece("history", group) for group in gathered.groups[1:])
    yield from (_Piece("knowledge", [fact]) for fact in gathered.knowledge)
    yield from (_Piece("recalled", [message]) for message in gathered.recalled)


def _build(gathered: Gathered, pieces: Sequence[_Piece]) -> Context:
    chosen: dict[str, list[Any]] = {"history": [gathered.groups[0]] if gathered.groups else []}
    for piece in pieces:
        chosen.setdefault(piece.kind, []).append(piece.items)
    return Context(
        session=gathered.session,
        preferences=gathered.preferences,
        summary=gathered.session.summary if "summary" in chosen else None,
        history=[message for group in reversed(chosen["history"]) for message in group],
        tasks=[item for (item,) in chosen.get("task", ())],
        knowledge=[item for (item,) in chosen.get("knowledge", ())],
        recalled=[item for (item,) in chosen.get("recalled", ())],
    )


def _first_guess(pieces: Sequence[_Piece], least: Context, max_tokens: int | None, counter: TokenCounter) -> int:
    """How many pieces fit if each costs what its lines do: nearly right, so that the whole is rendered rarely."""
    if max_tokens is None:
        return len(pieces)
    tokens = counter.count(_render.prompt(least))
    for number, piece in enumerate(pieces):
        tokens += sum(counter.count(_LINES[piece.kind](item)) for item in piece.items)
        if tokens > max_tokens:
            return number
    return len(pieces)


_LINES: dict[str, Callable[[Any], str]] = {
    "summary": lambda session: _render.text_line(session.summary),
    "task": _render.task_line,
    "history": _render.history_line,
    "knowledge": _render.fact_line,
    "recalled": _render.recalled_line,
}
