"""Groups and windows: a tool call and the results that answer it are kept or left out as a whole. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mirai_memory.entities import JsonObject, Message

# What the chat API accepts as a name.
_API_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


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


def history(messages: Sequence[Message]) -> list[JsonObject]:
    """The messages as the OpenAI chat API accepts them: calls that lack a result and results without a call left out.

    Results stand directly behind their call, in its order, as the API demands; what came between them follows.
    """
    results = _results(messages)
    out: list[JsonObject] = []
    for message in messages:
        if message.tool_calls:
            found = results.get(message.position or 0, {})
            wanted = calls("chat", message.tool_calls, None)
            if all(id in found for id in wanted):
                out += [_as_chat(message), *(_as_chat(found[id]) for id in wanted)]
        elif message.role != "tool":
            out.append(_as_chat(message))
    return out


def _results(messages: Sequence[Message]) -> dict[int, dict[str, Message]]:
    """By the position of the call: the first result of each of its ids. An id may be used again by a later call."""
    latest: dict[str, int] = {}
    found: dict[int, dict[str, Message]] = {}
    for message in messages:
        position = message.position or 0
        for id in calls("chat", message.tool_calls, None):
            latest[id] = position
        answered = message.tool_call_id if message.role == "tool" else None
        if answered is not None and answered in latest:
            found.setdefault(latest[answered], {}).setdefault(answered, message)
    return found


def _as_chat(message: Message) -> JsonObject:
    entry: JsonObject = {"role": message.role, "content": message.parts or message.content}
    if message.tool_calls:
        entry["tool_calls"] = message.tool_calls
        entry["content"] = entry["content"] or None
    if message.role == "tool":
        entry["tool_call_id"] = message.tool_call_id
    elif message.name and _API_NAME.fullmatch(message.name):
        entry["name"] = message.name
    return entry
