"""Two hot paths beside other libraries of the field: append one message, read the newest twelve.

    pip install -e '.[bench]'
    python tests/benchmarks/peers.py [--quick] [--json FILE] [--dir FOLDER]

Every arm keeps one conversation in a file of its own, on the same disk, and takes its turn. Each is used as its own
documentation shows; SQLite's defaults are synchronous=FULL, which is left as it is. "raw" is one INSERT in a WAL file,
with no index of words: this package keeps one, the others do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import measure
import rawsql
from corpus import Corpus

from mirai_memory import Message

STORED, NEWEST = 200, 12


@dataclass(frozen=True, slots=True)
class Arm:
    """A conversation: something that takes a text, and something that hands out the newest."""

    append: Callable[[str], object]
    newest: Callable[[], object]


Opener = Callable[[Path, ExitStack], Arm]


def ours(folder: Path, stack: ExitStack) -> Arm:
    memory = stack.enter_context(rawsql.opened(folder / "ours.db"))
    session = memory.create_session("owner").id
    return Arm(
        lambda text: memory.add_message(Message(session_id=session, role="user", content=text)),
        lambda: memory.get_recent_messages(session, limit=NEWEST),
    )


def raw(folder: Path, stack: ExitStack) -> Arm:
    db = sqlite3.connect(folder / "raw.db", isolation_level=None)
    stack.callback(db.close)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, session TEXT, role TEXT, content TEXT)")
    db.execute("CREATE INDEX by_session ON messages (session, id)")
    newest = "SELECT id, role, content FROM messages WHERE session = 's' ORDER BY id DESC LIMIT ?"
    return Arm(
        lambda text: db.execute("INSERT INTO messages (session, role, content) VALUES ('s', 'user', ?)", (text,)),
        lambda: db.execute(newest, (NEWEST,)).fetchall(),
    )


def openai_agents_sqlite(folder: Path, stack: ExitStack) -> Arm:
    from agents import SQLiteSession

    session = SQLiteSession("s", folder / "agents.db")
    stack.callback(session.close)
    return _agents(session, stack)


def openai_agents_sqlalchemy(folder: Path, stack: ExitStack) -> Arm:
    from agents.extensions.memory import SQLAlchemySession

    url = f"sqlite+aiosqlite:///{folder / 'agents-alchemy.db'}"
    return _agents(SQLAlchemySession.from_url("s", url=url, create_tables=True), stack)


def _agents(session: object, stack: ExitStack) -> Arm:
    run = stack.enter_context(asyncio.Runner()).run
    return Arm(
        lambda text: run(session.add_items([{"role": "user", "content": text}])),  # type: ignore[attr-defined]
        lambda: run(session.get_items(limit=NEWEST)),  # type: ignore[attr-defined]
    )


def langgraph_sqlite(folder: Path, stack: ExitStack) -> Arm:
    from langgraph.store.sqlite import SqliteStore

    store = stack.enter_context(SqliteStore.from_conn_string(str(folder / "langgraph.db")))
    store.setup()
    return _langgraph(store)


def langgraph_memory(folder: Path, stack: ExitStack) -> Arm:
    from langgraph.store.memory import InMemoryStore

    return _langgraph(InMemoryStore())


def _langgraph(store: object) -> Arm:
    keys = count()
    return Arm(
        lambda text: store.put(("s",), f"{next(keys):08}", {"role": "user", "content": text}),  # type: ignore[attr-defined]
        lambda: store.search(("s",), limit=NEWEST),  # type: ignore[attr-defined]
    )


def langchain(folder: Path, stack: ExitStack) -> Arm:
    from langchain_community.chat_message_histories import SQLChatMessageHistory

    history = SQLChatMessageHistory("s", connection=f"sqlite:///{folder / 'langchain.db'}")
    return Arm(history.add_user_message, lambda: history.messages[-NEWEST:])


def chroma(folder: Path, stack: ExitStack) -> Arm:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(folder / "chroma"), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("session", embedding_function=None)
    vector = [0.1] * 384
    return Arm(
        lambda text: collection.add(ids=[uuid.uuid4().hex], documents=[text], embeddings=[vector]),
        lambda: collection.get(limit=NEWEST, offset=max(0, collection.count() - NEWEST)),
    )


ARMS: dict[str, Opener] = {
    "raw": raw,
    "mirai_memory": ours,
    "openai-agents SQLiteSession": openai_agents_sqlite,
    "openai-agents SQLAlchemySession": openai_agents_sqlalchemy,
    "langgraph SqliteStore": langgraph_sqlite,
    "langgraph InMemoryStore (nothing is kept)": langgraph_memory,
    "langchain SQLChatMessageHistory": langchain,
    "chromadb": chroma,
}


def run(folder: Path, rounds: int) -> Iterator[measure.Result]:
    texts = Corpus().messages(1_000_000)
    with ExitStack() as stack:
        arms = {name: opened(folder, stack) for name, opened in ARMS.items()}
        for arm in arms.values():
            for _ in range(STORED):
                arm.append(next(texts))
        newest = {name: arm.newest for name, arm in arms.items()}
        yield from measure.interleaved(f"newest {NEWEST} of {STORED}", newest, rounds=rounds, base="raw")
        appending: dict[str, measure.Call] = {
            name: lambda arm=arm: arm.append(next(texts))  # type: ignore[misc]
            for name, arm in arms.items()
        }
        yield from measure.interleaved("append one message", appending, rounds=rounds, base="raw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="a folder on the disk to measure")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the others' own
    facts = measure.machine()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.dir, ignore_cleanup_errors=True) as folder:
        results = list(run(Path(folder), 20 if arguments.quick else 500))
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    print(measure.table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(measure.report(results, facts), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
