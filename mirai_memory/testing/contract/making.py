"""What the contract's tests need before they come to what they are about."""

from __future__ import annotations

from typing import Any

from mirai_memory import MemoryManager, Message


def new_session(memory: MemoryManager, user_id: str = "alice") -> str:
    """The id of a new session."""
    return memory.create_session(user_id).id


def say(memory: MemoryManager, session_id: str, *contents: str, **fields: Any) -> list[int]:
    """Store a message for each text; their ids."""
    return memory.add_messages([said(session_id, content, **fields) for content in contents])


def said(session_id: str, content: str = "", **fields: Any) -> Message:
    """A message of the user's, if not told otherwise."""
    return Message(session_id=session_id, content=content, **{"role": "user", **fields})


def calling(session_id: str, *call_ids: str, **fields: Any) -> Message:
    """An assistant's message that makes the calls."""
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for id in call_ids]
    return Message(session_id=session_id, role="assistant", tool_calls=calls, **fields)


def answering(session_id: str, call_id: str, content: str = "result") -> Message:
    """The result of a call."""
    return Message(session_id=session_id, role="tool", tool_call_id=call_id, content=content)


def contents(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]
