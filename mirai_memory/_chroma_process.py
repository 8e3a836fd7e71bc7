"""Chroma in a process of its own, which answers through its pipes. Run as a module, not imported.

Not in the program's own process: a damaged index ends the process that reads it, and a process that was forked after
Chroma had been used never ends. Here that costs this process alone. It ends with the pipe that it reads from.

A frame is two lengths (of JSON and of bytes), the JSON, the bytes. The first one says what to open.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from mirai_memory._locks import open_lock_file, try_lock

HELD, GAVE_WAY = 3, 4  # exit codes: another process has the folder; another process has asked for it
# The files of ours in Chroma's folder. The last one says that something was deleted since the others were made.
LOCK, WANTED, DELETED = "mirai.lock", "mirai.wanted", "mirai.deleted"
_LENGTHS = struct.Struct(">II")
_LOOK_S = 0.25  # between two looks whether somebody wants the folder
_MOST_IDS = 5_000  # of one call that deletes

Json = dict[str, Any]


def send(pipe: IO[bytes], message: Json, more: bytes = b"") -> None:
    text = json.dumps(message).encode()
    left = memoryview(_LENGTHS.pack(len(text), len(more)) + text + more)
    while left:  # a pipe without a buffer takes what it has room for
        left = left[pipe.write(left) :]


def receive(pipe: IO[bytes]) -> tuple[Json, bytes] | None:
    """The next frame; None where the other end is gone."""
    head = _exactly(pipe, _LENGTHS.size)
    if head is None:
        return None
    length, size = _LENGTHS.unpack(head)
    text, more = _exactly(pipe, length), _exactly(pipe, size)
    return None if text is None or more is None else (json.loads(text), more)


def _exactly(pipe: IO[bytes], size: int) -> bytes | None:
    pieces = []
    while size:
        piece = pipe.read(size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class _Chroma:
    """The operations, by name. Vectors come as bytes; only ids and marks go back."""

    def __init__(self, path: str | None, url: Json | None) -> None:
        self._path, self._url = path, url
        self._client = self._opened()

    def _opened(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        options: Json = {"anonymized_telemetry": False, "chroma_otel_collection_endpoint": "", "allow_reset": False}
        settings = Settings(_env_file=None, **options)  # type: ignore[call-arg]
        if self._url is not None:
            return chromadb.HttpClient(**self._url, settings=settings)
        return chromadb.PersistentClient(str(self._path), settings=settings)

    def marks(self, asked: Json, more: bytes) -> Json:
        """Every collection whose name begins like this, with what is noted of it."""
        names: Json = {}
        while page := self._client.list_collections(limit=500, offset=len(names)):
            names.update({found.name: found.metadata for found in page})
        return {"marks": {name: mark for name, mark in names.items() if name.startswith(asked["prefix"])}}

    def make(self, asked: Json, more: bytes) -> Json:
        found = self._client.get_or_create_collection(
            asked["name"],
            embedding_function=None,
            metadata=asked["mark"],
            configuration={"hnsw": {"space": "cosine", "ef_search": asked["effort"], "ef_construction": 200}},
        )
        return {"mark": found.metadata}

    def nearest(self, asked: Json, more: bytes) -> Json:
        """The ids of the vectors that are nearest, at most ``most``, and the mark that was true before they were."""
        import numpy as np

        found = self._collection(asked)
        mark = found.metadata or {}
        most = min(asked["most"], int(mark.get("count", 0)))
        if not most:
            return {"ids": [], "mark": mark}
        vector = np.frombuffer(more, dtype="<f4")
        answer = found.query(query_embeddings=[vector], n_results=most, include=[])
        return {"ids": [int(id) for id in answer["ids"][0]], "mark": mark}

    def add(self, asked: Json, more: bytes) -> Json:
        """Vectors first, then the mark: what a crash leaves out is added again."""
        import numpy as np

        found, mark = self._collection(asked), asked["mark"]
        if asked["ids"]:
            vectors = np.frombuffer(more, dtype="<f4").reshape(len(asked["ids"]), -1)
            found.upsert(ids=[str(id) for id in asked["ids"]], embeddings=vectors)
        mark = {**mark, "count": found.count()}
        found.modify(metadata=mark)
        return {"mark": mark}

    def ids(self, asked: Json, more: bytes) -> Json:
        return {"ids": [int(id) for id in self._collection(asked).get(include=[])["ids"]]}

    def remove(self, asked: Json, more: bytes) -> Json:
        found, ids = self._collection(asked), asked["ids"]
        self._deleting()
        for start in range(0, len(ids), _MOST_IDS):
            found.delete(ids=[str(id) for id in ids[start : start + _MOST_IDS]])
        return {}

    def drop(self, asked: Json, more: bytes) -> Json:
        self._deleting()
        self._client.delete_collection(asked["name"])
        return {}

    def wipe(self, asked: Json, more: bytes) -> Json:
        """Delete all of Chroma's files, after which this process is of no more use.

        What was deleted may be in any of them: files keep it in free pages, and an index is written with whatever was
        in the memory that it has not used yet. Only a new process makes files that certainly have none of it.
        """
        assert self._path is not None
        self._client.close()
        delete_files(Path(self._path))
        return {}

    def _deleting(self) -> None:
        if self._path is not None:
            (Path(self._path) / DELETED).touch(mode=0o600)

    def _collection(self, asked: Json) -> Any:
        return self._client.get_collection(asked["name"], embedding_function=None)


def delete_files(folder: Path) -> None:
    """Delete what Chroma has in the folder, and nothing else that may be there. Raises OSError."""
    for index in _indexes(folder):
        shutil.rmtree(index)
    for file in (*folder.glob("chroma.sqlite3*"), folder / DELETED):
        file.unlink(missing_ok=True)


def _indexes(folder: Path) -> list[Path]:
    found = (index for index in folder.glob("*-*-*-*-*") if len(index.name) == 36 and index.is_dir())
    return [index for index in found if not index.is_symlink()]


def _tidy(folder: Path) -> None:
    """Delete the indexes of collections that are gone, which Chroma leaves where they are."""
    file = folder / "chroma.sqlite3"
    if file.exists():
        database = sqlite3.connect(file)
        try:
            known = {id for (id,) in database.execute("SELECT id FROM segments")}
        finally:
            database.close()
        for index in _indexes(folder):
            if index.name not in known:
                shutil.rmtree(index, ignore_errors=True)


def _give_way(folder: Path, working: threading.Lock) -> None:
    while not (folder / WANTED).exists():
        time.sleep(_LOOK_S)
    with working:
        os._exit(GAVE_WAY)


def _alone(folder: Path, working: threading.Lock, patience_s: float) -> None:
    """Have the folder for this process alone, for as long as it lives; or end.

    With patience the process that has it is asked to give way.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = open_lock_file(folder / LOCK)  # never closed
    deadline = time.monotonic() + patience_s
    while not try_lock(lock):
        if time.monotonic() >= deadline:
            raise SystemExit(HELD)
        (folder / WANTED).touch(mode=0o600)
        time.sleep(_LOOK_S / 2)
    (folder / WANTED).unlink(missing_ok=True)
    threading.Thread(target=_give_way, args=(folder, working), daemon=True).start()


def main() -> None:
    # What Chroma prints must not come between the frames.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    os.umask(0o077)
    working = threading.Lock()
    chroma: _Chroma | None = None
    while (frame := receive(sys.stdin.buffer)) is not None:
        asked, more = frame
        with working:
            try:
                if chroma is None:
                    if asked["path"] is not None:
                        _alone(Path(asked["path"]), working, asked["patience_s"])
                        _tidy(Path(asked["path"]))
                    chroma, answer = _Chroma(asked["path"], asked["url"]), {}
                else:
                    answer = getattr(chroma, asked["op"])(asked, more)
            except Exception as error:
                # Its text may hold a path; it is looked at, and not shown.
                answer = {"error": type(error).__name__, "text": str(error)[:500]}
            send(answers, answer)
    os._exit(0)  # Chroma's own threads are not waited for


if __name__ == "__main__":
    main()
