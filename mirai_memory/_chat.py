"""Messages as the chat APIs of OpenAI and Anthropic accept them. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirai_memory.entities import Message

JsonObject = dict[str, Any]
_TEXT_ONLY = frozenset({"text"})
# The parts of a message that the chat API takes from each role.
_PARTS = {
    "user": frozenset({"text", "image_url", "input_audio", "file"}),
    "assistant": frozenset({"text", "refusal"}),
}
# What the chat API accepts as a name.
_API_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def openai_messages(messages: Sequence[Message]) -> list[JsonObject]:
    """The messages for OpenAI's chat API: calls that lack a result and results without a call are left out.

    Results stand directly behind their call, in its order, as the API demands; what came between them follows.
    """
    return [_as_openai(message) for message in _sendable(messages)]


def _sendable(messages: Sequence[Message]) -> list[Message]:
    results = _results(messages)
    out: list[Message] = []
    for message in messages:
        if message.tool_calls:
            found = results.get(message.position or 0, {})
            wanted = [str(call["id"]) for call in message.tool_calls]
            if all(id in found for id in wanted):
                out += [message, *(found[id] for id in wanted)]
        elif message.role != "tool" and message.kind == "chat":
            out.append(message)
    return out


def _results(messages: Sequence[Message]) -> dict[int, dict[str, Message]]:
    """By the position of the call: the first result of each of its ids. An id may be used again by a later call."""
    latest: dict[str, int] = {}
    found: dict[int, dict[str, Message]] = {}
    for message in messages:
        position = message.position or 0
        for call in message.tool_calls or ():
            latest[str(call["id"])] = position
        answered = message.tool_call_id if message.role == "tool" else None
        if answered is not None and answered in latest:
            found.setdefault(latest[answered], {}).setdefault(answered, message)
    return found


def _as_openai(message: Message) -> JsonObject:
    entry: JsonObject = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        entry["tool_calls"] = message.tool_calls
        entry["content"] = entry["content"] or None
    if message.role == "tool":
        entry["tool_call_id"] = message.tool_call_id
    elif message.name and _API_NAME.fullmatch(message.name):
        entry["name"] = message.name
    return entry


def _content(message: Message) -> str | list[JsonObject]:
    """The parts, where the API takes all of them from this role; else the text, which always stands beside them."""
    known = _PARTS.get(message.role or "", _TEXT_ONLY)
    taken = bool(message.parts) and all(part.get("type") in known for part in message.parts or ())
    return message.parts if taken and message.parts else message.content


def anthropic_messages(messages: Sequence[Message]) -> tuple[str, list[JsonObject]]:
    """The system text and the messages for Anthropic's API.

    System and developer messages join the system text. The results of one call stand in one user message. The first
    message is the user's, as the API demands.
    """
    system: list[str] = []
    turns: list[JsonObject] = []
    for message in _sendable(messages):
        if message.role in ("system", "developer"):
            system.append(message.content)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [_text("(The conversation began earlier.)")]})
    return "\n\n".join(system), turns


def _blocks(message: Message) -> list[JsonObject]:
    if message.role == "tool":
        result: JsonObject = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}
        return [result]
    # The API refuses an empty text.
    blocks = [_text(message.content)] if message.content.strip() else []
    for call in message.tool_calls or ():
        function = call.get("function") or {}
        use = {"id": call["id"], "name": function.get("name", ""), "input": _arguments(function.get("arguments"))}
        blocks.append({"type": "tool_use", **use})
    return blocks


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _arguments(arguments: Any) -> JsonObject:
    """A call's arguments, which OpenAI has as JSON text and Anthropic as an object."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return {"arguments": arguments}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}
