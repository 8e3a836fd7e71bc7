"""Threads that call everything at random, over few owners, sessions and keys, so that they meet all the time."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mirai_memory import Busy, Conflict, InvalidInput, Knowledge, MemoryManager, Message, NotFound, Task, UnitOfWork

OWNERS = ("ann", "ben", "cai")
NAMES = ("home", "work", "club")
KEYS = ("city", "drink", "pet")
WORDS = ["walrus", "tea", "rain", "morning", "чай", "дождь", "утро", "морж", "green", "river"]
GUARD = 300.0  # seconds after which something that should have happened will not; no test waits that long

Call = Callable[[MemoryManager, random.Random, "Seen"], Any]


@dataclass
class Seen:
    """What was made so far, for others to change; any of it may be gone by now."""

    messages: list[int] = field(default_factory=list)
    facts: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def one(self, dice: random.Random, ids: list[int]) -> int:
        """One of the newest few, so that several threads take the same."""
        return dice.choice(ids[-12:]) if ids else 1


def _text(dice: random.Random) -> str:
    return " ".join(dice.choices(WORDS, k=6)) + ". My home city is Perm."


def _session(memory: MemoryManager, dice: random.Random, owner: str | None = None) -> str:
    return memory.ensure_session(owner or dice.choice(OWNERS), dice.choice(NAMES)).id


def _say(session: str, dice: random.Random) -> Message:
    repeated = dice.choice((None, None, f"r{dice.randrange(8)}"))
    content = _text(dice) if repeated is None else f"said as {repeated}"
    return Message(session_id=session, role="user", content=content, client_id=repeated)


def _fact(dice: random.Random, seen: Seen) -> Knowledge:
    owner = dice.choice((*OWNERS, None))
    learned = seen.one(dice, seen.messages) if owner is None and dice.random() < 0.3 else None
    return Knowledge(user_id=owner, key=dice.choice(KEYS), value=_text(dice), message_id=learned)


def _add(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    seen.messages.append(memory.add_message(_say(_session(memory, dice), dice)))


def _add_over_sessions(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    sessions = [_session(memory, dice) for _ in range(3)]
    seen.messages += memory.add_messages([_say(dice.choice(sessions), dice) for _ in range(6)])


def _add_a_group(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    session, id = _session(memory, dice), f"call{dice.randrange(10**9)}"
    call = {"id": id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    seen.messages += memory.add_messages(
        [
            Message(session_id=session, role="assistant", tool_calls=[call]),
            Message(session_id=session, role="tool", tool_call_id=id, content=_text(dice)),
        ]
    )


def _add_facts(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    seen.facts += memory.add_knowledge_many([_fact(dice, seen) for _ in range(4)])


def _add_fact(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    policy = dice.choice((None, "replace", "keep_higher_confidence", "reject"))
    seen.facts.append(memory.add_knowledge(_fact(dice, seen), on_conflict=policy))


def _add_task(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    seen.tasks.append(memory.add_task(Task(session_id=_session(memory, dice), description="brew")))


def _all_at_once(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    owner = dice.choice(OWNERS)
    session, fact = _session(memory, dice, owner), _fact(dice, seen)

    def work(uow: UnitOfWork) -> int:
        uow.knowledge.add(fact)
        uow.preferences.change(owner, {"metadata": {dice.choice(KEYS): True}})
        return uow.messages.add(Message(session_id=session, role="user", content=fact.value))

    seen.messages.append(memory.run(work))


def _forget(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    if dice.random() < 0.2:
        memory.forget_user(dice.choice(OWNERS), compact=False)


def _learn(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    try:
        memory.learn(_session(memory, dice))
    except Busy as busy:  # what it reads is changed all the time here: it says so after some tries
        if "changed again and again" not in str(busy):
            raise


def _merge(memory: MemoryManager, dice: random.Random, seen: Seen) -> None:
    current = memory.get_knowledge(user_id=dice.choice(OWNERS))
    if len(current) > 1:
        keep, drop = dice.sample([fact.id or 0 for fact in current], 2)
        with suppress(InvalidInput):  # one of them is not current any more, or is for all
            memory.merge_knowledge(keep, drop)


CALLS: dict[str, tuple[int, Call]] = {
    "add_message": (8, _add),
    "add_messages": (4, _add_over_sessions),
    "add_messages of a group": (2, _add_a_group),
    "add_knowledge": (3, _add_fact),
    "add_knowledge_many": (3, _add_facts),
    "add_task": (1, _add_task),
    "run": (2, _all_at_once),
    "update_message": (3, lambda m, d, s: m.update_message(s.one(d, s.messages), _text(d))),
    "delete_message": (3, lambda m, d, s: m.delete_message(s.one(d, s.messages))),
    "pop_message": (2, lambda m, d, s: m.pop_message(_session(m, d))),
    "trim_old_messages": (2, lambda m, d, s: m.trim_old_messages(_session(m, d), d.randrange(6))),
    "clear_session": (1, lambda m, d, s: m.clear_session(_session(m, d))),
    "delete_session": (1, lambda m, d, s: m.delete_session(_session(m, d))),
    "update_session": (1, lambda m, d, s: m.update_session(_session(m, d), metadata={"n": d.random()})),
    "delete_knowledge by key": (2, lambda m, d, s: m.delete_knowledge(key=d.choice(KEYS), user_id=d.choice(OWNERS))),
    "delete_knowledge by id": (1, lambda m, d, s: m.delete_knowledge(s.one(d, s.facts))),
    "merge_knowledge": (1, _merge),
    "update_task_status": (1, lambda m, d, s: m.update_task_status(s.one(d, s.tasks), d.choice(("failed", "pending")))),
    "delete_task": (1, lambda m, d, s: m.delete_task(s.one(d, s.tasks))),
    "update_user_preferences": (2, lambda m, d, s: m.update_user_preferences(d.choice(OWNERS), coding_style=_text(d))),
    "delete_user_preferences": (1, lambda m, d, s: m.delete_user_preferences(d.choice(OWNERS))),
    "forget_user": (1, _forget),
    "cleanup_old_sessions": (1, lambda m, d, s: m.cleanup_old_sessions(30)),
    "learn": (1, _learn),
    "summarize": (1, lambda m, d, s: m.summarize(_session(m, d))),
    "reindex": (1, lambda m, d, s: m.reindex()),
    "search": (1, lambda m, d, s: m.recall(_text(d), user_id=d.choice(OWNERS))),
    "build_context": (1, lambda m, d, s: m.build_context(_session(m, d), "tea in the rain")),
    "get_stats": (1, lambda m, d, s: m.get_stats()),
}
# What a caller may be told of a thing that somebody else has deleted, or has stored first. Never that all are busy.
EXPECTED = (NotFound, Conflict)


def at_random(
    memory: MemoryManager, *, threads: int, calls: int, seed: int
) -> tuple[Counter[str], list[BaseException]]:
    """So many calls in each of the threads; how often each succeeded, and every error that nobody may be told."""
    done: Counter[str] = Counter()
    wrong: list[BaseException] = []
    seen, together = Seen(), threading.Barrier(threads, timeout=GUARD)
    names = list(CALLS)
    weights = [CALLS[name][0] for name in names]

    def work(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        together.wait()
        for name in dice.choices(names, weights, k=calls):
            try:
                CALLS[name][1](memory, dice, seen)
                done[name] += 1
            except EXPECTED as error:
                if isinstance(error, Conflict) and error.kind == "row":  # the server's rule, not ours
                    wrong.append(error)
            except BaseException as error:
                error.add_note(name)
                wrong.append(error)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, number) for number in range(threads)]:
            future.result(GUARD)
    return done, wrong
