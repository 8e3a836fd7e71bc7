"""Vectors as bytes: float16, little-endian, the same on both engines."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def pack(vector: Sequence[float]) -> bytes:
    """Two bytes a number, rounded to the nearest float16. By struct: one vector is no reason to import NumPy."""
    return struct.pack(f"<{len(vector)}e", *vector)


def unpack(packed: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(packed) // 2}e", packed))
