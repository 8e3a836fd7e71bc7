"""Learning from conversations: what nobody has learned from yet, and what is proposed, stored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, update

from mirai_memory import _checks
from mirai_memory.database.chunks import chunks
from mirai_memory.entities import Knowledge, Message, OnConflict, UserPreferences
from mirai_memory.errors import Conflict, InvalidInput, NotFound
from mirai_memory.learning.base import ProposedFact, ProposedPreference
from mirai_memory.learning.report import LearnedItem, Outcome
from mirai_memory.models import MessageRow, SessionRow
from mirai_memory.services.base import Service, Work
from mirai_memory.services.knowledge import KnowledgeBase, Prepared
from mirai_memory.services.messages import to_message
from mirai_memory.services.preferences import Preferences

MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()

TEACHERS = ("user", "assistant")  # whose messages are learned from: what a tool or a page says is no word of theirs
PREFERENCES = "preferences"  # the category whose policy holds for them
_KNOWN, _SAME_KEY = 30, 50  # facts
_COLUMNS = [column for column in MESSAGES.c if column.name != "group_start"]


@dataclass(frozen=True, slots=True)
class Unlearned:
    """The next messages of a session that nobody has learned from, of positions after ``after``, up to ``end``."""

    owner: str
    after: int
    end: int
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sound proposal, the message that said it last, whether the user said it, and of a fact what is to be stored."""

    proposal: ProposedFact | ProposedPreference
    message: Message
    by_user: bool
    prepared: Prepared | None = None


