"""ChatGPT's data export, ``conversations.json``: each conversation a tree, of which the current branch is imported.

Messages that the service hid, empty ones and other branches are left out and counted. Reasoning, and content without
any text, is kept as items, exactly as it stands in the file. A branch that was edited since an earlier import goes on
where the stored messages end: those stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import Conversation, Options, conversation_of, refused
from mirai_memory.importers.json_export import Exported, exported, is_export
from mirai_memory.importers.json_text import MAX_VALUE
from mirai_memory.importers.openai_message import moment
from mirai_memory.importers.tree import Tree

_ROLES = ("system", "user", "assistant", "tool")
_REASONING = frozenset({"thoughts", "reasoning_recap"})
# Where the text of a content stands that has no parts.
_TEXTS = ("text", "result", "summary")
_PLAIN = frozenset({"text", "multimodal_text"})
_ABOUT = ("recipient", "weight", "status", "end_turn", "channel")
_USUAL = {"recipient": "all", "weight": 1.0, "status": "finished_successfully"}


class ChatGPT:
    """The importer of ChatGPT's export."""

    name = "chatgpt"
    has_owners = False

    def detect(self, path: Path) -> bool:
        return is_export(path, "mapping", "{")

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        last = ""

        def keep(id: str, node: Any) -> None:
            nonlocal last
            last = id
            if not isinstance(node, dict):
                raise InvalidInput("node", "must be an object")
            tree.add(id, _checks.optional_text("parent", node.get("parent"), limit=MAX_VALUE), node.get("message"))

        with closing(Tree()) as tree:
            for found in exported(path, "mapping", "{", tree.clear, keep):
                yield _conversation(found, tree, last)


def _conversation(found: Exported, tree: Tree, last: str) -> Conversation:
    leaf = found.text("current_node") or last
    if leaf and not found.faults.count and (wrong := tree.choose(leaf)):
        found.faults.add(found.place, wrong)
    if not leaf or found.faults.count:
        return Conversation(
            place=found.place, faults=found.faults.listed, fault_count=found.faults.count, left_out=tree.count
        )
    id = found.text("conversation_id") or found.text("id")
    if id is None:
        return refused(found.place, "id is missing")
    try:
        since = _moment(found.about)
    except InvalidInput as error:
        return refused(found.place, str(error))
    return conversation_of(
        found.place,
        external_id=f"chatgpt:{id}",
        metadata={**found.metadata("id", "conversation_id", "current_node"), "source": "chatgpt"},
        entries=lambda: ((f"message {id}", (id, body)) for id, body in tree.branch()),
        fields=_fields,
        since=since,
        left_out=tree.count - tree.branch_count(),
    )


def _moment(value: dict[str, Any]) -> Any:
    time = value.get("create_time") or value.get("update_time")
    return None if time is None else moment("create_time", time)


def _fields(node: tuple[str, Any]) -> dict[str, Any] | None:
    """The arguments of a Message, without its session; None for what was not shown. Raises InvalidInput."""
    id, message = node
    author, content, metadata = (_object(message, name) for name in ("author", "content", "metadata"))
    role = _checks.one_of("author.role", author.get("role"), _ROLES)
    if metadata.get("is_visually_hidden_from_conversation") is True:
        return None
    text, parts = _text_of(content)
    common = {
        "timestamp": _moment(message),
        "model": _checks.optional_text("model_slug", metadata.get("model_slug"), limit=MAX_VALUE),
        "client_id": _checks.optional_text("id", message.get("id"), limit=MAX_VALUE) or id,
    }
    kind = content.get("content_type")
    if not (text.strip() or parts or metadata.get("attachments")) and (kind in _PLAIN or len(content) < 2):
        return None
    if kind in _REASONING or (not text and kind not in _PLAIN):
        return {**common, "kind": "item", "payload": _json(message)}
    return {
        **common,
        "role": role,
        "content": text,
        "parts": parts,
        # The export has no ids of calls: a tool's message is kept without, and is no part of what is sent to an API.
        "name": _checks.optional_text("author.name", author.get("name"), limit=MAX_VALUE),
        "metadata": _json(_about(message, content, metadata)),
    }


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput("message", f"must be an object, not {type(value).__name__}")
    found = value.get(name)
    if not isinstance(found, dict) and not (found is None and name == "metadata"):
        raise InvalidInput(name, "is missing, or is no object")
    return found or {}


def _text_of(content: dict[str, Any]) -> tuple[str, list[dict[str, Any]] | None]:
    """The text, and the parts where there are others than text."""
    if "parts" not in content:
        text = next((content[name] for name in _TEXTS if isinstance(content.get(name), str) and content[name]), "")
        return _checks.text("content", text, limit=MAX_VALUE), None
    raw = content["parts"] or []
    if not isinstance(raw, list) or not all(isinstance(part, (str, dict)) for part in raw):
        raise InvalidInput("parts", "must be a list of strings and objects")
    # Speech is an object with its words as text.
    texts = [part if isinstance(part, str) else part.get("text") for part in raw]
    text = "\n".join(item for item in texts if isinstance(item, str) and item)
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in raw if part != ""]
    several = any(isinstance(part, dict) for part in raw)
    kept = _checks.optional_json_objects("parts", parts, limit=MAX_VALUE) if several else None
    return _checks.text("content", text, limit=MAX_VALUE), kept


def _about(message: dict[str, Any], content: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """What the file says of the message beyond its text, where it is not as usual."""
    about = {name: message[name] for name in _ABOUT if message.get(name) not in (None, _USUAL.get(name))}
    rest = {name: value for name, value in content.items() if name not in ("parts", "text") and value}
    if rest != {"content_type": "text"}:
        about["content"] = rest
    return {**about, **{name: value for name, value in metadata.items() if name != "model_slug"}}


def _json(value: dict[str, Any]) -> dict[str, Any]:
    return _checks.json_object("message", value, limit=MAX_VALUE)
