"""``remember``: a fact into the memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.knowledge import print_fact
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import print_json

if TYPE_CHECKING:
    from mirai_memory import Knowledge, MemoryManager
    from mirai_memory.scoped import UserMemory


def remember(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The fact, in any words.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="What it says something about: a later value of it takes its place."),
    ] = None,
    category: Annotated[str, typer.Option("--category", metavar="NAME", help="Keys are unique in it.")] = "general",
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Where it is from.")] = None,
    confidence: Annotated[float, typer.Option("--confidence", min=0, max=1, metavar="0..1", help="How sure.")] = 1.0,
    shared: Annotated[bool, typer.Option("--shared", help="For every user, not for one.")] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Store a fact. With --key it takes the place of the value before, which is kept as history."""
    from mirai_memory import Knowledge

    fact = Knowledge(value=text, key=key, category=category, source=source, confidence=confidence)
    with opened(db, config, write=True) as memory:
        place = memory if shared else memory.for_user(user)
        id = place.add_knowledge(fact)
        values = _values(place, fact, id)
    stored = next((item for item in values if item.id == id), replace(fact, id=id))
    is_new = stored.updated_at == stored.created_at
    superseded = [item for item in values if item.superseded_by == id and is_new]
    if as_json:
        print_json({"stored": stored.to_dict(), "superseded": [item.to_dict() for item in superseded]})
        return
    print_fact(stored)
    for item in superseded:
        say(f"superseded: id {item.id}, which is kept; 'mirai-memory knowledge show {item.key}' prints it")
    if stored.value != text:
        say("not stored: what is there is surer, and memory.long_term.on_conflict keeps it")
    elif not is_new:
        say("known already")


def _values(place: MemoryManager | UserMemory, fact: Knowledge, id: int) -> list[Knowledge]:
    """Every value of the fact's key, which the store has made where none was given."""
    if fact.key is not None:
        return place.knowledge_history(fact.key, category=fact.category)
    # Nothing else than this value can stand under such a key.
    return place.get_knowledge(fact.category, after=id - 1, limit=1)