class Learning(Service):
    def unlearned(self, session_id: str, *, limit: int, after: int | None = None) -> Unlearned:
        """The next ``limit`` messages of any kind, behind ``after`` or behind what was learned from. Raises NotFound"""
        session = self._session(session_id)
        last = (session.learned_through or 0) if after is None else after
        behind = (MESSAGES.c.session_id == session.id) & (MESSAGES.c.position > last)
        rows = self._db.execute(select(*_COLUMNS).where(behind).order_by(MESSAGES.c.position).limit(limit))
        return Unlearned(session.user_id, last, session.next_position - 1, [to_message(row) for row in rows])

    def known(self, session_id: str, text: str) -> tuple[list[Knowledge], UserPreferences | None]:
        """Facts that the text may be about, then the newest ones; and the preferences of the session's owner."""
        work = self._as_owner(self._session(session_id))
        base = KnowledgeBase(work)
        found = base.search(text, limit=_KNOWN * 2 // 3) if text.strip() else []
        ids = {fact.id for fact in found}
        found += (fact for fact in base.newest(_KNOWN) if fact.id not in ids)
        return found[:_KNOWN], Preferences(work).get()

    def sources(self, session_id: str, ids: Sequence[int], *, after: int, through: int) -> list[Message]:
        """Those of the session's messages of these ids and positions that may teach something."""
        session = self._session(session_id)
        found: list[Row[Any]] = []
        can_teach = (MESSAGES.c.kind == "chat") & MESSAGES.c.role.in_(TEACHERS)
        placed = (MESSAGES.c.session_id == session.id) & MESSAGES.c.position.between(after + 1, through)
        for chunk in chunks(sorted({_checks.row_id("message_ids", id) for id in ids})):
            found += self._db.execute(select(*_COLUMNS).where(placed, can_teach, MESSAGES.c.id.in_(chunk))).all()
        return [to_message(row) for row in found]

    def outlook(self, session_id: str, candidates: Sequence[Candidate]) -> list[LearnedItem]:
        """What would become of each, if it were stored now: ``proposed`` where something would change."""
        book = _Book(self._as_owner(self._session(session_id)))
        items = [book.fate(candidate) for candidate in candidates]
        return [replace(item, outcome="proposed") if item.outcome in _CHANGING else item for item in items]

    def store(
        self, session_id: str, candidates: Sequence[Candidate], *, after: int, through: int
    ) -> list[LearnedItem] | None:
        """Store what is proposed, and that all up to ``through`` is learned; what became of each.

        None, and nothing is changed, where somebody has learned from what comes after ``after`` meanwhile. Raises
        NotFound.
        """
        session = self._session(self._hold_session(session_id))
        # Whoever moves the mark has the range: however long the proposals took, they are stored once.
        same = (SESSIONS.c.id == session.id) & (func.coalesce(SESSIONS.c.learned_through, 0) == after)
        if through >= session.next_position:
            raise InvalidInput("through", "is behind the last message of the session")
        if not self._db.execute(update(SESSIONS).where(same).values(learned_through=through)).rowcount:
            return None
        book = _Book(self._as_owner(session))
        wanted = [id for candidate in candidates for id in candidate.proposal.message_ids]
        there = {message.id for message in self.sources(session.id, wanted, after=after, through=through)}
        return [
            book.enter(candidate)
            if there.issuperset(candidate.proposal.message_ids)
            else LearnedItem(proposal=None, outcome="refused", note="a message that it was learned from is gone")
            for candidate in candidates
        ]

    def _session(self, session_id: str) -> Row[Any]:
        id = _checks.name("session_id", session_id)
        columns = (SESSIONS.c.id, SESSIONS.c.user_id, SESSIONS.c.learned_through, SESSIONS.c.next_position)
        row = self._db.execute(self._own(select(*columns), SESSIONS.c.user_id).where(SESSIONS.c.id == id)).first()
        if row is None:
            raise NotFound("session", id)
        return row

    def _as_owner(self, session: Row[Any]) -> Work:
        """From here on as the owner of the session, whoever asks."""
        return replace(self._work, owner=session.user_id)


_CHANGING: frozenset[Outcome] = frozenset({"applied", "refreshed"})


class _Book:
    """An owner's facts and preferences, as proposals meet them."""

    def __init__(self, work: Work) -> None:
        self._base = KnowledgeBase(work)
        self._preferences = Preferences(work)
        self._long_term = work.settings.long_term

    def fate(self, candidate: Candidate) -> LearnedItem:
        """What storing it would do."""
        if isinstance(candidate.proposal, ProposedFact):
            return self._fate_of_fact(candidate.proposal, candidate)
        return self._fate_of_preference(candidate.proposal)

    def enter(self, candidate: Candidate) -> LearnedItem:
        """Store it, where that changes something."""
        item = self.fate(candidate)
        if item.outcome not in _CHANGING:
            return item
        try:
            if candidate.prepared is not None:
                return replace(item, id=self._base.add_prepared(candidate.prepared))
            self._change(candidate.proposal)
        except Conflict as conflict:
            return replace(item, outcome="rejected", note=conflict.reason)
        except InvalidInput as error:  # tools that together are more than a list of them may hold
            return replace(item, outcome="refused", note=str(error))
        return item

    def _fate_of_fact(self, fact: ProposedFact, candidate: Candidate) -> LearnedItem:
        current = self._current(fact)
        if current is None:
            return LearnedItem(proposal=fact, outcome="applied")
        item = LearnedItem(proposal=fact, outcome="applied", replaces=current.value, id=current.id)
        if current.value == fact.value:
            if not candidate.by_user:  # the assistant has it from here: to say it again makes it no surer
                return replace(item, outcome="kept", note="the assistant repeats what is known", replaces=None)
            return replace(item, outcome="refreshed", replaces=None)
        said = said_at(candidate.message)
        if said < (current.valid_from or said):
            return replace(item, outcome="kept", note="what is known is newer than the message")
        return _by_policy(item, self._long_term.policy(fact.category), fact.confidence, current.confidence)

    def _current(self, fact: ProposedFact) -> Knowledge | None:
        """The owner's own open value of the key."""
        found = self._base.page(fact.category, key=fact.key, limit=_SAME_KEY)
        is_open = (one for one in reversed(found) if one.user_id and one.valid_to is None and not one.superseded_at)
        return next(is_open, None)

    def _fate_of_preference(self, preference: ProposedPreference) -> LearnedItem:
        current = self._value(preference.field)
        item = LearnedItem(proposal=preference, outcome="applied", replaces=current or None)
        if self._merged(preference) == current:
            return replace(item, outcome="kept", note="is so already", replaces=None)
        if not current or isinstance(current, list):
            return replace(item, replaces=None)
        # What somebody has set has no confidence: it counts as sure.
        return _by_policy(item, self._long_term.policy(PREFERENCES), preference.confidence, 1.0)

    def _value(self, field: str) -> Any:
        stored = self._preferences.get()
        return None if stored is None else getattr(stored, field)

    def _merged(self, preference: ProposedPreference) -> str | list[str]:
        """The new value; tools are added to those that are there."""
        if isinstance(preference.value, str):
            return preference.value
        tools = list(self._value(preference.field) or [])
        known = {tool.casefold() for tool in tools}
        return tools + [tool for tool in dict.fromkeys(preference.value) if tool.casefold() not in known]

    def _change(self, preference: Any) -> None:
        self._preferences.change(None, {preference.field: self._merged(preference)})


def said_at(message: Message) -> datetime:
    """When the message was said; the store has given it a time."""
    assert message.timestamp is not None
    return message.timestamp


def _by_policy(item: LearnedItem, policy: OnConflict, confidence: float, current: float) -> LearnedItem:
    """What becomes of another value."""
    if policy == "reject":
        return replace(item, outcome="rejected", note="another value is known, and the policy is 'reject'")
    if policy == "keep_higher_confidence" and confidence < current:
        return replace(item, outcome="kept", note="what is known is surer")
    return item
