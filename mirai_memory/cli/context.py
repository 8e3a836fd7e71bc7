"""``context``: what an agent would get for its next turn."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import on_terminal, print_json, printable
from mirai_memory.cli.reading import find_session

if TYPE_CHECKING:
    from mirai_memory import Context

Shape = Literal["openai", "anthropic", "prompt"]


def context(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id, or your own name for it; default: the latest.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="TEXT", help="What to look for; default: the newest message of the user."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, metavar="N", help="The budget; default: no limit.")
    ] = None,
    shape: Annotated[
        Shape | None, typer.Option("--shape", help="One text (prompt, the default), or messages for an API.")
    ] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print what an agent would get for the next turn of a conversation.

    Preferences, open tasks, the newest messages, and the facts and older messages that the query finds. --json
    prints all of it with what was left out.
    """
    if as_json and shape:
        raise typer.BadParameter("--json prints the context itself; leave one of them out", param_hint="--shape")
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        session = find_session(mine, session_id)
        built = mine.build_context(session.id, query, max_tokens=max_tokens) if session else None
    if as_json:
        print_json(built.to_dict() if built else None)
    elif built:
        _print(built, shape or "prompt")
    say(_summary(built) if built else f"no sessions of user {user}")


def _print(context: Context, shape: Shape) -> None:
    if shape == "prompt":
        text = context.to_prompt()
        # Into a file or a model it goes as it is.
        print(printable(text) if on_terminal() else text)
    elif shape == "openai":
        print_json(context.to_messages())
    else:
        print_json(context.to_messages("anthropic"))


def _summary(context: Context) -> str:
    """The session, the tokens, and how many things of each kind stayed out for which reason."""
    left = Counter((item.kind, item.reason) for item in context.omitted)
    counts = ", ".join(f"{count} {kind} ({reason})" for (kind, reason), count in sorted(left.items()))
    return f"session {context.session.id}, {context.tokens} tokens" + (f"; left out: {counts}" if counts else "")
