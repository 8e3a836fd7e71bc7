"""Everything that can go wrong, as one tree.

::

    MiraiMemoryError
    ├── NotFound (LookupError)            a write to, or a name of, something that is not there
    ├── InvalidInput (ValueError)         a value that the memory refuses before any SQL
    ├── Conflict (ValueError)             stale version, same id with other content, policy "reject"
    ├── Busy (TimeoutError)               another writer kept the database longer than the wait allows
    ├── StorageError (OSError)            the place where the data lives cannot be used
    │   ├── StorageFull
    │   ├── ReadOnly
    │   └── Corrupt
    ├── SchemaError (RuntimeError)        the database is not one this version can work with
    │   ├── SchemaTooNew
    │   ├── SchemaOutOfDate
    │   └── ForeignDatabase
    ├── EmbeddingError (RuntimeError)
    ├── ModelError (RuntimeError)         a chat model failed, or answered nonsense
    ├── ConfigurationError (ValueError)
    └── MissingExtra (ImportError)

Each error also derives from the built-in a caller would expect. A message names the field, the rule and the next
step; it never carries a user's text, only ids, enum values, numbers and keys.
"""

from __future__ import annotations

__all__ = [
    "Busy",
    "ConfigurationError",
    "Conflict",
    "Corrupt",
    "EmbeddingError",
    "ForeignDatabase",
    "InvalidInput",
    "MiraiMemoryError",
    "MissingExtra",
    "ModelError",
    "NotFound",
    "ReadOnly",
    "SchemaError",
    "SchemaOutOfDate",
    "SchemaTooNew",
    "StorageError",
    "StorageFull",
]

_NEXT_STEP = {
    "session": "list_sessions() shows what there is, create_session() makes one",
    "message": "get_messages() shows what a session holds",
    "preferences": "save_user_preferences() makes them",
    "task": "get_tasks() shows what there is",
    "knowledge": "get_knowledge() shows what there is",
}


class MiraiMemoryError(Exception):
    """The base of every error this package raises on purpose."""


class NotFound(MiraiMemoryError, LookupError):
    """A write, or a name given to one, refers to something that does not exist (or is not the caller's to see)."""

    def __init__(self, kind: str, id: str | int) -> None:
        # The arguments go to the base class as they came, so that the error survives pickling between processes.
        if isinstance(id, int) and id.bit_length() > 64:
            id = f"of {id.bit_length()} bits"  # Python writes no integer of more than 4,300 digits
        super().__init__(kind, id)
        self.kind, self.id = kind, id

    def __str__(self) -> str:
        step = _NEXT_STEP.get(self.kind)
        return f"{self.kind} {self.id!r} does not exist" + (f"; {step}" if step else "")


class InvalidInput(MiraiMemoryError, ValueError):
    """A value breaks a rule; nothing was changed."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field, self.rule = field, rule

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


class Conflict(MiraiMemoryError, ValueError):
    """The write contradicts what is stored: a stale version, a reused client_id, the policy ``reject``."""

    def __init__(self, kind: str, id: str | int, reason: str) -> None:
        super().__init__(kind, id, reason)
        self.kind, self.id, self.reason = kind, id, reason

    def __str__(self) -> str:
        return f"{self.kind} {self.id!r}: {self.reason}"


class Busy(MiraiMemoryError, TimeoutError):
    """The database was held by others for longer than the stated wait; nothing was changed, try again."""


class StorageError(MiraiMemoryError, OSError):
    """The file, disk or server behind the memory cannot be used."""


class StorageFull(StorageError):
    """No space is left where the data lives; nothing was changed."""


class ReadOnly(StorageError):
    """A write to a memory that was opened read-only, or whose place does not allow writing."""


class Corrupt(StorageError):
    """The database file is damaged, or is no database at all."""


class SchemaError(MiraiMemoryError, RuntimeError):
    """The database's schema is not one that this version can work with; it was not touched."""


class SchemaTooNew(SchemaError):
    """A newer version of mirai_memory wrote this database; upgrade the package."""


class SchemaOutOfDate(SchemaError):
    """The database must be migrated first; the message names the command."""


class ForeignDatabase(SchemaError):
    """The database belongs to something else; nothing in it was read further or changed."""


class EmbeddingError(MiraiMemoryError, RuntimeError):
    """An embedder failed or answered with something that is no vector of the stated size."""


class ModelError(MiraiMemoryError, RuntimeError):
    """A model that summarises or learns failed, or answered with something that cannot be used; nothing was changed."""


class ConfigurationError(MiraiMemoryError, ValueError):
    """Settings are missing, misspelt or have values that their rules do not allow; ``problems`` has one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


class MissingExtra(MiraiMemoryError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(extra, package)
        self.extra, self.package = extra, package

    def __str__(self) -> str:
        return f"{self.package} is not installed; pip install 'mirai-memory[{self.extra}]'"
