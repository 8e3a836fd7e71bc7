"""Counting byte strings in files. Run as a script, in a process that has no database open.

Reads JSON from stdin, ``{"files": [path, ...], "needles": [hex, ...]}``, and prints one list of counts for each file,
null for a file that is not there. It imports nothing of the package, so that it starts at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

_BLOCK = 1 << 22


def counts(path: str, needles: Sequence[bytes], block: int = _BLOCK) -> list[int] | None:
    """How often each needle stands in the file; None where there is no such file. Memory is bounded by the block."""
    found = [0] * len(needles)
    reach = max(map(len, needles), default=1) - 1
    try:
        with open(path, "rb") as file:
            tail = b""
            while piece := file.read(block):
                text = tail + piece
                for place, needle in enumerate(needles):
                    # What lies in the tail as a whole was counted with the block before.
                    found[place] += text.count(needle) - tail.count(needle)
                tail = text[max(0, len(text) - reach) :]
    except FileNotFoundError:
        return None
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    wanted = [bytes.fromhex(needle) for needle in asked["needles"]]
    json.dump([counts(path, wanted) for path in asked["files"]], sys.stdout)
