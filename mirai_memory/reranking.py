"""A second opinion on what a search has found: the protocol, and the guard around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Protocol, TypeVar

from mirai_memory.logging import logger

__all__ = ["RERANKED", "Reranker", "reranked"]

T = TypeVar("T")

# How many of the best a reranker is given: what a search ranks lower is hardly ever an answer.
RERANKED = 50


class Reranker(Protocol):
    """Something that reads a question and texts together, such as a cross-encoder."""

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[int]:
        """The places of the texts, best first. Texts that are left out follow in the order in which they came."""


def reranked(reranker: Reranker, query: str, items: Sequence[T], text_of: Callable[[T], str]) -> list[T]:
    """The items in the reranker's order; in their own where it fails, which is logged and costs nothing more."""
    try:
        order = [index(place) for place in reranker.rerank(query, [text_of(item) for item in items])]
        if not all(0 <= place < len(items) for place in order) or len(set(order)) < len(order):
            raise ValueError("the order must name each text at most once")
    except Exception as error:
        # Of a user's object anything may come; its words may quote the texts.
        logger.warning("the reranker failed with {}; the order stays as it was", type(error).__name__)
        return list(items)
    named = set(order)
    return [items[place] for place in (*order, *(place for place in range(len(items)) if place not in named))]
