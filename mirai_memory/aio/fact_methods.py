"""Facts of any owner for asyncio: methods that only hand a call on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mirai_memory.aio.upkeep_methods import UpkeepMethods
from mirai_memory.duplicates import SIMILAR
from mirai_memory.entities import Duplicate, Knowledge, KnowledgeDiff, SourceKind


class OwnersFactMethods(UpkeepMethods):
    """Those that look at facts, with the owner named."""

    # Made by tests/aio/test_methods.py --write

    async def get_knowledge(
        self,
        category: str | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        with_embedding: bool = False,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Knowledge]:
        """One page of facts in order of id: the owner's and the shared ones; only the shared ones for None.

        Without times, what is true and believed now. ``as_of``: what was true then, as far as is known now;
        ``known_at``: what was believed then. Expired facts are never among them.
        """
        return await self._read(
            lambda memory: memory.get_knowledge(
                category,
                key=key,
                user_id=user_id,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=limit,
                after=after,
            )
        )

    async def search_knowledge(
        self,
        query: str,
        limit: int = 10,
        *,
        category: str | None = None,
        user_id: str | None = None,
        source_kind: SourceKind | None = None,
        min_confidence: float = 0.0,
        embedding: Sequence[float] | None = None,
        embedding_model: str | None = None,
        explain: bool = False,
    ) -> list[Knowledge]:
        """Current facts that match the query by words and, with an embedder, meaning; best first, with ``score``.

        The owner's and the shared ones; only the shared ones for None. ``embedding`` is the query as a vector of the
        caller's own; it is compared with the vectors of ``embedding_model`` (None: the embedder's, or else the only
        model that facts have vectors of).
        """
        return await self._slow(
            lambda memory: memory.search_knowledge(
                query,
                limit,
                category=category,
                user_id=user_id,
                source_kind=source_kind,
                min_confidence=min_confidence,
                embedding=embedding,
                embedding_model=embedding_model,
                explain=explain,
            )
        )

    async def knowledge_history(
        self, key: str, *, category: str = "general", user_id: str | None = None
    ) -> list[Knowledge]:
        """Every value the key has had, oldest first: superseded, closed, expired and current ones."""
        return await self._read(lambda memory: memory.knowledge_history(key, category=category, user_id=user_id))

    async def diff(
        self, user_id: str | None, t1: datetime, t2: datetime, *, limit: int = 1000, after: int | None = None
    ) -> KnowledgeDiff:
        """What was learned from ``t1`` to ``t2``: the facts believed and true at the one beside those at the other.

        The owner's and the shared ones; only the shared ones for None. A value that holds at both has not changed,
        however sure it became. What ended, expired or was replaced is told as removed or changed; of facts that were
        deleted nothing is left to tell. One page of at most ``limit`` keys, in order of their newest changed row; for
        the next one give ``next`` as ``after``. Raises InvalidInput where ``t2`` is before ``t1``.
        """
        return await self._read(lambda memory: memory.diff(user_id, t1, t2, limit=limit, after=after))

    async def find_duplicates(
        self, user_id: str | None, *, limit: int = 100, threshold: float = SIMILAR
    ) -> list[Duplicate]:
        """Pairs of current facts of the owner, or of the shared ones for None, that may say the same; best first.

        First those of equal values, then those that are similar by ``threshold`` (0 to 1) or more: by the share of
        stems that both have, keys included, or by their vectors of one model, where 0 is as near as any two facts are.
        A word that very many facts have leads to the thirty of them that are nearest in length, and of vectors the
        newest 10,000 are compared. Nothing is changed: ``merge_knowledge`` joins two.
        """
        return await self._slow(lambda memory: memory.find_duplicates(user_id, limit=limit, threshold=threshold))

    async def merge_knowledge(self, keep: int, drop: int) -> Knowledge:
        """Have one fact take the place of another of the same owner, which says the same under another key.

        ``drop`` is superseded by ``keep`` and is neither read nor found any more; its key's history still tells it, and
        ``superseded_by`` where it went. ``keep`` becomes as sure as the surer of the two; its value, key, source, times
        and metadata stay, and those of ``drop`` stay with its row. Returns ``keep`` as it is then. Raises NotFound;
        InvalidInput where one of them is not current, or both are the same.
        """
        return await self._write(lambda memory: memory.merge_knowledge(keep, drop))

    async def delete_knowledge(
        self,
        knowledge_id: int | None = None,
        *,
        key: str | None = None,
        category: str | None = None,
        source: str | None = None,
        source_kind: SourceKind | None = None,
        user_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete one row by id, or all rows that meet every condition, earlier values included; how many.

        Conditions look at the owner's own facts, or at the shared ones for None; an id is looked up everywhere.
        ``dry_run`` only counts. Raises NotFound for an unknown id, InvalidInput where nothing is named.
        """
        return await self._write(
            lambda memory: memory.delete_knowledge(
                knowledge_id,
                key=key,
                category=category,
                source=source,
                source_kind=source_kind,
                user_id=user_id,
                dry_run=dry_run,
            )
        )
