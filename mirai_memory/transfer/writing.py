"""The file, written: from one consistent view, a few rows in memory at a time, whole or not there at all."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from mirai_memory import _files
from mirai_memory._version import __version__
from mirai_memory.errors import InvalidInput, StorageError, StorageFull
from mirai_memory.services.exports import Exports
from mirai_memory.transfer import form
from mirai_memory.transfer.reports import UserExport

Progress = Callable[[int, int], object]
_EVERY = 1_000  # lines between two calls of ``progress``
_BUFFER = 1 << 18


class _Sink:
    """Where the lines go: counted, hashed and written."""

    def __init__(self, file: Any, total: int, progress: Progress | None) -> None:
        self._file, self._total, self._progress = file, total, progress
        self._hashed = hashlib.sha256()
        self.bytes = 0
        self.counts = dict.fromkeys(form.COUNTED.values(), 0)

    @property
    def sha256(self) -> str:
        return self._hashed.hexdigest()

    def put(self, line: bytes, kind: str | None = None) -> None:
        self._hashed.update(line)
        self._write(line)
        if kind is not None:
            self.counts[form.COUNTED[kind]] += 1
            done = sum(self.counts.values())
            if self._progress is not None and (done % _EVERY == 0 or done == self._total):
                self._progress(done, self._total)

    def _write(self, line: bytes) -> None:
        self.bytes += len(line)
        left = memoryview(line)
        try:
            while left:
                # An unbuffered file takes a part and says how much; others say nothing, or all of it.
                written = self._file.write(left)
                left = left[written if isinstance(written, int) else len(left) :]
        except TypeError:
            pass
        except BrokenPipeError:
            raise  # whoever read a file of the caller's own has gone, which is no fault of a storage
        except OSError as error:
            raise storage_error(error) from error
        else:
            return
        raise InvalidInput("target", "must be opened in binary mode")


def write(exports: Exports, file: BinaryIO, user_id: str, at: datetime, progress: Progress | None) -> UserExport:
    """All of one owner, into an open file."""
    sink = _Sink(file, sum(exports.counts(user_id).values()), progress)
    header = {"format": form.FORMAT, "version": form.VERSION, "user_id": user_id, "exported_at": at}
    sink.put(form.line("header", {**header, "written_by": f"mirai-memory {__version__}"}, form.HEADER))
    for kind, line in _lines(exports, user_id):
        sink.put(line, kind)
    done: dict[str, Any] = {**sink.counts, "sha256": sink.sha256}
    sink.put(form.line("end", done, form.END))
    return UserExport(user_id=user_id, exported_at=at, bytes=sink.bytes, **done)


def _lines(exports: Exports, user_id: str) -> Iterator[tuple[str, bytes]]:
    preferences = exports.preferences(user_id)
    if preferences is not None:
        yield "preferences", form.preferences_line(preferences)
    for session in exports.sessions(user_id):
        yield "session", form.session_line(session)
        for message in exports.messages(session.id):
            yield "message", form.message_line(message)
    for task in exports.tasks(user_id):
        yield "task", form.task_line(task)
    for fact, vectors in exports.facts(user_id):
        yield "fact", form.fact_line(fact, vectors)


@contextmanager
def target_file(target: Any) -> Iterator[BinaryIO]:
    """The open file to write to. One that is named is new, mode 0600, and has its name only when it is whole."""
    if isinstance(target, (str, os.PathLike)):
        with _new_file(Path(target)) as file:
            yield file
    elif not callable(getattr(target, "write", None)) or isinstance(target, io.TextIOBase):
        raise InvalidInput("target", "must be a path, or a file that is opened for writing in binary mode")
    else:
        yield target
        with suppress(AttributeError):
            target.flush()


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    try:
        if b"\0" in os.fsencode(path):
            raise InvalidInput("target", "has a NUL")
        if os.path.lexists(path):
            raise InvalidInput("target", "is there already; name a new file")
        _files.sweep(path.parent)  # it holds what somebody said
        partial = _files.unfinished(path, "export")
        fd = _files.open_new(partial)
        try:
            with open(fd, "wb", buffering=_BUFFER) as file:
                yield file
                file.flush()
                os.fsync(fd)
            _name(partial, path)
        finally:
            with suppress(OSError):
                os.unlink(partial)
    except StorageError:
        raise
    except UnicodeEncodeError:
        raise InvalidInput("target", "has a lone surrogate") from None
    except OSError as error:
        raise storage_error(error) from error


def _name(partial: Path, path: Path) -> None:
    """Give the file its name, unless another has it by now."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise InvalidInput("target", "was made by somebody else meanwhile; name a new file") from None
    except OSError:
        os.rename(partial, path)  # a file system without links
    with suppress(OSError):  # a file system that does not sync folders
        _files.sync_folder(path.parent)


def storage_error(error: OSError) -> StorageError:
    why = error.strerror or type(error).__name__
    return (
        StorageFull("no space is left for the export")
        if error.errno in _files.FULL
        else StorageError(f"the export cannot be written: {why}")
    )
