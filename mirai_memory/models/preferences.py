"""What an owner likes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import Json, Str, UTCDateTime


class PreferencesRow(Base):
    __tablename__ = "user_preferences"

    user_id: Mapped[str] = mapped_column(Str, primary_key=True)
    coding_style: Mapped[str | None] = mapped_column(Str)
    communication_tone: Mapped[str | None] = mapped_column(Str)
    favorite_tools: Mapped[list[str]] = mapped_column(Json, server_default="[]")
    project_context: Mapped[str | None] = mapped_column(Str)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}")
    version: Mapped[int] = mapped_column(BigInteger)  # compare-and-set, never a clock
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
