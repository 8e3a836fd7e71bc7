"""Facts of any owner: what ``MemoryManager`` says about them with the owner named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mirai_memory import _checks
from mirai_memory._upkeep import Upkeep
from mirai_memory.duplicates import SIMILAR, find_duplicates
from mirai_memory.entities import Duplicate, Knowledge, KnowledgeDiff, SourceKind


class OwnersFacts(Upkeep):
    """``user_id=None`` means the shared facts only."""

    def get_knowledge(
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
        owner, count = _checks.optional_owner(user_id), _checks.integer("limit", limit)
        return self._read(
            lambda uow: uow.knowledge.page(
                category,
                key=key,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=count,
                after=after,
            ),
            owner,
        )

    def search_knowledge(
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
        return self._search_knowledge(
            query,
            _checks.optional_owner(user_id),
            limit=limit,
            category=category,
            source_kind=source_kind,
            min_confidence=min_confidence,
            embedding=embedding,
            embedding_model=embedding_model,
            explain=explain,
        )

    def knowledge_history(self, key: str, *, category: str = "general", user_id: str | None = None) -> list[Knowledge]:
        """Every value the key has had, oldest first: superseded, closed, expired and current ones."""
        owner = _checks.optional_owner(user_id)
        return self._read(lambda uow: uow.knowledge.history(key, category=category), owner)

    def diff(
        self, user_id: str | None, t1: datetime, t2: datetime, *, limit: int = 1000, after: int | None = None
    ) -> KnowledgeDiff:
        """What was learned from ``t1`` to ``t2``: the facts believed and true at the one beside those at the other.

        The owner's and the shared ones; only the shared ones for None. A value that holds at both has not changed,
        however sure it became. What ended, expired or was replaced is told as removed or changed; of facts that were
        deleted nothing is left to tell. One page of at most ``limit`` keys, in order of their newest changed row; for
        the next one give ``next`` as ``after``. Raises InvalidInput where ``t2`` is before ``t1``.
        """
        owner, count = _checks.optional_owner(user_id), _checks.integer("limit", limit)
        return self._read(lambda uow: uow.knowledge.diff(t1, t2, limit=count, after=after), owner)

    def find_duplicates(self, user_id: str | None, *, limit: int = 100, threshold: float = SIMILAR) -> list[Duplicate]:
        """Pairs of current facts of the owner, or of the shared ones for None, that may say the same; best first.

        First those of equal values, then those that are similar by ``threshold`` (0 to 1) or more: by the share of
        stems that both have, keys included, or by their vectors of one model, where 0 is as near as any two facts are.
        A word that very many facts have leads to the thirty of them that are nearest in length, and of vectors the
        newest 10,000 are compared. Nothing is changed: ``merge_knowledge`` joins two.
        """
        owner, count = _checks.optional_owner(user_id), _checks.integer("limit", limit)
        least = _checks.number("threshold", threshold, least=0.0, most=1.0)
        return find_duplicates(lambda fn: self._read(fn, owner), limit=count, threshold=least)

    def merge_knowledge(self, keep: int, drop: int) -> Knowledge:
        """Have one fact take the place of another of the same owner, which says the same under another key.

        ``drop`` is superseded by ``keep`` and is neither read nor found any more; its key's history still tells it, and
        ``superseded_by`` where it went. ``keep`` becomes as sure as the surer of the two; its value, key, source, times
        and metadata stay, and those of ``drop`` stay with its row. Returns ``keep`` as it is then. Raises NotFound;
        InvalidInput where one of them is not current, or both are the same.
        """
        return self._write(lambda uow: uow.knowledge.merge(keep, drop))

    def delete_knowledge(
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
        owner = _checks.optional_owner(user_id)
        return self._write(
            lambda uow: uow.knowledge.delete(
                knowledge_id, key=key, category=category, source=source, source_kind=source_kind, dry_run=dry_run
            ),
            owner,
        )
