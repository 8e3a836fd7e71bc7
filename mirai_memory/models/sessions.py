"""Conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import Json, Str, UTCDateTime

_NAMED = text("external_id IS NOT NULL")


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (
        Index(
            "uq_sessions__external_id", "user_id", "external_id",
            unique=True, sqlite_where=_NAMED, postgresql_where=_NAMED,
        ),
        Index(None, "user_id", "last_active"),
        Index(None, "last_active"),
        # The pages of list_sessions, of one owner and of all.
        Index(None, "user_id", "created_at", "id"),
        Index(None, "created_at", "id"),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(Str, primary_key=True)
    user_id: Mapped[str] = mapped_column(Str)
    external_id: Mapped[str | None] = mapped_column(Str)
    agent_id: Mapped[str | None] = mapped_column(Str)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    last_active: Mapped[datetime] = mapped_column(UTCDateTime)
    message_count: Mapped[int] = mapped_column(BigInteger, server_default="0")
    next_position: Mapped[int] = mapped_column(BigInteger, server_default="1")  # only grows
    summary: Mapped[str | None] = mapped_column(Str)
    summarized_through: Mapped[int | None] = mapped_column(BigInteger)
    summary_method: Mapped[str | None] = mapped_column(Str)
    summary_tokens: Mapped[int | None] = mapped_column(BigInteger)
    summary_source_tokens: Mapped[int | None] = mapped_column(BigInteger)
    learned_through: Mapped[int | None] = mapped_column(BigInteger)
    lease_owner: Mapped[str | None] = mapped_column(Str)
    lease_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
