"""Pieces of work."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import BigId, Json, Str, UTCDateTime

_NAMED = text("client_id IS NOT NULL")


class TaskRow(Base):
    __tablename__ = "tasks"
    __table_args__ = (
        Index(
            "uq_tasks__client_id", "user_id", "client_id",
            unique=True, sqlite_where=_NAMED, postgresql_where=_NAMED,
        ),
        CheckConstraint("status IN ('pending', 'in_progress', 'completed', 'failed')", name="status"),
        Index(None, "session_id", "status"),
        Index(None, "user_id", "status"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[str | None] = mapped_column(Str, ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(Str)
    description: Mapped[str] = mapped_column(Str)
    status: Mapped[str] = mapped_column(Str, server_default="pending")
    result: Mapped[str | None] = mapped_column(Str)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
    client_id: Mapped[str | None] = mapped_column(Str)
