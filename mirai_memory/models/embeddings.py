"""Vectors of messages and facts: a projection, which can be rebuilt."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from mirai_memory.models.base import Base
from mirai_memory.models.columns import BigId, Str

_PENDING = text("status = 'pending'")


class EmbeddingRow(Base):
    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("kind", "item_id", "model"),
        CheckConstraint("kind IN ('message', 'knowledge')", name="kind"),
        CheckConstraint("status IN ('ready', 'pending', 'failed')", name="status"),
        CheckConstraint("status <> 'ready' OR (vector IS NOT NULL AND dim > 0)", name="ready_has_vector"),
        Index(None, "model", "content_hash"),
        Index(None, "user_id", "model", "kind"),  # one owner's matrix is loaded without touching another's
        Index("ix_embeddings__pending", "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
        Index("ix_embeddings__pending_of_user", "user_id", "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(Str)
    item_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[str] = mapped_column(Str)
    model: Mapped[str] = mapped_column(Str)
    dim: Mapped[int] = mapped_column(BigInteger)
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)  # float16, little-endian, on both engines
    content_hash: Mapped[str] = mapped_column(Str)
    status: Mapped[str] = mapped_column(Str)
