"""Claude's data export, ``conversations.json``: each conversation a list of messages, since 2025 with their parents.

Where there are parents, the branch of the current or the last message is imported; other branches and empty messages
are left out and counted. The text of attachments and the names of files become part of a message's text, so that they
are found; thoughts, tools and everything else is kept in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import Conversation, Options, conversation_of
from mirai_memory.importers.json_export import Exported, exported, is_export
from mirai_memory.importers.json_text import MAX_VALUE
from mirai_memory.importers.openai_message import moment
from mirai_memory.importers.tree import Tree

_SENDERS = {"human": "user", "assistant": "assistant", "user": "user", "system": "system"}
# The parent of a first message: an id of nobody's.
_NOBODY = "00000000-0000-"
_USED = frozenset({"uuid", "sender", "text", "created_at", "content", "parent_message_uuid"})


class Claude:
    """The importer of Claude's export."""

    name = "claude"
    has_owners = False

    def detect(self, path: Path) -> bool:
        return is_export(path, "chat_messages", "[")

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        with closing(_Messages()) as messages:
            for found in exported(path, "chat_messages", "[", messages.clear, messages.keep):
                yield messages.conversation(found)


class _Messages:
    """The messages of the conversation that is being read."""

    def __init__(self) -> None:
        self._tree = Tree()
        self._last = ""
        self._root: str | None = None

    def close(self) -> None:
        self._tree.close()

    def clear(self) -> None:
        self._tree.clear()
        self._last, self._root = "", None

    def keep(self, number: int, message: Any) -> None:
        if not isinstance(message, dict):
            raise InvalidInput("message", f"must be an object, not {type(message).__name__}")
        id = _checks.optional_name("uuid", message.get("uuid")) or f"#{number}"
        parent = _checks.optional_name("parent_message_uuid", message.get("parent_message_uuid"))
        if parent is None:
            parent = self._last or None  # an older export: one message after the other
        elif parent.startswith(_NOBODY):
            parent = None
        if number == 1:
            self._root = parent
        self._last = id
        if not self._tree.add(id, parent, message):
            raise InvalidInput("uuid", "is that of another message too")

    def conversation(self, found: Exported) -> Conversation:
        tree, leaf = self._tree, found.text("current_leaf_message_uuid") or self._last
        since = id = None
        try:
            id = _checks.name("uuid", found.about.get("uuid"), limit=200)
            since = _moment(found.about)
        except InvalidInput as error:
            found.faults.add(found.place, str(error))
        if leaf and not found.faults.count and (wrong := tree.choose(leaf, root=self._root)):
            found.faults.add(found.place, wrong)
        if not leaf or found.faults.count:
            faults = found.faults
            return Conversation(place=found.place, faults=faults.listed, fault_count=faults.count, left_out=tree.count)
        title = {"title": found.text("name")} if found.text("name") else {}
        return conversation_of(
            found.place,
            external_id=f"claude:{id}",
            metadata={**title, **found.metadata("uuid", "name"), "source": "claude"},
            entries=lambda: ((f"message {id}", (id, body)) for id, body in tree.branch()),
            fields=_fields,
            since=since,
            left_out=tree.count - tree.branch_count(),
        )


def _moment(value: dict[str, Any]) -> Any:
    time = value.get("created_at") or None
    return None if time is None else moment("created_at", time)


def _fields(node: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The arguments of a Message, without its session; None for one that says nothing. Raises InvalidInput."""
    id, message = node
    sender = _checks.one_of("sender", message.get("sender"), tuple(_SENDERS))
    blocks, attachments, files = (_objects(message, name) for name in ("content", "attachments", "files"))
    texts = [_text(block, "text") for block in blocks if block.get("type") == "text"]
    said = "\n".join(filter(None, texts)) or _text(message, "text")
    others = [block for block in blocks if block.get("type") != "text" or block.get("citations")]
    if not (said.strip() or others or attachments or files):
        return None
    metadata = {key: value for key, value in message.items() if key not in _USED and (value or value is False)}
    metadata |= {"attachments": [_without_text(item) for item in attachments]} if attachments else {}
    metadata |= {"blocks": others} if others else {}
    return {
        "role": _SENDERS[sender],
        "content": "\n\n".join(filter(None, [said, *map(_attachment, attachments), *map(_file, files)])),
        "timestamp": _moment(message),
        "metadata": _checks.json_object("message", metadata, limit=MAX_VALUE),
        "client_id": id,
    }


def _objects(message: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = message.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput(name, "must be a list of objects")
    return value


def _text(value: dict[str, Any], name: str) -> str:
    return _checks.text(name, value.get(name) or "", limit=MAX_VALUE)


def _attachment(item: dict[str, Any]) -> str:
    heading = f"[attachment: {_text(item, 'file_name') or 'text'}]"
    return "\n".join(filter(None, [heading, _text(item, "extracted_content")]))


def _without_text(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "extracted_content"}


def _file(item: dict[str, Any]) -> str:
    name = _text(item, "file_name")
    return f"[file: {name}]" if name else ""
