"""What the store knows about itself: the analyser's version, the change counter."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import Str


class StateRow(Base):
    __tablename__ = "memory_state"

    name: Mapped[str] = mapped_column(Str, primary_key=True)
    value: Mapped[str] = mapped_column(Str)
