"""How long the hot paths take, beside the same work by literal SQL.

    python tests/benchmarks/run.py [--quick] [--only NAME] [--json FILE] [--dir FOLDER]

Prints one table. Arms of a benchmark take turns within one run, so that their ratios hold on a busy machine too; the
times themselves are this machine's. ``--quick`` makes everything 10 to 100 times smaller and shows only that it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import numpy as np
import rawsql
from corpus import Corpus
from measure import Result

from mirai_memory import Knowledge, MemoryManager, Message, UnitOfWork
from mirai_memory.search import QueryVector, Scope
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.sqlite import SQLiteIndex
from mirai_memory.search.vectors import Vectors

OWNER = "owner"
METADATA = {"channel": "chat", "язык": "ru"}
NEWEST = 12
FOUND = 10
SHORT_SESSION = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is stored and how often it is measured."""

    adds: int = 2_000
    bulk: int = 1_000
    bulk_rounds: int = 20
    given: int = 100_000
    stored: int = 1_000_000
    longest_session: int = 10_000
    many_sessions: int = 50_000
    reads: int = 2_000
    stats: int = 200
    scopes: tuple[int, ...] = (1_000, 10_000, 100_000)
    others: int = 300_000
    searches: int = 300
    session: int = 10_000
    facts: int = 10_000
    contexts: int = 200


QUICK = Sizes(
    adds=200, bulk_rounds=3, given=2_000, stored=20_000, longest_session=1_000, many_sessions=2_000, reads=200,
    stats=20, scopes=(100, 1_000, 10_000), others=10_000, searches=30, session=500, facts=500, contexts=30,
)  # fmt: skip


