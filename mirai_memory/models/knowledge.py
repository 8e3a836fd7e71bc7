"""Facts, with when they were true (valid) and when they were believed (created, superseded)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import BigId, Json, Str, UTCDateTime

_OPEN = text("superseded_at IS NULL AND valid_to IS NULL")


class KnowledgeRow(Base):
    __tablename__ = "knowledge"
    __table_args__ = (
        CheckConstraint("confidence >= 0 AND confidence <= 1", name="confidence"),
        CheckConstraint("source_kind IN ('user', 'assistant', 'tool', 'document', 'import')", name="source_kind"),
        # One open row for a key: two writers cannot both believe that theirs is the current value.
        Index(
            "uq_knowledge__open", "user_id", "category", "key",
            unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN,
        ),
        Index(None, "user_id", "category", "key", "id"),
        Index(None, "user_id", "id"),
        # What a delete of the referred row looks up.
        Index(None, "message_id"),
        Index(None, "superseded_by"),
        Index(None, "expires_at", sqlite_where=text("expires_at IS NOT NULL"),
              postgresql_where=text("expires_at IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[str] = mapped_column(Str)  # '' = shared by all owners
    category: Mapped[str] = mapped_column(Str)
    key: Mapped[str] = mapped_column(Str)
    value: Mapped[str] = mapped_column(Str)
    source: Mapped[str | None] = mapped_column(Str)
    source_kind: Mapped[str] = mapped_column(Str)
    confidence: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    valid_from: Mapped[datetime] = mapped_column(UTCDateTime)
    valid_to: Mapped[datetime | None] = mapped_column(UTCDateTime)
    superseded_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    superseded_by: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("knowledge.id", ondelete="SET NULL"))
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    message_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("messages.id", ondelete="SET NULL"))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
