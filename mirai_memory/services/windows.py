"""Groups and windows: a tool call and the results that answer it are kept or left out as a whole. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def calls(kind: str, tool_calls: Iterable[Mapping[str, Any]] | None, payload: Mapping[str, Any] | None) -> list[str]:
    """The ids of the calls that a message makes."""
    if kind == "chat":
        return [str(call["id"]) for call in tool_calls or ()]
    item = payload or {}
    return [str(item["call_id"])] if _is_item(item, "_call") else []


def answers(kind: str, tool_call_id: str | None, payload: Mapping[str, Any] | None) -> str | None:
    """The id of the call that a message answers."""
    if kind == "chat":
        return tool_call_id
    item = payload or {}
    return str(item["call_id"]) if _is_item(item, "_call_output") else None


def _is_item(item: Mapping[str, Any], ending: str) -> bool:
    return str(item.get("type", "")).endswith(ending) and isinstance(item.get("call_id"), str)


def window_start(places: Sequence[tuple[int, int]], limit: int, older: int | None) -> int | None:
    """Where the window of the newest messages begins, at a position where no group is cut in two.

    ``places`` are (position, group_start), newest first; ``older`` is the position before the last of them, None
    where there is none. None: not even the newest group begins in ``places``; look further back.
    """
    start, earliest = None, None
    for index, (position, group_start) in enumerate(places):
        earliest = group_start if earliest is None else min(earliest, group_start)
        before = places[index + 1][0] if index + 1 < len(places) else older
        if before is None or before < earliest:
            if start is not None and index >= limit:
                break
            start = position
    return start


def whole_groups(places: Sequence[tuple[int, int]]) -> list[int]:
    """How many messages each group has, newest first; ``places`` are (position, group_start), newest first."""
    sizes, size, earliest = [], 0, None
    for index, (_, group_start) in enumerate(places):
        size += 1
        earliest = group_start if earliest is None else min(earliest, group_start)
        if index + 1 == len(places) or places[index + 1][0] < earliest:
            sizes.append(size)
            size, earliest = 0, None
    return sizes