class Bench:
    """The benchmarks, each with a stack that closes what it opens, and the large file that two of them share."""

    def __init__(self, sizes: Sizes, disk: Path, memory: Path | None) -> None:
        self.sizes = sizes
        self.disk = disk
        self.places = {"disk": disk} | ({"tmpfs": memory} if memory else {})

    @cached_property
    def large(self) -> tuple[Path, list[str]]:
        """A file with very many messages, and the ids of its sessions."""
        corpus, path = Corpus(), self.disk / "large.db"
        texts = corpus.messages(self.sizes.stored)
        lengths = corpus.lengths(self.sizes.stored, least=200, most=self.sizes.longest_session)
        sessions = ((f"owner-{number % 50}", list(islice(texts, length))) for number, length in enumerate(lengths))
        return path, rawsql.fill(path, sessions, indexed=False)

    def add(self) -> Iterator[Result]:
        """One message, one durable transaction."""
        for place, folder in self.places.items():
            with ExitStack() as stack:
                arms = _adding(stack, folder, Corpus().messages(3 * self.sizes.adds))
                yield from measure.interleaved(f"add_message, {place}", arms, rounds=self.sizes.adds, base="raw")

    def bulk(self) -> Iterator[Result]:
        """Many messages of one session in one transaction."""
        batch, rounds = self.sizes.bulk, self.sizes.bulk_rounds
        for place, folder in self.places.items():
            with ExitStack() as stack:
                arms = _adding_many(stack, folder, list(Corpus().messages(batch)))
                yield from measure.interleaved(f"add_messages({batch}), {place}", arms, rounds=rounds, base="raw")

    def facts(self) -> Iterator[Result]:
        """Many facts with the caller's own vectors; by literal SQL the same rows, whose words are analysed already."""
        count = self.sizes.given
        texts = list(Corpus().messages(count))
        numbers = np.random.default_rng(3).standard_normal((count, RandomEmbedder.dim)).astype(np.float32)
        items = [
            Knowledge(user_id=OWNER, key=f"k{n}", value=text, embedding=vector.tolist(), embedding_model="given")
            for n, (text, vector) in enumerate(zip(texts, numbers, strict=True))
        ]
        path = self.disk / "facts.db"
        with rawsql.opened(path) as memory:
            memory.add_knowledge_many(items)
        copies = (self.disk / f"copy-{number}.db" for number in range(100))
        ours = (self.disk / f"ours-{number}.db" for number in range(100))

        def add() -> None:
            with rawsql.opened(next(ours)) as memory:
                memory.add_knowledge_many(items)

        with closing(rawsql.connect(path)) as source:
            rows = rawsql.facts(source)
            arms: dict[str, measure.Call] = {"ours": add, "raw": lambda: rawsql.add_facts(next(copies), rows)}
            yield from measure.interleaved(f"add_knowledge_many({count:,})", arms, rounds=3, base="raw")

    def recent(self) -> Iterator[Result]:
        """The newest messages of any session of a large file."""
        path, sessions = self.large
        corpus = Corpus()
        with rawsql.opened(path) as memory, closing(rawsql.connect(path)) as raw:
            arms = {
                "ours": lambda: memory.get_recent_messages(corpus.pick(sessions), limit=NEWEST),
                "raw tuples": lambda: rawsql.recent(raw, corpus.pick(sessions), NEWEST),
            }
            name = f"newest {NEWEST} of {self.sizes.stored:,}"
            yield from measure.interleaved(name, arms, rounds=self.sizes.reads, base="raw tuples")

    def stats(self) -> Iterator[Result]:
        """Counts of a large file; they are summed over sessions, so the number of these is what matters."""
        path, sessions = self.large
        more = [(OWNER, ())] * self.sizes.many_sessions
        for count, added in ((len(sessions), ()), (len(sessions) + len(more), more)):
            rawsql.fill(path, added, indexed=False)
            with rawsql.opened(path) as memory, closing(rawsql.connect(path)) as raw:
                arms: dict[str, measure.Call] = {"ours": memory.get_stats, "raw": partial(rawsql.stats, raw)}
                name = f"get_stats, {self.sizes.stored:,} messages, {count:,} sessions"
                yield from measure.interleaved(name, arms, rounds=self.sizes.stats, base="raw")

    def search(self) -> Iterator[Result]:
        """Search by one owner, alone in a file and beside others: by words and context, and with vectors too."""
        for scope in self.sizes.scopes:
            with ExitStack() as stack:
                alone = _searchable(stack, self.disk / f"alone-{scope}.db", scope, 0)
                beside = _searchable(stack, self.disk / f"beside-{scope}.db", scope, self.sizes.others)
                names = ("alone", f"beside {self.sizes.others:,} of others")
                for kind, question in (("3 to 6 words", Corpus.question), ("5 commonest", Corpus.common_question)):
                    arms: dict[str, measure.Call] = {}
                    for name, path in zip(names, (alone, beside), strict=True):
                        arms[name] = _asking(stack.enter_context(rawsql.opened(path)), question)
                        hybrid = stack.enter_context(rawsql.opened(path, embedder=RandomEmbedder()))
                        arms[f"{name}, vectors"] = _asking(hybrid, question)
                    name = f"search {scope:,}, {kind}"
                    yield from measure.interleaved(name, arms, rounds=self.sizes.searches, base="alone")

    def vectors(self) -> Iterator[Result]:
        """The vector part of a search, beside one pass over a matrix of the same size."""
        for scope in self.sizes.scopes:
            with ExitStack() as stack:
                path = _searchable(stack, self.disk / f"vectors-{scope}.db", scope, 0)
                memory = stack.enter_context(rawsql.opened(path))
                matrix = np.random.default_rng(1).standard_normal((scope, RandomEmbedder.dim)).astype(np.float32)
                arms: dict[str, measure.Call] = {
                    "vector part": partial(memory.run, _vector_part(matrix[0])),
                    "scan": partial(np.vecdot, matrix, matrix[0]),
                    "scan by BLAS": partial(np.matmul, matrix, matrix[0]),
                }
                yield from measure.interleaved(f"vectors {scope:,}", arms, rounds=self.sizes.searches, base="scan")

    def context(self) -> Iterator[Result]:
        """A turn's context, beside the three reads that find most of what is in it."""
        corpus, path = Corpus(), self.disk / "context.db"
        with rawsql.opened(path) as memory:
            session = memory.create_session(OWNER).id
            texts = corpus.messages(self.sizes.session + self.sizes.facts)
            said = [
                Message(session_id=session, role="user", content=text) for text in islice(texts, self.sizes.session)
            ]
            memory.add_messages(said)
            memory.add_knowledge_many([Knowledge(user_id=OWNER, value=f"{n} {text}") for n, text in enumerate(texts)])

            def bare() -> None:
                question = corpus.question()
                memory.get_recent_messages(session)
                memory.search_messages(question, user_id=OWNER)
                memory.search_knowledge(question, user_id=OWNER)

            arms: dict[str, measure.Call] = {
                "build_context": lambda: memory.build_context(session, corpus.question(), max_tokens=4_000),
                "three reads": bare,
            }
            name = f"context, {self.sizes.session:,} messages, {self.sizes.facts:,} facts"
            yield from measure.interleaved(name, arms, rounds=self.sizes.contexts, base="three reads")


