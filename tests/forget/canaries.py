"""Owners with something in every table, and everything that others have, to compare."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import select

from mirai_memory import Knowledge, MemoryManager, Message, Task, UnitOfWork, UserPreferences
from mirai_memory.models import Base
from mirai_memory.search.postings import PLACES, SCOPES, WORDS

CANARY = "zebrafinch"
LENGTHS = (1, 2, 3, 10, 30, 100, 600)


def fill(memory: MemoryManager, *, rounds: int = 12, seed: int = 1) -> None:
    """Alice's rows between Bob's, short and long: her pages are his pages. The canary stands in all that is hers."""
    chance = random.Random(seed)
    sessions = {
        owner: [memory.ensure_session(owner, f"chat-{mark}-{n}", metadata={"about": mark}).id for n in range(3)]
        for owner, mark in (("alice", CANARY), ("bob", "sparrow"))
    }
    for number in range(rounds):
        for owner, mark in (("alice", CANARY), ("bob", "sparrow")):
            texts = [f"{mark}{number} " * chance.choice(LENGTHS) for _ in range(chance.randrange(1, 25))]
            session = chance.choice(sessions[owner])
            said = [Message(session_id=session, role="user", name=mark, content=t, metadata={mark: 1}) for t in texts]
            ids = memory.add_messages(said)
            memory.add_task(Task(user_id=owner, description=mark, client_id=f"{mark}{number}"))
            for value in (f"{mark} {number}", f"{mark} again {number}"):
                fact = Knowledge(
                    user_id=owner, key=f"{mark}{number % 5}", value=value, source=mark, message_id=ids[0],
                    embedding=[1.0, 0.5], embedding_model="given",
                )  # fmt: skip
                memory.add_knowledge(fact)
    for owner, mark in (("alice", CANARY), ("bob", "sparrow")):
        memory.save_user_preferences(UserPreferences(user_id=owner, coding_style=mark, favorite_tools=[mark]))
        memory.add_knowledge(Knowledge(value=f"shared, number {len(owner)}", message_id=_first(memory, owner)))
        memory.run(lambda uow: _summarise(uow, sessions[owner][0], mark))  # noqa: B023 - called at once


def _first(memory: MemoryManager, owner: str) -> int:
    found = memory.search_messages(CANARY if owner == "alice" else "sparrow", user_id=owner, limit=1)
    assert found[0].id is not None
    return found[0].id


def _summarise(uow: UnitOfWork, session: str, summary: str) -> None:
    sessions = Base.metadata.tables["sessions"]
    uow.db.execute(sessions.update().where(sessions.c.id == session).values(summary=summary, summarized_through=1))


def rows_of(memory: MemoryManager, owner: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that is the owner's, the index included."""

    def read(uow: UnitOfWork) -> dict[str, list[tuple[Any, ...]]]:
        held = {
            table.name: [tuple(row) for row in uow.db.execute(select(table).where(table.c.user_id == owner))]
            for table in Base.metadata.sorted_tables
            if "user_id" in table.c
        }
        scopes = uow.db.execute(select(SCOPES).where(SCOPES.c.user_id == owner)).all()
        held["word_scopes"] = [tuple(row) for row in scopes]
        ids = [scope.id for scope in scopes]
        held["word_places"] = [tuple(row) for row in uow.db.execute(select(PLACES).where(PLACES.c.scope.in_(ids)))]
        for words in WORDS.values():
            rows = uow.db.execute(select(words.c.rowid, words.c.terms).order_by(words.c.rowid)).all()
            held[words.name] = [tuple(r) for r in rows if any(r.terms.startswith(f" @{id} ") for id in ids)]
        return {name: sorted(rows, key=repr) for name, rows in held.items()}

    return memory._store.read(read)
