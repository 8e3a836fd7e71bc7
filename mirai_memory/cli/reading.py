"""``recall``, ``history``, ``sessions``, ``stats``: what the memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, Limit, User, opened
from mirai_memory.cli.output import (
    on_terminal,
    print_block,
    print_json,
    print_message,
    print_table,
    printable,
    shortened,
    when,
)

if TYPE_CHECKING:
    from mirai_memory import Knowledge, Message, Session
    from mirai_memory.scoped import UserMemory

_SHOWN = 300  # characters of a found text on a terminal
_EVER = 1_000_000  # hours


def recall(
    query: Annotated[str, typer.Argument(help="What to look for, in any words.")],
    limit: Limit = 10,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Find messages and facts, the best first."""
    with opened(db, config) as memory:
        found = memory.for_user(user).recall(query, limit=limit)
    if as_json:
        print_json([item.to_dict() | {"kind": _kind(item)} for item in found])
        return
    for number, item in enumerate(found, 1):
        print_found(number, item)
    if not found:
        say(f"nothing found for user {user}")


def _kind(item: Knowledge | Message) -> str:
    return "message" if hasattr(item, "role") else "knowledge"


def print_found(number: int, item: Any) -> None:
    """One result: score, kind, who and when; the text; where it stands."""
    is_message = _kind(item) == "message"
    who = (item.name or item.role or item.kind) if is_message else f"{item.category}/{item.key}"
    moment = item.timestamp if is_message else item.valid_from or item.created_at
    text = item.content if is_message else item.value
    score = f"{item.score:.2f}" if item.score is not None else "-"
    heading = [
        (f"{number}.", "bold"),
        (score, "green"),
        (_kind(item), "dim"),
        (who, "bold cyan"),
        (when(moment), "dim"),
    ]
    note = f"session {item.session_id}" if is_message else f"source {item.source or item.source_kind}"
    print_block(heading, shortened(text, _SHOWN) if on_terminal() else text, printable(note))


def history(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id, or your own name for it; default: the latest.")
    ] = None,
    limit: Limit = 50,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the newest messages of a conversation."""
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        session = find_session(mine, session_id)
        messages = mine.get_recent_messages(session.id, limit=limit) if session else []
    if as_json:
        print_json([message.to_dict() for message in messages])
        return
    for message in messages:
        print_message(message)
    if session is None:
        say(f"no sessions of user {user}")
    else:
        say(f"session {session.id}, {len(messages)} of {session.message_count} messages")


def find_session(mine: UserMemory, wanted: str | None) -> Session | None:
    """The session of that id or external id, the latest where none is wanted."""
    found = mine.get_session(wanted) if wanted else None
    if found:
        return found
    sessions = mine.get_active_sessions(hours=_EVER)
    if wanted is None:
        return sessions[0] if sessions else None
    for session in sessions:
        if session.external_id == wanted:
            return session
    say(f"error: no session {wanted!r} of user {mine.user_id}; 'mirai-memory sessions' lists them")
    raise typer.Exit(FAILED)


def sessions(
    limit: Limit = 20,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List conversations, the latest first."""
    with opened(db, config) as memory:
        found = memory.for_user(user).get_active_sessions(hours=_EVER)
    shown = found[:limit]
    if as_json:
        print_json([session.to_dict() for session in shown])
        return
    if on_terminal():
        for item in shown:
            heading = [
                (_title(item), "bold cyan"),
                (f"{item.message_count} messages", ""),
                (when(item.last_active), "dim"),
            ]
            print_block(heading, "", f"session {item.id}")
    elif shown:
        rows = [(item.id, item.message_count, when(item.last_active), _title(item)) for item in shown]
        print_table(["session", "messages", "last active", "title"], rows)
    say(f"{len(shown)} of {len(found)} sessions of user {user}")


def _title(session: Session) -> str:
    title = session.metadata.get("title")
    return shortened(title if isinstance(title, str) else session.external_id or "untitled", 50)


def stats(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Count what the database holds, of all users."""
    with opened(db, config) as memory:
        values = {"database": memory.url, **memory.get_stats()}
    if as_json:
        print_json(values)
        return
    estimated = values.pop("estimated")
    print_table(["what", "value"], [(name, f"about {v}" if name in estimated else v) for name, v in values.items()])
