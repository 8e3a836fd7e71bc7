"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from mirai_memory._version import __version__
from mirai_memory.cli import (
    PROGRAM,
    backups,
    cleaning,
    config,
    context,
    copying,
    db,
    demo,
    exporting,
    forgetting,
    health,
    importing,
    knowledge,
    learning,
    logs,
    preferences,
    reading,
    remembering,
    searching,
    summarizing,
    tasks,
    verifying,
)
from mirai_memory.cli.failures import Group
from mirai_memory.cli.options import examples

app = typer.Typer(
    cls=Group,
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Long-term memory for AI agents: conversations, preferences, tasks and facts, found again by their words.

    Times are UTC. Exit codes: 0 fine, 1 failed, 2 usage, 3 configuration, 4 database unavailable.
    """


app.command("demo", epilog=examples("demo"))(demo.demo)
app.command("import", epilog=examples("import chat.jsonl --user alice"))(importing.import_)
app.command("export", epilog=examples("export alice alice.jsonl", "export alice.jsonl --user alice"))(exporting.export)
app.command("remember", epilog=examples("remember 'Alice lives in Perm' --key city --user alice"))(remembering.remember)
app.command("recall", epilog=examples("recall 'where does she live' --user alice"))(reading.recall)
app.command("context", epilog=examples("context --max-tokens 2000", "context --shape openai"))(context.context)
app.command("history", epilog=examples("history --limit 20 --user alice"))(reading.history)
app.command("sessions", epilog=examples("sessions --json"))(reading.sessions)
app.command("summarize", epilog=examples("summarize support-chat-17 --user alice", "summarize --all --user alice"))(
    summarizing.summarize
)
app.command("learn", epilog=examples("learn --review --user alice", "learn --all --json --user alice"))(learning.learn)
app.command("stats", epilog=examples("stats --db data/mirai_memory.db"))(reading.stats)
app.command("eval", epilog=examples("eval questions.jsonl --user alice --against memory.rag.embedder=none"))(
    searching.eval_
)
app.command("reindex", epilog=examples("reindex"))(searching.reindex)
app.command("cleanup", epilog=examples("cleanup --dry-run", "cleanup --days 90 --yes"))(cleaning.cleanup)
app.command("health", epilog=examples("health --db data/mirai_memory.db", "health --json"))(health.health)
app.command("verify", epilog=examples("verify", "verify --json"))(verifying.verify)
app.command("repair", epilog=examples("repair --yes"))(verifying.repair)
app.command("forget", epilog=examples("forget --user alice --dry-run", "forget --user alice --yes"))(forgetting.forget)
app.command("backup", epilog=examples("backup", "backup copy.db --overwrite"))(backups.backup)
app.command("restore", epilog=examples("restore copy.db --db data/mirai_memory.db"))(backups.restore)
app.command("drill", epilog=examples("drill", "drill copy.db --json"))(backups.drill)
app.command("copy", epilog=examples("copy --to postgresql+psycopg://user@host/database"))(copying.copy)
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(preferences.app, name="prefs")
app.add_typer(tasks.app, name="tasks")
app.add_typer(db.app, name="db")
app.add_typer(logs.app, name="logs")
app.command("init", epilog=examples("init", "init other.yaml"))(config.init)
app.add_typer(config.app, name="config")
