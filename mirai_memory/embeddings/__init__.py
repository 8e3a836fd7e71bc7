"""Vectors of texts: the protocol of an embedder, those that the settings can name, and the guard around any of them.

Importing this loads neither NumPy nor any embedder's package.
"""

from __future__ import annotations

from mirai_memory.embeddings.base import Embedder, Vector
from mirai_memory.embeddings.choose import describe_embedder, open_embedder
from mirai_memory.embeddings.guard import GuardedEmbedder

__all__ = ["Embedder", "GuardedEmbedder", "Vector", "describe_embedder", "open_embedder"]
