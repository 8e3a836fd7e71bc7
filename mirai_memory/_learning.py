"""Learning from conversations, when asked: what both faces of the memory offer in the same words.

A model is asked outside of any transaction, under a lease on the session. What it proposes is stored in one, together
with the mark of how far the session is learned: killed between any two steps, it has learned all of a range or nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from mirai_memory import _checks
from mirai_memory._facade import Facade
from mirai_memory.config import Settings
from mirai_memory.entities import Knowledge, Message, UserPreferences
from mirai_memory.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    InvalidInput,
    MiraiMemoryError,
    ModelError,
    ReadOnly,
)
from mirai_memory.learning import Extractor, Learned, LearnedItem, Proposals, ProposedFact, open_extractor
from mirai_memory.learning.recalled import without_recalled
from mirai_memory.learning.validation import MOST_PROPOSALS, Proposed, Rules, judged
from mirai_memory.logging import logger
from mirai_memory.services import knowledge as facts
from mirai_memory.services import preferences as likes
from mirai_memory.services.learning import TEACHERS, Candidate, said_at
from mirai_memory.unit_of_work import UnitOfWork

_STEP_TOKENS, _STEP_MESSAGES = 4_000, 100  # of one question
_LONGEST_TEXT = 12_000  # characters of a message; who pastes a book tells little of themselves with it
_SEARCHED = 4_000  # characters of the messages, for which known facts are looked up
_LEASE_S, _GRACE_S = 300.0, 60.0  # beside the call, vectors are made and others write
_LOOK_AGAIN_S = 0.05  # while somebody else has the lease
_TRIES = 3  # of a range that others change again and again


@dataclass(frozen=True, slots=True)
class _Range:
    """Messages that can teach something, of the positions after ``after`` up to ``through``."""

    owner: str
    after: int
    through: int
    messages: list[Message]


class Learns(Facade):
    """``learn``, for the sessions that the face can see."""

    def learn(
        self,
        session_id: str,
        *,
        apply: bool = True,
        proposals: Learned | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Learned:
        """Have the extractor read what it has not read of a session yet, and keep what it proposes; what became of it.

        Only what user and assistant said is read, without what was recalled from the memory into it, some thousand
        tokens at a time; each range is stored in one transaction, and once, whoever else is at it. A fact follows the
        policy ``memory.long_term.on_conflict``, has the extractor as ``source``, and is true from when it was said.
        ``apply=False`` only proposes and changes nothing; ``proposals`` takes such a report back, with the items that
        are wanted, and asks nobody. ``progress(done, total)`` is called with positions after each range.

        Raises ConfigurationError where there is no extractor, NotFound, ModelError (what was stored before stays),
        Busy where others work on the session for longer than ``memory.busy_timeout_ms``, Conflict for proposals of a
        range that was learned meanwhile.
        """
        self._check_learning(apply)
        if proposals is not None:
            return self._keep_reviewed(session_id, proposals, apply)
        extractor = self._tools.extractor
        if extractor is None:
            raise ConfigurationError(
                "memory.long_term.extractor is none: name one there, or open the memory with extractor=..."
            )
        first = self._read(lambda uow: uow.learning.unlearned(session_id, limit=0))
        report = Learned(session_id=session_id, extractor=extractor.name, after=first.after, through=first.after)
        while report.through < first.end:
            if apply:
                step = self._learned(session_id, extractor, first.end)
            else:
                step = self._proposed(session_id, extractor, report.through, first.end)
            report = replace(
                report,
                through=step.through,
                messages=report.messages + step.messages,
                items=report.items + step.items,
            )
            if progress is not None:
                progress(min(report.through, first.end) - first.after, first.end - first.after)
        return report

    def _check_learning(self, apply: bool) -> None:
        if not self._settings.long_term.enabled:
            raise ConfigurationError("memory.long_term.enabled is false: facts are not kept")
        if apply and self._database.options.read_only:
            raise ReadOnly("this memory was opened read-only; learn(apply=False) only proposes")

    def _proposed(self, session_id: str, extractor: Extractor, after: int, end: int) -> Learned:
        """The next range, asked for and judged; nothing is changed."""
        range_ = self._range(session_id, after, end)
        candidates, refused = self._candidates(session_id, range_, extractor)
        outlook = self._read(lambda uow: uow.learning.outlook(session_id, candidates))
        return _report(session_id, extractor, range_, [*outlook, *refused])

    def _learned(self, session_id: str, extractor: Extractor, end: int) -> Learned:
        """The next range that nobody has learned from, asked for, judged and stored."""
        for _ in range(_TRIES):
            with self._leased(session_id, extractor) as token:
                range_ = self._range(session_id, None, end)
                if range_.through <= range_.after:
                    return _report(session_id, extractor, range_, [])
                candidates, refused = self._candidates(session_id, range_, extractor)
                ready = self._with_their_vectors(candidates)
                stored = self._store_learned(session_id, ready, range_, token)
            if stored is not None:
                logger.info(
                    "learned from {} messages: {} proposals, {} refused",
                    len(range_.messages), len(stored) + len(refused), len(refused), user_id=range_.owner,
                )  # fmt: skip
                return _report(session_id, extractor, range_, [*stored, *refused])
        raise Busy("messages of the session are changed again and again while they are learned from; try again")

    def _store_learned(
        self, session_id: str, candidates: Sequence[Candidate], range_: _Range, token: str
    ) -> list[LearnedItem] | None:
        """What became of each; None where the range, or a message of it, is another by now."""

        def store(uow: UnitOfWork) -> list[LearnedItem] | None:
            if not uow.leases.holds(session_id, token):
                return None
            uow.leases.release(session_id, token)
            return uow.learning.store(session_id, candidates, after=range_.after, through=range_.through)

        return self._write_texts(store)

    @contextmanager
    def _leased(self, session_id: str, extractor: Extractor) -> Iterator[str]:
        """The session, once nobody else has it, and for as long as the extractor may take. Raises Busy."""
        seconds, wait_s = _longest_s(extractor) + _GRACE_S, self._settings.busy_timeout_ms / 1000
        until = time.monotonic() + wait_s
        while (token := self._write(lambda uow: uow.leases.take(session_id, "learning", seconds))) is None:
            if time.monotonic() >= until:
                raise Busy(f"somebody else works on the session, and has not ended within {wait_s:g} s; try again")
            time.sleep(_LOOK_AGAIN_S)
        try:
            yield token
        finally:
            with suppress(MiraiMemoryError):  # it ends by itself
                self._write(lambda uow: uow.leases.release(session_id, token))

    def _range(self, session_id: str, after: int | None, end: int) -> _Range:
        """As many of the next messages as one question takes."""
        found = self._read(lambda uow: uow.learning.unlearned(session_id, limit=_STEP_MESSAGES, after=after))
        taken: list[Message] = []
        tokens, through = 0, found.after
        for message in found.messages:
            position = message.position or 0
            text = _teaching(message)
            tokens += self._counter.count(text)
            if position > end:
                through = end
                break
            if taken and tokens > _STEP_TOKENS:
                break
            if text:
                taken.append(replace(message, content=text, parts=None, tool_calls=None, payload=None, metadata={}))
            through = position
        else:
            if len(found.messages) < _STEP_MESSAGES:
                through = max(end, found.after)  # behind the last one nothing is left
        return _Range(found.owner, found.after, through, taken)

    def _candidates(
        self, session_id: str, range_: _Range, extractor: Extractor
    ) -> tuple[list[Candidate], list[LearnedItem]]:
        """What the extractor proposes and is sound, and what is refused."""
        if not range_.messages:
            return [], []
        text = "\n".join(message.content for message in range_.messages)[:_SEARCHED]
        known, preferences = self._read(lambda uow: uow.learning.known(session_id, text))
        answer = _extracted(extractor, range_.messages, known, preferences)
        rules = Rules.of(range_.messages, known, self._preferences_to_learn())
        sound, refused = judged(answer, rules, extractor.name, most=MOST_PROPOSALS)
        return self._prepared(sound, refused, rules, range_.owner, extractor.name), refused

    def _preferences_to_learn(self) -> Sequence[str]:
        return self._settings.user_preferences.remember if self._settings.user_preferences.enabled else ()

    def _prepared(
        self, sound: Sequence[Proposed], refused: list[LearnedItem], rules: Rules, owner: str, source: str
    ) -> list[Candidate]:
        """As they are stored; what the memory itself refuses joins ``refused``."""
        candidates = []
        for proposal in sound:
            try:
                candidates.append(self._candidate(proposal, rules, owner, source))
            except InvalidInput as error:
                refused.append(LearnedItem(proposal=None, outcome="refused", note=str(error)))
        return candidates

    def _candidate(self, proposal: Any, rules: Rules, owner: str, source: str) -> Candidate:
        message = rules.newest(proposal)
        by_user = any(rules.messages[id].role == "user" for id in proposal.message_ids)
        if not isinstance(proposal, ProposedFact):
            preferences = replace(UserPreferences(user_id=owner), **{proposal.field: proposal.value})
            likes.checked(preferences, self._settings)
            return Candidate(proposal, message, by_user)
        fact = Knowledge(
            user_id=owner,
            category=proposal.category,
            key=proposal.key,
            value=proposal.value,
            confidence=proposal.confidence,
            source=source,
            source_kind="assistant" if message.role == "assistant" else "user",
            message_id=message.id,
            # A clock of somebody else's may be ahead.
            valid_from=min(said_at(message), _checks.moment("clock", self._clock())),
        )
        return Candidate(proposal, message, by_user, facts.prepare(fact, self._settings))

    def _with_their_vectors(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        prepared = iter(self._with_vectors([one.prepared for one in candidates if one.prepared is not None]))
        return [one if one.prepared is None else replace(one, prepared=next(prepared)) for one in candidates]

    def _keep_reviewed(self, session_id: str, given: Learned, apply: bool) -> Learned:
        """Store proposals that somebody has looked through; they are judged again, whatever was done to them."""
        _check_report(given, session_id, apply)
        wanted: list[Any] = [item.proposal for item in given.items if item.outcome == "proposed"]
        ids = [id for proposal in wanted for id in _checks.items("message_ids", getattr(proposal, "message_ids", ()))]
        found = self._read(lambda uow: uow.learning.sources(session_id, ids, after=given.after, through=given.through))
        # What somebody has read and let pass may have any key.
        rules = replace(Rules.of(found, [], self._preferences_to_learn()), known=_keys(wanted))
        sound, refused = judged(Proposals(facts=wanted), rules, given.extractor, most=len(wanted))
        owner = found[0].user_id if found else None
        ready = self._with_their_vectors(self._prepared(sound, refused, rules, owner or "", given.extractor))
        stored = self._write_texts(
            lambda uow: uow.learning.store(session_id, ready, after=given.after, through=given.through)
        )
        if stored is None:
            raise Conflict("session", session_id, "its messages were learned from meanwhile; learn(apply=False) again")
        as_they_were = [item for item in given.items if item.outcome != "proposed"]
        return replace(given, items=[*stored, *refused, *as_they_were])


def usable_extractor(given: Extractor | None, settings: Settings) -> Extractor | None:
    """The extractor that was handed in, or else the one of the settings. Raises InvalidInput for what is none."""
    extractor = open_extractor(settings) if given is None else given
    if extractor is not None:
        _checks.name("extractor.name", getattr(extractor, "name", None))
        if not callable(getattr(extractor, "extract", None)):
            raise InvalidInput("extractor", "has no method extract")
    return extractor


def _extracted(
    extractor: Extractor, messages: Sequence[Message], known: Sequence[Knowledge], preferences: UserPreferences | None
) -> Proposals:
    try:
        return extractor.extract(messages, known=known, preferences=preferences)
    except MiraiMemoryError:
        raise
    except Exception as error:
        raise ModelError(f"extractor {extractor.name!r} failed with {type(error).__name__}") from error


def _longest_s(extractor: Extractor) -> float:
    seconds = getattr(extractor, "longest_s", _LEASE_S)
    return float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < 86_400 else _LEASE_S


def _teaching(message: Message) -> str:
    """What the message can teach; "" where that is nothing."""
    if message.kind != "chat" or message.role not in TEACHERS:
        return ""
    return without_recalled(message.content)[:_LONGEST_TEXT].strip()


def _report(session_id: str, extractor: Extractor, range_: _Range, items: list[LearnedItem]) -> Learned:
    return Learned(
        session_id=session_id,
        extractor=extractor.name,
        after=range_.after,
        through=range_.through,
        messages=len(range_.messages),
        items=items,
    )


def _keys(proposals: Sequence[Any]) -> set[tuple[str, str]]:
    pairs: list[Any] = [(one.category, one.key) for one in proposals if isinstance(one, ProposedFact)]
    return {(category, key) for category, key in pairs if isinstance(category, str) and isinstance(key, str)}


def _check_report(given: Any, session_id: str, apply: bool) -> None:
    if not isinstance(given, Learned):
        raise InvalidInput("proposals", f"must be what learn(apply=False) returned, not {type(given).__name__}")
    if not apply:
        raise InvalidInput("apply", "must be true for proposals, which are there to be applied")
    if given.session_id != session_id:
        raise InvalidInput("proposals", "are those of another session")
    _checks.name("proposals.extractor", given.extractor)
    if _checks.integer("proposals.through", given.through) <= _checks.integer("proposals.after", given.after):
        raise InvalidInput("proposals", "are of an empty range: there is nothing to learn")
