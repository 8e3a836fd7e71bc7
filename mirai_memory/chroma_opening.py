"""Whether vectors are searched with Chroma, and where it keeps them. Nothing of it is loaded for a memory without."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from mirai_memory.config import MemorySettings
from mirai_memory.database import sqlite_path
from mirai_memory.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from mirai_memory.chroma_feeding import ChromaFeeder
    from mirai_memory.search.chroma import ChromaVectors
    from mirai_memory.search.chroma_link import Link
    from mirai_memory.search.nearest import VectorStore
    from mirai_memory.unit_of_work import Store

__all__ = ["beside", "open_feeder", "open_link", "vectors_by"]


def open_link(database: URL, memory: MemorySettings, *, read_only: bool = False) -> Link | None:
    """The way to Chroma where ``memory.rag.vector_store`` is chroma; nothing is started yet.

    None for a memory that keeps nothing, or is read only. Raises MissingExtra, ConfigurationError.
    """
    rag = memory.rag
    if rag.vector_store != "chroma" or not (rag.enabled and memory.enabled):
        return None
    if find_spec("chromadb") is None:
        raise MissingExtra("chroma", "chromadb")
    file = sqlite_path(database)
    if read_only or (file is None and database.get_backend_name() == "sqlite"):
        return None
    from mirai_memory.search.chroma_link import Link, Place

    # A file that was copied from another says that it is the same memory.
    apart = "" if file is None else str(file)
    if rag.chroma.url is not None:
        return Link(Place(None, rag.chroma.url, apart))
    if rag.chroma.path is not None:
        return Link(Place(rag.chroma.path.absolute(), None, apart))
    if file is None:
        raise ConfigurationError(
            "memory.rag.vector_store: chroma on PostgreSQL needs memory.rag.chroma.url, a server for all machines, "
            "or memory.rag.chroma.path, a folder of this one"
        )
    return Link(Place(beside(file), None, ""))


def beside(file: Path) -> Path:
    """The folder of Chroma that belongs to a SQLite file."""
    return file.with_name(file.name + ".chroma")


def vectors_by(link: Link | None, memory: MemorySettings) -> Callable[[VectorStore], ChromaVectors] | None:
    """What makes of the built-in store one that asks Chroma first; None where there is none to ask."""
    if link is None:
        return None

    def make(exact: VectorStore) -> ChromaVectors:
        from mirai_memory.search.chroma import ChromaVectors  # NumPy, for the first search

        return ChromaVectors(exact, link, memory.rag.chroma.min_items)

    return make


def open_feeder(store: Store, link: Link | None, memory: MemorySettings) -> ChromaFeeder | None:
    """Who gives Chroma the vectors; None where there is none."""
    if link is None:
        return None
    from mirai_memory.chroma_feeding import ChromaFeeder

    return ChromaFeeder(store, link, memory.rag.chroma.min_items, background=memory.rag.background)
