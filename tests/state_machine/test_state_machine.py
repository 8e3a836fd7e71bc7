"""The façade beside a model in plain Python, call after call, as Hypothesis chooses them.

Two memories are open on one SQLite file, and each call goes through either, as the administrator or bound to an owner:
what one writes the other must see, at once and whatever it has cached. After every call the two worlds are compared.

The default run is short. ``MIRAI_TEST_EXAMPLES=8000 python -m pytest -n 0 tests/state_machine`` looks for longer; at
about half a second an example that is an hour, and without ``CI`` in the environment other calls are chosen each time.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model import FINISHED, OWNERS, Fact, Job, Likes, Model, Refused, Said, Talk

from mirai_memory import (
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    MiraiMemoryError,
    Task,
    UserPreferences,
    load_settings,
)
from mirai_memory.testing.clock import START, FrozenClock

EXAMPLES = int(os.environ.get("MIRAI_TEST_EXAMPLES", "12"))  # read now: no test sees MIRAI_* variables
ALL = 1_000_000

WORDS = ("walrus", "heron", "казань", "зелёный", "tea")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
KEYS = ("city", "pet")
NUMBERS = st.integers(0, 50)
WHO = st.sampled_from(OWNERS)
SAID = st.tuples(
    st.sampled_from(["user", "user", "user", "call", "result"]),
    TEXTS,
    st.sampled_from("ab"),
    st.sampled_from([None, None, None, "r1", "r2"]),
)
Spoken = tuple[str, str, str, str | None]  # kind, text, call, client_id
POLICIES = st.sampled_from(["replace", "keep_higher_confidence", "reject"])


@functools.cache
def _template() -> bytes:
    """An empty database at head: migrating one for each example would take most of the time."""
    with tempfile.TemporaryDirectory() as folder:
        MemoryManager(Path(folder) / "template.db").close()
        return (Path(folder) / "template.db").read_bytes()


def _message(talk: str, said: Spoken) -> Message:
    kind, text, call, client_id = said
    if kind == "call":
        calls = [{"id": call, "type": "function", "function": {"name": "look", "arguments": "{}"}}]
        return Message(session_id=talk, role="assistant", content=text, tool_calls=calls, client_id=client_id)
    if kind == "result":
        return Message(session_id=talk, role="tool", content=text, tool_call_id=call, client_id=client_id)
    return Message(session_id=talk, role="user", content=text, client_id=client_id)


def _refusal(call: Callable[[], Any]) -> str | None:
    """The name of our own error that the call raises; None where it does what it should not."""
    try:
        call()
    except MiraiMemoryError as error:
        return type(error).__name__
    return None


class Machine(RuleBasedStateMachine):
    """Rules act on both worlds. What they choose from is counted off by a number, so that it shrinks to the first."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.file = Path(self.folder) / "memory.db"
        self.file.touch(mode=0o600)
        self.file.write_bytes(_template())
        self.clock = FrozenClock()
        self.model = Model(now=START)
        self.turn = self.looks = 0
        self.memories = [self._open(), self._open()]
        for owner in OWNERS:  # an empty world takes long to fill
            self.create_session(owner, bound=True, title="")
            batch = [("user", "walrus", "", None), ("user", "tea heron", "", None), ("user", "казань", "", "r1")]
            self.add_messages_of(self._talk(-1), batch, bound=True)
            self.learn_of(owner, "city", "казань", 0.5, -2, None, None, None, many=False)

    def _open(self) -> MemoryManager:
        # Nothing here is about syncs, which are most of a small write's time.
        return MemoryManager(self.file, clock=self.clock, settings=load_settings(memory={"synchronous": "normal"}))

    def teardown(self) -> None:
        try:
            for part in self._parts():
                part(self.memory)
            wrong = [check for check in self.memories[0].health().checks if check.status == "error"]
            assert wrong == []
        finally:
            for memory in self.memories:
                memory.close()
            shutil.rmtree(self.folder)

    @property
    def memory(self) -> MemoryManager:
        """One of the two, and the other the next time."""
        self.turn += 1
        return self.memories[self.turn % 2]

    def _talk(self, number: int) -> Talk:
        talks = list(self.model.talks.values())
        return talks[number % len(talks)]

    def _spoken(self, number: int) -> Said:
        messages = list(self.model.spoken(None))
        return messages[number % len(messages)]

    def _facade(self, owner: str | None, bound: bool) -> Any:
        memory = self.memory
        return memory.for_user(owner) if bound and owner is not None else memory

    def _same_outcome(self, real: Callable[[], Any], model: Callable[[], Any]) -> tuple[bool, Any]:
        """Whether both did it, and what the real one returned; both must have refused it otherwise, for one reason."""
        try:
            model()
        except Refused as refusal:
            expected = str(refusal)
        else:
            return True, real()
        assert _refusal(real) == expected
        return False, None

    # Time and processes

    @rule(what=st.sampled_from(["hour", "hour", "day", "reopen", "reopen", "season", "cleanup"]), number=NUMBERS)
    def go_on(self, what: str, number: int) -> None:
        if what == "reopen":
            self.memories[number % 2].close()
            self.memories[number % 2] = self._open()
        elif what == "cleanup":
            self._clean_up(30 if number % 2 else 90)
        else:
            self.model.now = self.clock.advance(hours={"hour": 1, "day": 24, "season": 24 * 30}[what])

    def _clean_up(self, days: int) -> None:
        old = [talk.id for talk in self.model.talks.values() if talk.used < self.model.now - timedelta(days=days)]
        assert self.memory.cleanup_old_sessions(days, dry_run=True) == len(old)
        assert self.memory.cleanup_old_sessions(days) == len(old)
        for id in old:
            self.model.delete_talk(id)
        self.model.unlearn([fact.id for fact in self.model.facts.values() if not fact.lives(self.model.now)])

    # Sessions

    @precondition(lambda self: len(self.model.talks) < 4)
    @rule(owner=WHO, bound=st.booleans(), title=TEXTS)
    def create_session(self, owner: str, bound: bool, title: str) -> None:
        memory = self.memory
        metadata = {"title": title}
        create = memory.for_user(owner).create_session if bound else functools.partial(memory.create_session, owner)
        session = create(metadata=metadata)
        self.model.talks[session.id] = Talk(session.id, owner, self.model.now, metadata)

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS, title=TEXTS, bound=st.booleans())
    def update_session(self, number: int, title: str, bound: bool) -> None:
        talk = self._talk(number)
        talk.metadata = {"title": title}
        self._facade(talk.owner, bound).update_session(talk.id, metadata=talk.metadata)

    # Messages

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS, said=SAID, bound=st.booleans())
    def add_message(self, number: int, said: Spoken, bound: bool) -> None:
        talk = self._talk(number)
        facade = self._facade(talk.owner, bound)
        known = talk.named(said[3])
        done, id = self._same_outcome(
            lambda: facade.add_message(_message(talk.id, said)), lambda: self._check_repeats(talk, [said])
        )
        if done and known is None:
            self._take_in(talk, [said], [id])
        elif done:
            assert known is not None
            assert id == known.id

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS, batch=st.lists(SAID, max_size=5), bound=st.booleans())
    def add_messages(self, number: int, batch: list[Spoken], bound: bool) -> None:
        self.add_messages_of(self._talk(number), batch, bound)

    def add_messages_of(self, talk: Talk, batch: list[Spoken], bound: bool) -> None:
        facade = self._facade(talk.owner, bound)
        done, ids = self._same_outcome(
            lambda: facade.add_messages([_message(talk.id, said) for said in batch]),
            lambda: self._check_repeats(talk, batch),
        )
        if done:
            assert len(ids) == len(batch)
            self._take_in(talk, batch, ids)

    def _check_repeats(self, talk: Talk, batch: list[Spoken]) -> None:
        known = {message.client_id: message.what for message in talk.messages if message.client_id}
        for kind, text, call, client_id in batch:
            what = (text, kind, "" if kind == "user" else call)
            if client_id is not None and known.setdefault(client_id, what) != what:
                raise Refused("Conflict")

    def _take_in(self, talk: Talk, batch: list[Spoken], ids: list[int]) -> None:
        known = {message.id for message in talk.messages}
        new = []
        for (kind, text, call, client_id), id in zip(batch, ids, strict=True):
            if id not in known:
                known.add(id)
                new.append(Said(id, 0, 0, text, kind, "" if kind == "user" else call, client_id))
        if new:
            self.model.new_positions(talk, new)

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS, call=st.sampled_from("ab"), texts=st.tuples(TEXTS, TEXTS, TEXTS), bound=st.booleans())
    def look_something_up(self, number: int, call: str, texts: tuple[str, str, str], bound: bool) -> None:
        kinds = ("user", "call", "result")
        batch = [(kind, text, call, None) for kind, text in zip(kinds, texts, strict=True)]
        self.add_messages_of(self._talk(number), batch, bound)

    @precondition(lambda self: any(self.model.spoken(None)))
    @rule(number=NUMBERS, what=st.sampled_from(["update", "update", "delete"]), text=TEXTS, bound=st.booleans())
    def change_message(self, number: int, what: str, text: str, bound: bool) -> None:
        message = self._spoken(number)
        talk = self.model.talk_of(message.id)
        facade = self._facade(talk.owner, bound)
        if what == "delete":
            facade.delete_message(message.id)
            talk.messages.remove(message)
        else:
            assert facade.update_message(message.id, text).content == text
            message.content = text

    @precondition(lambda self: self.model.talks)
    @rule(
        number=NUMBERS,
        how=st.sampled_from(["pop", "pop", "trim", "trim", "clear", "delete"]),
        keep=st.integers(0, 6),
        bound=st.booleans(),
    )
    def shorten(self, number: int, how: str, keep: int, bound: bool) -> None:
        talk = self._talk(number)
        facade = self._facade(talk.owner, bound)
        if how == "pop":
            popped = facade.pop_message(talk.id)
            expected = talk.messages.pop() if talk.messages else None
            assert (popped.id if popped else None) == (expected.id if expected else None)
        elif how == "trim":
            kept = talk.window(keep)
            assert facade.trim_old_messages(talk.id, keep) == len(talk.messages) - len(kept)
            talk.messages = kept
        elif how == "clear":
            assert facade.clear_session(talk.id) == len(talk.messages)
            talk.messages.clear()
        else:
            facade.delete_session(talk.id)
            self.model.delete_talk(talk.id)

    # Tasks

    @rule(owner=WHO, number=NUMBERS, text=TEXTS, client_id=st.sampled_from([None, None, "t1"]), bound=st.booleans())
    def add_task(self, owner: str, number: int, text: str, client_id: str | None, bound: bool) -> None:
        own = [talk.id for talk in self.model.talks.values() if talk.owner == owner]
        talk = own[number % len(own)] if own and number % 2 else None
        description = f"do {text}"
        known = next(
            (j for j in self.model.jobs.values() if client_id and (j.owner, j.client_id) == (owner, client_id)), None
        )
        task = Task(user_id=owner, session_id=talk, description=description, client_id=client_id)

        def check() -> None:
            if known is not None and (known.talk, known.description) != (talk, description):
                raise Refused("Conflict")

        facade = self._facade(owner, bound)
        done, id = self._same_outcome(lambda: facade.add_task(task), check)
        if done and known is None:
            self.model.jobs[id] = Job(id, owner, talk, description, client_id)
        elif done:
            assert known is not None
            assert id == known.id

    @precondition(lambda self: self.model.jobs)
    @rule(
        number=NUMBERS,
        status=st.sampled_from(["pending", "in_progress", *FINISHED, "delete"]),
        result=st.none() | TEXTS,
        bound=st.booleans(),
    )
    def change_task(self, number: int, status: Any, result: str | None, bound: bool) -> None:
        job = list(self.model.jobs.values())[number % len(self.model.jobs)]
        facade = self._facade(job.owner, bound)
        if status == "delete":
            facade.delete_task(job.id)
            del self.model.jobs[job.id]
            return
        task = facade.update_task_status(job.id, status, result)
        job.status = status
        job.result = job.result if result is None else result
        assert (task.completed_at is not None) == (status in FINISHED)

    # Preferences

    @rule(owner=WHO, style=st.none() | TEXTS, version=st.none() | st.integers(0, 4), bound=st.booleans())
    def save_preferences(self, owner: str, style: str | None, version: int | None, bound: bool) -> None:
        stored = self.model.likes.get(owner)

        def check() -> None:
            if version is not None and (stored is None or stored.version != version):
                raise Refused("Conflict")

        wanted = UserPreferences(user_id=owner, coding_style=style, version=version)
        facade = self._facade(owner, bound)
        done, saved = self._same_outcome(lambda: facade.save_user_preferences(wanted), check)
        if done:
            self.model.likes[owner] = Likes(stored.version + 1 if stored else 1, style, {})
            assert saved.version == self.model.likes[owner].version

    @rule(owner=WHO, key=st.sampled_from("xy"), value=NUMBERS, bound=st.booleans())
    def update_preferences(self, owner: str, key: str, value: int, bound: bool) -> None:
        memory, stored = self.memory, self.model.likes.get(owner)
        if value == 0 and stored is not None:
            memory.delete_user_preferences(owner)
            del self.model.likes[owner]
            return
        bind = functools.partial(memory.update_user_preferences, owner)
        (memory.for_user(owner).update_user_preferences if bound else bind)(metadata={key: value})
        before = stored or Likes(0, None, {})
        self.model.likes[owner] = Likes(before.version + 1, before.style, {**before.metadata, key: value})

    # Facts

    @rule(
        owner=st.sampled_from([*OWNERS, None]),
        key=st.sampled_from(KEYS),
        value=TEXTS,
        confidence=st.sampled_from([0.2, 0.9]),
        days=st.integers(-3, 0),
        until=st.sampled_from([None, None, None, -1, 2]),
        expires=st.sampled_from([None, None, None, -1, 2]),
        policy=POLICIES,
        many=st.booleans(),
    )
    def learn(
        self,
        owner: str | None,
        key: str,
        value: str,
        confidence: float,
        days: int,
        until: int | None,
        expires: int | None,
        policy: Any,
        many: bool,
    ) -> None:
        self.learn_of(owner, key, value, confidence, days, until, expires, policy, many)

    @precondition(lambda self: any(fact.is_open for fact in self.model.facts.values()))
    @rule(number=NUMBERS, value=TEXTS, confidence=st.sampled_from([0.2, 0.9]), days=st.integers(-3, 0), policy=POLICIES)
    def learn_otherwise(self, number: int, value: str, confidence: float, days: int, policy: Any) -> None:
        held = [fact for fact in self.model.facts.values() if fact.is_open]
        fact = held[number % len(held)]
        self.learn_of(fact.owner, fact.key, value, confidence, days, None, None, policy, number % 2 == 0)

    def learn_of(
        self,
        owner: str | None,
        key: str,
        value: str,
        confidence: float,
        days: int,
        until: int | None,
        expires: int | None,
        policy: Any,
        many: bool,
    ) -> None:
        now, facade = self.model.now, self._facade(owner, bound=many)
        since = now + timedelta(days=days)
        new = Fact(
            id=0,
            owner=owner,
            key=key,
            value=value,
            confidence=confidence,
            since=since,
            until=None if until is None else max(since, now + timedelta(days=until)),
            expires=None if expires is None else now + timedelta(days=expires),
        )
        fact = Knowledge(
            user_id=owner,
            key=key,
            value=value,
            confidence=confidence,
            valid_from=since,
            valid_to=new.until,
            expires_at=new.expires,
        )
        held: list[int | None] = []
        done, id = self._same_outcome(
            lambda: (
                facade.add_knowledge_many([fact], on_conflict=policy)[0]
                if many
                else facade.add_knowledge(fact, on_conflict=policy)
            ),
            lambda: held.append(self.model.learn(new, policy)),
        )
        if done and held[0] is None:
            assert id not in self.model.facts
            new.id = id
            self.model.store(new)
        elif done:
            assert id == held[0]

    @precondition(lambda self: self.model.facts)
    @rule(number=NUMBERS, whole_key=st.sampled_from([False, False, True]), bound=st.booleans())
    def forget(self, number: int, whole_key: bool, bound: bool) -> None:
        fact = list(self.model.facts.values())[-1 - number % len(self.model.facts)]
        if not whole_key:
            assert self._facade(fact.owner, bound).delete_knowledge(fact.id) == 1
            self.model.unlearn([fact.id])
            return
        ids = [other.id for other in self.model.facts.values() if (other.owner, other.key) == (fact.owner, fact.key)]
        assert self.memory.delete_knowledge(key=fact.key, user_id=fact.owner, dry_run=True) == len(ids)
        assert self.memory.delete_knowledge(key=fact.key, user_id=fact.owner) == len(ids)
        self.model.unlearn(ids)

    # Nobody touches what is another's

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS)
    def try_anothers(self, number: int) -> None:
        talk = self._talk(number)
        other = self.memory.for_user(OWNERS[talk.owner == OWNERS[0]])
        writes: list[Callable[[], Any]] = [
            lambda: other.add_message(_message(talk.id, ("user", "walrus", "a", None))),
            lambda: other.delete_session(talk.id),
            lambda: other.pop_message(talk.id),
            lambda: other.trim_old_messages(talk.id, 0),
            *(lambda m=m: other.update_message(m.id, "walrus") for m in talk.messages[:1]),
        ]
        assert {_refusal(write) for write in writes} == {"NotFound"}
        assert other.get_messages(talk.id) == []
        assert other.get_session(talk.id) is None

    # Looking

    @rule(owner=st.sampled_from([*OWNERS, None]), word=st.sampled_from(WORDS), bound=st.booleans())
    def search_messages(self, owner: str | None, word: str, bound: bool) -> None:
        facade = self._facade(owner, bound)
        named = {} if bound and owner else {"user_id": owner}
        found = facade.search_messages(word, limit=ALL, **named)
        known = {message.id: message.content for message in self.model.spoken(owner)}
        assert len({message.id for message in found}) == len(found)
        assert all(known[message.id] == message.content for message in found), "found what is not there, or another's"
        holding = {id for id, content in known.items() if word in content.split()}
        assert holding <= {message.id for message in found}
        assert holding or not found, "found around nothing"
        assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)

    @rule(owner=st.sampled_from([*OWNERS, None]), word=st.sampled_from(WORDS), bound=st.booleans())
    def search_knowledge(self, owner: str | None, word: str, bound: bool) -> None:
        facade = self._facade(owner, bound)
        named = {} if bound and owner else {"user_id": owner}
        found = [fact.id for fact in facade.search_knowledge(word, ALL, **named)]
        assert set(found) == self.model.found(owner, word)
        assert len(set(found)) == len(found)

    @rule(owner=WHO, word=st.sampled_from(WORDS))
    def recall(self, owner: str, word: str) -> None:
        found = self.memory.recall(word, user_id=owner, limit=ALL)
        facts = {item.id for item in found if isinstance(item, Knowledge)}
        messages = {item.id for item in found if isinstance(item, Message)}
        assert facts == self.model.found(owner, word)
        assert messages <= {message.id for message in self.model.spoken(owner)}

    @precondition(lambda self: self.model.talks)
    @rule(number=NUMBERS, query=st.none() | TEXTS, less=st.integers(0, 200), bound=st.booleans())
    def build_context(self, number: int, query: str | None, less: int, bound: bool) -> None:
        talk = self._talk(number)
        facade = self._facade(talk.owner, bound)
        whole = facade.build_context(talk.id, query)
        self._check_context(talk, whole, complete=True)
        for budget in {whole.tokens, max(0, whole.tokens - 1), max(0, whole.tokens - less)}:
            try:
                context = facade.build_context(talk.id, query, max_tokens=budget)
            except InvalidInput as error:
                least = int(str(error).split("at least ")[1].split()[0])
                assert budget < least <= whole.tokens, "refused a budget that is enough"
                context = facade.build_context(talk.id, query, max_tokens=least)
                budget = least
            assert context.tokens <= budget
            self._check_context(talk, context, complete=budget >= whole.tokens)

    def _check_context(self, talk: Talk, context: Any, *, complete: bool) -> None:
        ids = [message.id for message in context.history]
        window = [message.id for message in talk.window(12)]
        assert ids == window[len(window) - len(ids) :]
        assert bool(ids) == bool(window)
        assert not complete or ids == window
        own = {message.id for message in self.model.spoken(talk.owner)}
        assert {message.id for message in context.recalled} <= own - set(window)
        assert {fact.id for fact in context.knowledge} <= {fact.id for fact in self.model.true_now(talk.owner)}
        waiting = {j.id for j in self.model.jobs.values() if j.owner == talk.owner and j.status not in FINISHED}
        assert {task.id for task in context.tasks} <= waiting
        assert not complete or {task.id for task in context.tasks} == waiting or len(waiting) > 20
        assert (context.preferences is not None) == (talk.owner in self.model.likes)

    # Both worlds

    @invariant()
    def agree(self) -> None:
        """A quarter of all there is, another after each call; everything at the end."""
        self.looks += 1
        self._parts()[self.looks % 4](self.memory)

    def _parts(self) -> list[Callable[[MemoryManager], None]]:
        return [self._agree_on_talks, self._agree_on_facts, self._agree_on_owners, self._agree_on_numbers]

    def _agree_on_talks(self, memory: MemoryManager) -> None:
        assert {session.id for session in memory.list_sessions(limit=ALL)} == set(self.model.talks)
        for talk in self.model.talks.values():
            self._agree_on_talk(memory, talk)

    def _agree_on_facts(self, memory: MemoryManager) -> None:
        for owner in (*OWNERS, None):
            facts = memory.get_knowledge(user_id=owner, limit=ALL)
            expected = [(f.id, f.value, f.confidence) for f in self.model.true_now(owner)]
            assert [(f.id, f.value, f.confidence) for f in facts] == sorted(expected)

    def _agree_on_owners(self, memory: MemoryManager) -> None:
        for owner in OWNERS:
            self._agree_on_owner(memory, owner)

    def _agree_on_numbers(self, memory: MemoryManager) -> None:
        stats = memory.get_stats()
        assert stats["total_sessions"] == len(self.model.talks)
        assert stats["total_messages"] == len(list(self.model.spoken(None)))
        assert stats["total_tasks"] == len(self.model.jobs)
        assert stats["total_knowledge"] == sum(not fact.gone for fact in self.model.facts.values())

    def _agree_on_talk(self, memory: MemoryManager, talk: Talk) -> None:
        session = memory.get_session(talk.id)
        assert session is not None
        assert (session.user_id, session.metadata, session.message_count, session.last_active) == (
            talk.owner,
            talk.metadata,
            len(talk.messages),
            talk.used,
        )
        stored = memory.get_messages(talk.id, limit=ALL)
        assert [(m.id, m.position, m.content, m.client_id) for m in stored] == [
            (m.id, m.position, m.content, m.client_id) for m in talk.messages
        ]
        limit = self.looks // 4 % 6
        recent = [message.id for message in memory.get_recent_messages(talk.id, limit)]
        assert recent == [message.id for message in talk.window(limit)]

    def _agree_on_owner(self, memory: MemoryManager, owner: str) -> None:
        mine = memory.for_user(owner)
        jobs = [job for job in self.model.jobs.values() if job.owner == owner]
        assert [(t.id, t.session_id, t.description, t.status, t.result) for t in mine.get_tasks(limit=ALL)] == [
            (j.id, j.talk, j.description, j.status, j.result) for j in jobs
        ]
        likes, stored = self.model.likes.get(owner), mine.get_user_preferences()
        assert (stored and Likes(stored.version or 0, stored.coding_style, stored.metadata)) == likes
        for key in KEYS:
            history = [fact.id for fact in mine.knowledge_history(key)]
            assert history == sorted(fact.id for fact in self.model.visible(owner) if fact.key == key)


def _games(number: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=number, stateful_step_count=50, suppress_health_check=slow)


Machine.TestCase.settings = _games(EXAMPLES)
TestFacade = Machine.TestCase


@pytest.mark.long
class TestFacadeForLonger(Machine.TestCase):
    settings = _games(40)
