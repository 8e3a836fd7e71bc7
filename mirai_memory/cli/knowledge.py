"""``knowledge``: facts, listed, shown with what they were before, deleted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mirai_memory.cli.duplicates import duplicates, merge
from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import (
    DEFAULT_USER,
    Config,
    Db,
    DryRun,
    Json,
    Limit,
    User,
    Yes,
    examples,
    go_ahead_or_exit,
    opened,
)
from mirai_memory.cli.output import on_terminal, print_block, print_json, print_table, shortened, when
from mirai_memory.entities import SourceKind

if TYPE_CHECKING:
    from mirai_memory import Knowledge
    from mirai_memory.scoped import UserMemory

app = typer.Typer(no_args_is_help=True, help="List, show, merge and delete facts; 'remember' stores them.")

app.command(epilog=examples("knowledge duplicates", "knowledge duplicates --threshold 0.8 --json"))(duplicates)
app.command(epilog=examples("knowledge merge 12 31 --dry-run", "knowledge merge 12 31 --yes"))(merge)

_NAME = 20  # characters of a category or key on a terminal
Category = Annotated[str | None, typer.Option("--category", metavar="NAME", help="Only of this category.")]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only from this source.")]


@app.command("list", epilog=examples("knowledge list --category profile"))
def list_(
    category: Category = None,
    limit: Limit = 50,
    after: Annotated[int, typer.Option("--after", metavar="ID", min=0, help="Go on behind this fact.")] = 0,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List current facts, the user's and the shared ones, the oldest first."""
    with opened(db, config) as memory:
        # One more than is shown tells whether there are more.
        found = memory.for_user(user).get_knowledge(category, limit=limit + 1, after=after or None)
    shown = found[:limit]
    if as_json:
        print_json([fact.to_dict() for fact in shown])
        return
    if shown:
        print_table(["id", "category", "key", "value"], [_row(fact) for fact in shown])
    more = f"; more: --after {shown[-1].id}" if len(found) > limit else ""
    say(f"{len(shown)} facts for user {user}{more}")


def _row(fact: Knowledge) -> tuple[int | None, str, str, str]:
    value = fact.value + ("  (shared)" if fact.user_id is None else "")
    if not on_terminal():
        return fact.id, fact.category, fact.key or "", value
    return fact.id, shortened(fact.category, _NAME), shortened(_own_key(fact) or "-", _NAME), value


def _own_key(fact: Knowledge) -> str | None:
    """The key that the fact was given; one that is made from its value tells nothing."""
    return None if fact.key is None or fact.key.startswith("sha256:") else fact.key


@app.command(epilog=examples("knowledge show city", "knowledge show city --category profile"))
def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="What the fact says something about.")],
    category: Annotated[
        str | None, typer.Option("--category", metavar="NAME", help="Default: all where the key is in use.")
    ] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print every value that a key has had, the oldest first."""
    with opened(db, config) as memory:
        found = _history(memory.for_user(user), key, category)
    if not found:
        _say_missing(key, user)
    if as_json:
        print_json([fact.to_dict() for fact in found])
        return
    for fact in found:
        print_fact(fact)


def _history(mine: UserMemory, key: str, category: str | None) -> list[Knowledge]:
    used = {fact.category for fact in mine.get_knowledge(key=key)} if category is None else {category}
    return [fact for name in sorted(used) or ["general"] for fact in mine.knowledge_history(key, category=name)]


def print_fact(fact: Knowledge) -> None:
    """One value of a key: since when, until when, from where."""
    end = fact.superseded_at or fact.valid_to
    heading = [
        ("/".join(filter(None, [fact.category, _own_key(fact)])), "bold cyan"),
        ("was" if end else "is", "dim" if end else "bold green"),
        (f"{when(fact.valid_from)} - {when(end)}" if end else f"since {when(fact.valid_from)}", "dim"),
    ]
    note = [f"id {fact.id}", f"source {fact.source or fact.source_kind}", f"confidence {fact.confidence:g}"]
    if fact.expires_at:
        note.append(f"expires {when(fact.expires_at)}")
    print_block(heading, fact.value, ", ".join([*note, *(["shared"] if fact.user_id is None else [])]))


@app.command(epilog=examples("knowledge history city", "knowledge history city --category profile --json"))
def history(
    key: Annotated[str, typer.Argument(metavar="KEY", help="What the fact says something about.")],
    category: Annotated[
        str | None, typer.Option("--category", metavar="NAME", help="Default: all where the key is in use.")
    ] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print when each value of a key was true and when it was believed, the oldest first.

    What a fact was merged into is told by its id.
    """
    with opened(db, config) as memory:
        found = _history(memory.for_user(user), key, category)
    if not found:
        _say_missing(key, user)
    if as_json:
        print_json([fact.to_dict() for fact in found])
        return
    print_table(["id", "category", "true", "believed", "replaced by", "value"], [_times(fact) for fact in found])


def _times(fact: Knowledge) -> tuple[int | None, str, str, str, str, str]:
    def span(begin: datetime | None, end: datetime | None) -> str:
        return f"{when(begin)} - {when(end) if end else ''}".rstrip()

    true, believed = span(fact.valid_from, fact.valid_to), span(fact.created_at, fact.superseded_at)
    value = fact.value + ("  (shared)" if fact.user_id is None else "")
    return fact.id, fact.category, true, believed, str(fact.superseded_by or "-"), value


def _say_missing(key: str, user: str) -> NoReturn:
    say(f"error: no fact {key!r} for user {user}; 'mirai-memory knowledge list' lists them, --category narrows")
    raise typer.Exit(FAILED)


@app.command(epilog=examples("knowledge delete 12", "knowledge delete --source some-page --dry-run"))
def delete(
    knowledge_id: Annotated[int | None, typer.Argument(metavar="[ID]", min=1, help="One value, by its id.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Every value of this key.")] = None,
    category: Category = None,
    source: Source = None,
    source_kind: Annotated[SourceKind | None, typer.Option("--source-kind", help="Only from such sources.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Delete facts of a user: one by its id, or all that meet every condition. Prints the plan and asks.

    Earlier values of a key go with it. Shared facts stay.
    """
    names = {"id": knowledge_id, "key": key, "category": category, "source": source, "source kind": source_kind}
    wanted = [f"{name} {value}" for name, value in names.items() if value is not None]
    if not wanted:
        raise typer.BadParameter("name an id, or a condition", param_hint="[ID]")
    with opened(db, config) as memory:
        mine = memory.for_user(user)

        def go(*, count_only: bool) -> int:
            return mine.delete_knowledge(
                knowledge_id, key=key, category=category, source=source, source_kind=source_kind, dry_run=count_only
            )

        count = go(count_only=True)
        say(f"to be deleted from {memory.url}: {count} values of user {user}: {', '.join(wanted)}")
        if dry_run or not count:
            return
        go_ahead_or_exit(yes)
        count = go(count_only=False)
    say(f"{count} values are deleted")