def _adding(stack: ExitStack, folder: Path, texts: Iterator[str]) -> dict[str, measure.Call]:
    memory = stack.enter_context(rawsql.opened(folder / "add-ours.db"))
    raw = stack.enter_context(closing(rawsql.connect(folder / "add-raw.db")))
    session, raw_session = memory.create_session(OWNER).id, rawsql.add_session(raw, OWNER)

    def ours() -> int:
        message = Message(session_id=session, role="user", content=next(texts), metadata=METADATA)
        return memory.add_message(message)

    return {"ours": ours, "raw": lambda: rawsql.add_message(raw, raw_session, next(texts), METADATA)}


def _adding_many(stack: ExitStack, folder: Path, texts: list[str]) -> dict[str, measure.Call]:
    memory = stack.enter_context(rawsql.opened(folder / "bulk-ours.db"))
    raw = stack.enter_context(closing(rawsql.connect(folder / "bulk-raw.db")))
    session, raw_session = memory.create_session(OWNER).id, rawsql.add_session(raw, OWNER)

    def ours() -> list[int]:
        return memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])

    return {"ours": ours, "raw": lambda: rawsql.add_messages(raw, raw_session, texts)}


class RandomEmbedder:
    """Vectors without meaning, made in no time: what is measured is the search."""

    name = "random"
    dim = 384

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        numbers: list[float] = np.random.default_rng(len(text)).standard_normal(self.dim).tolist()
        return numbers


def _vector_part(question: Any) -> Callable[[UnitOfWork], None]:
    size = 4_000_000_000
    vectors, words = Vectors(ScopeCache(size), size), SQLiteIndex()
    query = QueryVector.of(RandomEmbedder.name, question.tolist())

    def part(uow: UnitOfWork) -> None:
        corpus = words.corpus(uow.db, "message", Scope.of(OWNER))
        vectors.nearest(uow.db, "message", corpus, query, shared=True)

    return part


def _searchable(stack: ExitStack, path: Path, scope: int, others: int) -> Path:
    """A file with ``scope`` messages of one owner, their sessions spread evenly among those of a hundred others."""
    corpus = Corpus()
    texts = corpus.messages(scope + others)
    owned, sessions = 0, []
    for number in range((scope + others) // SHORT_SESSION):
        ours = owned * (scope + others) <= number * SHORT_SESSION * scope and owned < scope
        owned += SHORT_SESSION if ours else 0
        sessions.append((OWNER if ours else f"other-{number % 100}", SHORT_SESSION))
    rawsql.fill(path, ((user_id, list(islice(texts, length))) for user_id, length in sessions), indexed=True)
    rawsql.add_vectors(path, OWNER, RandomEmbedder.name, RandomEmbedder.dim)
    stack.callback(path.unlink, missing_ok=True)
    return path


def _asking(memory: MemoryManager, question: Callable[[Corpus], str]) -> measure.Call:
    corpus = Corpus()  # each arm hears the same questions
    return lambda: memory.search_messages(question(corpus), user_id=OWNER, limit=FOUND)


NAMES = ("add", "bulk", "facts", "recent", "stats", "search", "vectors", "context")


def run(sizes: Sizes, names: tuple[str, ...], folder: Path | None) -> list[Result]:
    """The results of the named benchmarks; what they store is gone afterwards."""
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder)))
        shared = measure.memory_folder()
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=shared))) if shared else None
        bench = Bench(sizes, disk, memory)
        results: list[Result] = []
        for name in names:
            started = time.perf_counter()
            results += getattr(bench, name)()
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: under a minute")
    parser.add_argument("--only", choices=NAMES, action="append", help="one benchmark; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="a folder on the disk to measure")
    arguments = parser.parse_args()
    facts = measure.machine()
    results = run(QUICK if arguments.quick else Sizes(), tuple(arguments.only or NAMES), arguments.dir)
    print("\nsynchronous=FULL; " + ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    print(measure.table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(measure.report(results, facts), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
