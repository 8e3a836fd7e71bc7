"""Entries of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import BigId, Json, Str, UTCDateTime

_NAMED = text("client_id IS NOT NULL")  # partial: most messages have none, and need no index entry


class MessageRow(Base):
    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("session_id", "position"),
        Index(
            "uq_messages__client_id", "session_id", "client_id",
            unique=True, sqlite_where=_NAMED, postgresql_where=_NAMED,
        ),
        CheckConstraint("kind IN ('chat', 'item')", name="kind"),
        CheckConstraint("role IN ('system', 'user', 'assistant', 'tool', 'developer')", name="role"),
        CheckConstraint("kind = 'item' OR role IS NOT NULL", name="chat_has_role"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[str] = mapped_column(Str, ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(Str)
    position: Mapped[int] = mapped_column(BigInteger)  # order is stored, never inferred from a clock
    # The position of the message that opened this one's group (a tool call); its own where it stands alone. With it
    # the window finds whole groups by reading only the newest rows.
    group_start: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Str, server_default="chat")
    role: Mapped[str | None] = mapped_column(Str)
    name: Mapped[str | None] = mapped_column(Str)
    content: Mapped[str] = mapped_column(Str)
    tool_calls: Mapped[list[Any] | None] = mapped_column(Json)
    tool_call_id: Mapped[str | None] = mapped_column(Str)
    parts: Mapped[list[Any] | None] = mapped_column(Json)
    payload: Mapped[dict[str, Any] | None] = mapped_column(Json)
    timestamp: Mapped[datetime] = mapped_column(UTCDateTime)
    tokens: Mapped[int | None] = mapped_column(BigInteger)
    model: Mapped[str | None] = mapped_column(Str)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
    client_id: Mapped[str | None] = mapped_column(Str)
