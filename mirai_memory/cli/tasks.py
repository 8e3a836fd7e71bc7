"""``tasks``: pieces of work, listed, added, moved from status to status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

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
from mirai_memory.cli.output import print_json, print_table, when
from mirai_memory.cli.reading import find_session
from mirai_memory.entities import TaskStatus

if TYPE_CHECKING:
    from mirai_memory import Task

app = typer.Typer(no_args_is_help=True, help="List, add, finish and delete tasks.")

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="As 'tasks list' prints it.")]
Result = Annotated[str | None, typer.Option("--result", metavar="TEXT", help="What came of it; default: as it is.")]
OfSession = Annotated[
    str | None, typer.Option("--session", metavar="SESSION", help="Of this conversation: its id, or your name for it.")
]


@app.command("list", epilog=examples("tasks list --status pending"))
def list_(
    status: Annotated[TaskStatus | None, typer.Option("--status", help="Only these; default: all.")] = None,
    session: OfSession = None,
    limit: Limit = 50,
    after: Annotated[int, typer.Option("--after", metavar="ID", min=0, help="Go on behind this task.")] = 0,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List tasks, the oldest first."""
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        named = find_session(mine, session) if session else None
        # One more than is shown tells whether there are more.
        found = mine.get_tasks(named.id if named else None, status, limit=limit + 1, after=after or None)
    shown = found[:limit]
    if as_json:
        print_json([task.to_dict() for task in shown])
        return
    if shown:
        print_table(["id", "status", "since", "task"], [_row(task) for task in shown])
    more = f"; more: --after {shown[-1].id}" if len(found) > limit else ""
    say(f"{len(shown)} tasks of user {user}{more}")


def _row(task: Task) -> tuple[int | None, str, str, str]:
    result = f" -> {task.result}" if task.result else ""
    return task.id, task.status, when(task.completed_at or task.created_at), task.description + result


@app.command(epilog=examples("tasks add 'Book a table for Friday'"))
def add(
    description: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be done.")],
    session: OfSession = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Store a task, to be done."""
    from mirai_memory import Task

    with opened(db, config, write=True) as memory:
        mine = memory.for_user(user)
        named = find_session(mine, session) if session else None
        task = mine.get_task(mine.add_task(Task(description=description, session_id=named.id if named else None)))
    assert task is not None
    _print_changed(task, as_json)


@app.command(epilog=examples("tasks done 3 --result 'Booked for 19:00'"))
def done(
    task_id: Id,
    result: Result = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Mark a task as completed."""
    _set_status(task_id, "completed", result, user, db, config, as_json)


@app.command(epilog=examples("tasks status 3 in_progress"))
def status(
    task_id: Id,
    status: Annotated[TaskStatus, typer.Argument(metavar="STATUS", help="pending, in_progress, completed, failed.")],
    result: Result = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Set the status of a task; a finished one may be reopened."""
    _set_status(task_id, status, result, user, db, config, as_json)


def _set_status(
    task_id: int, status: TaskStatus, result: str | None, user: str, db: Db, config: Config, as_json: bool
) -> None:
    with opened(db, config) as memory:
        task = memory.for_user(user).update_task_status(task_id, status, result)
    _print_changed(task, as_json)


def _print_changed(task: Task, as_json: bool) -> None:
    if as_json:
        print_json(task.to_dict())
    else:
        print_table(["id", "status", "since", "task"], [_row(task)])


@app.command(epilog=examples("tasks delete 3 --dry-run", "tasks delete 3 --yes"))
def delete(
    task_id: Id,
    yes: Yes = False,
    dry_run: DryRun = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Delete a task. Prints the plan and asks."""
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        task = mine.get_task(task_id)
        if task is None:
            say(f"error: no task {task_id} of user {user}; 'mirai-memory tasks list' lists them")
            raise typer.Exit(FAILED)
        say(f"to be deleted from {memory.url}: task {task_id} of user {user}, {task.status}: {task.description}")
        if dry_run:
            return
        go_ahead_or_exit(yes)
        mine.delete_task(task_id)
    say(f"task {task_id} is deleted")
