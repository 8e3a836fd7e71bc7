"""``prefs``: what a user likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import (
    DEFAULT_USER,
    Config,
    Db,
    DryRun,
    Json,
    User,
    Yes,
    examples,
    go_ahead_or_exit,
    opened,
)
from mirai_memory.cli.output import print_json, print_table, when

if TYPE_CHECKING:
    from mirai_memory import UserPreferences

app = typer.Typer(no_args_is_help=True, help="Show, set and delete what a user likes.")


def _text(option: str, help: str) -> Any:
    return typer.Option(option, metavar="TEXT", help=help)


@app.command(epilog=examples("prefs show --user alice"))
def show(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Print the preferences of a user."""
    with opened(db, config) as memory:
        found = memory.for_user(user).get_user_preferences()
    _print(found, as_json)
    if found is None:
        say(f"no preferences of user {user}")


@app.command("set", epilog=examples("prefs set --communication-tone brief --tool uv --tool ruff"))
def set_(
    coding_style: Annotated[str | None, _text("--coding-style", "How code should look.")] = None,
    communication_tone: Annotated[str | None, _text("--communication-tone", "How to talk to the user.")] = None,
    tool: Annotated[list[str] | None, _text("--tool", "A favourite tool; repeat it for each.")] = None,
    project_context: Annotated[str | None, _text("--project-context", "What the user works on.")] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Set what is named and keep the rest. An empty text ("") clears; the tools are replaced as a whole."""
    texts = {
        "coding_style": coding_style,
        "communication_tone": communication_tone,
        "project_context": project_context,
    }
    changes: dict[str, Any] = {name: value or None for name, value in texts.items() if value is not None}
    if tool:
        changes["favorite_tools"] = [name for name in tool if name]
    if not changes:
        raise typer.BadParameter("nothing to set; name at least one", param_hint="OPTIONS")
    with opened(db, config, write=True) as memory:
        stored = memory.for_user(user).update_user_preferences(**changes)
    _print(stored, as_json)


def _print(preferences: UserPreferences | None, as_json: bool) -> None:
    if as_json:
        print_json(preferences.to_dict() if preferences else None)
    elif preferences:
        print_table(["what", "value"], list(_rows(preferences)))


def _rows(preferences: UserPreferences) -> list[tuple[str, Any]]:
    rows = [
        ("coding style", preferences.coding_style),
        ("communication tone", preferences.communication_tone),
        ("favorite tools", ", ".join(preferences.favorite_tools)),
        ("project context", preferences.project_context),
        *preferences.metadata.items(),
        ("updated", f"{when(preferences.updated_at)}, version {preferences.version}"),
    ]
    return [(name, "-" if value in (None, "") else value) for name, value in rows]


@app.command(epilog=examples("prefs delete --user alice --yes"))
def delete(
    yes: Yes = False,
    dry_run: DryRun = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Delete the preferences of a user. Prints the plan and asks."""
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        found = mine.get_user_preferences()
        if found is None:
            say(f"no preferences of user {user}: nothing to delete")
            return
        say(f"to be deleted from {memory.url}: the preferences of user {user}, version {found.version}")
        if dry_run:
            return
        go_ahead_or_exit(yes)
        mine.delete_user_preferences()
    say(f"the preferences of user {user} are deleted")
