"""How many bytes a message, a fact and a vector take, with all their indexes, on SQLite and on PostgreSQL.

    python tests/benchmarks/sizes.py [--messages 100000] [--facts 20000] [--quick] [--url URL]

Each engine is filled twice, with messages of about 20 words and of about 80, English and Russian in turn, 50 to a
session; then with facts without vectors, and with as many that bring one of 384 numbers. ``--url`` names the server's
administrator (else a throw-away server is started); databases are made there and dropped. What a table takes is read
after VACUUM: pg_total_relation_size there, dbstat or the size of the file here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import rawsql
from corpus import Corpus
from sqlalchemy import make_url

from mirai_memory import Knowledge, MemoryManager, Message, schema

sys.path.append(str(Path(__file__).parent.parent))

from own_server import own_server
from server_side import conninfo

SESSION, BATCH, OWNERS, DIM = 50, 1_000, 100, 384
Sizes = dict[str, tuple[int, int]]  # of each table: its own bytes, those of its indexes


@dataclass(frozen=True, slots=True)
class Line:
    """What was added in one step, and what each table has grown by."""

    engine: str
    what: str
    count: int
    utf8: float
    grown: Sizes

    @property
    def each(self) -> float:
        return sum(map(sum, self.grown.values())) / self.count


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(items)
    return iter(lambda: list(islice(source, BATCH)), [])


def add_messages(memory: MemoryManager, texts: list[str]) -> None:
    for start in range(0, len(texts), BATCH):
        owner = f"owner{start // BATCH % OWNERS}"
        said = []
        for first in range(start, min(start + BATCH, len(texts)), SESSION):
            session = memory.create_session(owner).id
            some = texts[first : first + SESSION]
            said += [Message(session_id=session, role="user", content=text) for text in some]
        memory.add_messages(said)


def add_facts(memory: MemoryManager, texts: list[str], *, vectors: bool) -> None:
    chance = np.random.default_rng(1)
    facts = (
        Knowledge(
            user_id=f"owner{number % OWNERS}",
            key=f"{'vector' if vectors else 'plain'}{number}",
            value=text,
            embedding=chance.standard_normal(DIM).tolist() if vectors else None,
            embedding_model="given" if vectors else None,
        )
        for number, text in enumerate(texts)
    )
    for some in batches(facts):
        memory.add_knowledge_many(some)


def measured(engine: str, url: str, arguments: argparse.Namespace) -> Iterator[Line]:
    """Fill a new database for each length of texts, and look after each step."""
    look = sizes_on_server if "://" in url else sizes_in_file
    corpus = Corpus()
    texts = list(corpus.messages(max(arguments.messages, arguments.facts)))
    for words, times in ((20, 1), (80, 4)):
        contents = [
            " ".join(texts[(n * times + part) % len(texts)] for part in range(times)) for n in range(len(texts))
        ]
        with emptied(url) as place, rawsql.opened(place) as memory:
            before = look(place)
            said = contents[: arguments.messages]
            add_messages(memory, said)
            after = look(place)
            yield line(engine, f"message of {words} words", said, before, after)
            if times > 1:
                continue
            told = contents[: arguments.facts]
            for what, vectors in (("fact of 20 words", False), ("fact with its vector", True)):
                before = after
                add_facts(memory, told, vectors=vectors)
                after = look(place)
                yield line(engine, what, told, before, after)


def line(engine: str, what: str, texts: list[str], before: Sizes, after: Sizes) -> Line:
    grown = {
        name: (own - before.get(name, (0, 0))[0], indexes - before.get(name, (0, 0))[1])
        for name, (own, indexes) in after.items()
    }
    return Line(engine, what, len(texts), sum(len(t.encode()) for t in texts) / len(texts), grown)


@contextmanager
def emptied(url: str) -> Iterator[Any]:
    """A database with nothing in it but the schema."""
    with tempfile.TemporaryDirectory(prefix="sizes-") as folder:
        if "://" not in url:
            yield Path(folder) / "memory.db"
            return
        place = make_url(url).set(database="mirai_sizes").render_as_string(hide_password=False)
        with psycopg.connect(conninfo(url), autocommit=True) as server:
            server.execute("CREATE DATABASE mirai_sizes")
            try:
                schema.upgrade(place)
                yield place
            finally:
                server.execute("DROP DATABASE mirai_sizes WITH (FORCE)")


def sizes_on_server(url: str) -> Sizes:
    statement = (
        "SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'mirai_memory'::regnamespace"
    )
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.execute("VACUUM")
        return {name: (own, indexes) for name, own, indexes in connection.execute(statement)}


def sizes_in_file(path: Path) -> Sizes:
    statement = (
        "SELECT coalesce(m.tbl_name, s.name), sum(s.pgsize * (coalesce(m.type, 'table') = 'table')),"
        " sum(s.pgsize * (coalesce(m.type, 'table') = 'index')) FROM dbstat s LEFT JOIN sqlite_master m"
        " ON m.name = s.name GROUP BY 1"
    )
    import sqlite3

    with closing(sqlite3.connect(path)) as connection:
        try:
            return {name: (own, indexes) for name, own, indexes in connection.execute(statement)}
        except sqlite3.OperationalError:  # a SQLite built without it: one number for all
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return {"file": (path.stat().st_size, 0)}


@contextmanager
def server(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    with own_server() as own:
        yield own.url


def shown(lines: list[Line]) -> None:
    print("| engine | what | text, bytes | each, bytes | 1,000,000 | 100,000,000 |\n|---|---|---:|---:|---:|---:|")
    for one in lines:
        million = one.each * 1e6 / 1e9
        row = (
            one.engine,
            one.what,
            f"{one.utf8:,.0f}",
            f"{one.each:,.0f}",
            f"{million:.2f} GB",
            f"{million * 100:,.0f} GB",
        )
        print(f"| {' | '.join(row)} |")
    for one in lines:
        print(f"\n{one.engine}, {one.what}, {one.count:,} of them; bytes each: table + its indexes")
        for name, (own, indexes) in sorted(one.grown.items(), key=lambda grown: -sum(grown[1])):
            if own + indexes >= one.count:
                print(f"    {name}: {own / one.count:,.0f} + {indexes / one.count:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--facts", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="2,000 messages, 1,000 facts")
    parser.add_argument("--url", help="the administrator's URL of a server")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.messages, arguments.facts = 2_000, 1_000
    lines = list(measured("SQLite", "", arguments))
    with server(arguments.url) as url:
        lines += measured("PostgreSQL", url, arguments)
    shown(lines)


if __name__ == "__main__":
    main()
