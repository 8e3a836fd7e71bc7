"""The package's logger: silent until somebody asks.

Importing this module disables the ``mirai_memory`` namespace in loguru. ``configure_logging`` writes it to a file of
its own; after ``import mirai_memory.logging``, ``logger.enable("mirai_memory")`` lets the host's own sinks have it.
Ids, sizes and latencies are logged, never content, preferences, vectors or passwords.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from loguru import logger

from mirai_memory import _log_lines
from mirai_memory._log_files import LogFile

if TYPE_CHECKING:
    from loguru import Message, Record

_NAMESPACE = "mirai_memory"

logger.disable(_NAMESPACE)

__all__ = ["LogHandle", "configure_logging", "logger"]


class RotateSettings(Protocol):
    @property
    def enabled(self) -> bool: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def backup_count(self) -> int: ...


class LogSettings(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def level(self) -> str: ...
    @property
    def format(self) -> Literal["json", "text"]: ...
    @property
    def rotate(self) -> RotateSettings: ...
    @property
    def fields(self) -> Sequence[str]: ...


class _Monitoring(Protocol):
    @property
    def logs(self) -> LogSettings: ...


class _Settings(Protocol):
    @property
    def monitoring(self) -> _Monitoring: ...


class LogHandle:
    """What ``configure_logging`` has opened; ``remove`` or the end of a ``with`` closes it again."""

    def __init__(self, path: Path, sink_id: int) -> None:
        self.path = path
        self._sink_id = sink_id

    def remove(self) -> None:
        """Write no more to this file. Once the last file is removed, the logger is as silent as it was before."""
        with _changing:
            _drop(self)
            _restore_silence()

    def __enter__(self) -> LogHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


_changing = threading.Lock()
_handles: dict[Path, LogHandle] = {}
_was_enabled = False


def configure_logging(settings: _Settings) -> LogHandle:
    """Write the package's records to ``monitoring.logs.path``; configuring that file again replaces what was said.

    Sinks of the host stay as they are, and have the records too, since loguru enables a namespace for all sinks.
    A file that cannot be written is reported once on stderr and never raises.
    """
    global _was_enabled
    logs = settings.monitoring.logs
    sink = _Sink(logs)
    with _changing:
        sink_id = logger.add(
            sink,
            level=logs.level,
            format=_exception_only,
            filter=_NAMESPACE,
            colorize=False,
            backtrace=False,
            diagnose=False,  # it would print the values of variables
        )
        if not _handles:
            _was_enabled = _is_enabled()
        handle = LogHandle(sink.path, sink_id)
        if sink.path in _handles:
            _drop(_handles[sink.path])
        _handles[sink.path] = handle
        logger.enable(_NAMESPACE)
    sink.try_out()
    return handle


def _drop(handle: LogHandle) -> None:
    if _handles.get(handle.path) is handle:
        del _handles[handle.path]
        with suppress(ValueError):  # the host has removed all sinks
            logger.remove(handle._sink_id)


def _restore_silence() -> None:
    if not _handles and not _was_enabled:
        logger.disable(_NAMESPACE)


class _Enabled(Exception):
    pass


def _is_enabled() -> bool:
    """Whether the namespace is enabled, which loguru does not tell: a lazy argument is made only if it is."""

    def stop() -> None:
        raise _Enabled

    try:
        logger.opt(lazy=True).log(sys.maxsize, "{}", stop)
    except _Enabled:
        return True
    return False


def _exception_only(record: Record) -> str:
    """The format: the sink makes the line from the record, and needs of loguru the text of the exception only."""
    return "{exception}"


class _Sink:
    """Records as lines of one file. It can be pickled, as the host's logger may be, to be handed to a process."""

    def __init__(self, logs: LogSettings) -> None:
        self.path = Path(os.path.abspath(logs.path))
        limit = logs.rotate.max_bytes if logs.rotate.enabled else None
        self._file = LogFile(self.path, max_bytes=limit, backup_count=logs.rotate.backup_count)
        self._line = _log_lines.as_text if logs.format == "text" else _log_lines.as_json
        self._fields = tuple(logs.fields)
        self._complained = False

    def write(self, message: Message) -> None:
        try:
            exception = str(message) if message.record["exception"] else ""
            self._file.append(self._line(_log_lines.values(message.record, exception, self._fields)))
        except Exception as error:
            self._complain(error)

    def try_out(self) -> None:
        """Say at once, and not with the first record, that the file cannot be written."""
        try:
            self._file.append(b"")
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        stderr: Any = sys.stderr  # None in a program without a console
        if self._complained or stderr is None:
            return
        self._complained = True
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        with suppress(Exception):
            print(f"mirai_memory: log lines are lost: {self.path}: {reason}", file=stderr, flush=True)
