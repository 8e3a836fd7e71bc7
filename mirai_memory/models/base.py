"""The base of the declarative models, and how constraints are named."""

from __future__ import annotations

from typing import cast

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase

# Named by one convention, so that any later migration can drop a constraint on either engine.
NAMING = {
    "pk": "pk_%(table_name)s",
    "ix": "ix_%(table_name)s__%(column_0_N_name)s",
    "uq": "uq_%(table_name)s__%(column_0_N_name)s",
    "ck": "ck_%(table_name)s__%(constraint_name)s",
    "fk": "fk_%(table_name)s__%(column_0_N_name)s__%(referred_table_name)s",
}


class Base(DeclarativeBase):
    """No queries here; they live in the services."""

    metadata = MetaData(naming_convention=NAMING)

    @classmethod
    def table(cls) -> Table:
        """The Core table: services build their statements from it once."""
        return cast(Table, cls.__table__)
