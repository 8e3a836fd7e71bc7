"""``summarize``: what has left the window, in short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import on_terminal, print_block, print_json, when
from mirai_memory.cli.progress import shown
from mirai_memory.cli.reading import find_session

if TYPE_CHECKING:
    from mirai_memory import Session, UserMemory

_PAGE = 100


def summarize(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id, or your own name for it; default: the latest.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conversations of the user.")] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Summarise what has left the window of a conversation, and print its summary.

    Nothing is deleted, and nothing is asked of a model where there is nothing new. With --all, conversations without
    anything new are left out of what is printed; one that fails does not keep the others from being summarised.
    """
    if everything and session_id is not None:
        raise typer.BadParameter("name a session, or all of them with --all")
    with opened(db, config, write=False) as memory:
        mine = memory.for_user(user)
        if everything:
            done, failed = _all(mine)
        else:
            session = find_session(mine, session_id)
            done, failed = [_one(mine, session)] if session else [], 0
    _print(done, as_json=as_json)
    if failed:
        say(f"error: {failed} of {failed + len(done)} conversations could not be summarised")
        raise typer.Exit(FAILED)
    if not done:
        say(f"nothing to summarise of user {user}")


def _one(mine: UserMemory, session: Session) -> Session:
    with shown("summarising messages") as progress:
        return mine.summarize(session.id, progress=progress)


def _all(mine: UserMemory) -> tuple[list[Session], int]:
    """Those that were summarised now, and how many could not be."""
    from mirai_memory import Busy, ModelError, NotFound

    done, failed = [], 0
    with shown("summarising conversations") as progress:
        for before in _sessions(mine, progress):
            try:
                after = mine.summarize(before.id)
            except NotFound:  # deleted meanwhile
                continue
            except (ModelError, Busy) as error:
                say(f"session {before.id}: {error}")
                failed += 1
                continue
            if after.summarized_through != before.summarized_through:
                done.append(after)
    return done, failed


def _sessions(mine: UserMemory, progress: Callable[[int, int], None] | None) -> Iterator[Session]:
    ids = [session.id for session in _pages(mine)]
    for number, id in enumerate(ids):
        if progress is not None:
            progress(number, len(ids))
        session = mine.get_session(id)
        if session is not None:
            yield session


def _pages(mine: UserMemory) -> Iterator[Session]:
    after: str | None = None
    while page := mine.list_sessions(limit=_PAGE, after=after):
        yield from page
        after = page[-1].id


def _print(sessions: list[Session], *, as_json: bool) -> None:
    if as_json:
        print_json([_told(session) for session in sessions])
        return
    for session in sessions:
        told = f"through message {session.summarized_through or 0}, {session.summary_tokens or 0} tokens"
        note = f"session {session.id}, {told} of {session.summary_source_tokens or 0}"
        if session.summary is None:
            say(f"session {session.id}: nothing has left its window yet")
        elif on_terminal():
            print_block([(when(session.last_active), "dim")], session.summary, note)
        else:
            print(session.summary)
            say(note)


def _told(session: Session) -> dict[str, Any]:
    names = ("summarized_through", "summary", "summary_method", "summary_tokens", "summary_source_tokens")
    return {"session_id": session.id, **{name: getattr(session, name) for name in names}}
