"""``memory.rag.vector_store: chroma``: the same is found, and nothing of an owner is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from chroma_memories import answers, fill, opening, same
from sqlalchemy import select

from mirai_memory import ConfigurationError, Knowledge, MemoryManager, Message, MissingExtra, load_settings
from mirai_memory.models import EmbeddingRow
from mirai_memory.search import chroma
from mirai_memory.search.vectors import unpacked
from mirai_memory.testing import FakeEmbedder

ROWS = EmbeddingRow.table()
Opened = Callable[..., AbstractContextManager[MemoryManager]]


@pytest.fixture(scope="module")
def place(lasting_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A database for all tests of this file that only read, and the folder in which Chroma has its vectors."""
    on_a_server = "://" in lasting_url
    return lasting_url, tmp_path_factory.mktemp("chroma") if on_a_server else Path(f"{lasting_url}.chroma")


@pytest.fixture(scope="module")
def filled(place: tuple[str, Path]) -> Iterator[MemoryManager]:
    """Two owners and shared facts. Chroma's process is started once for all of them."""
    with opening(*place) as memory:
        fill(memory, index=False)
        fill(memory, "bob", index=False)
        memory.add_knowledge_many([Knowledge(value=f"tea number {number}") for number in range(10)])
        memory.reindex()
        yield memory


@pytest.fixture
def builtin(place: tuple[str, Path], filled: MemoryManager) -> Iterator[MemoryManager]:
    with opening(*place, store="builtin") as memory:
        yield memory


@pytest.fixture
def no_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in store is of no help in this test."""
    from mirai_memory.search.vectors import Vectors

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("the built-in store was asked")

    monkeypatch.setattr(Vectors, "nearest", refuse)


def test_the_same_is_found_as_with_the_built_in_store(
    filled: MemoryManager, builtin: MemoryManager, request: pytest.FixtureRequest
) -> None:
    expected = answers(builtin)
    session = builtin.list_sessions("alice")[0].id
    narrowed = answers(builtin, session_id=session, since=filled._clock())
    request.getfixturevalue("no_other_answers")
    assert same(answers(filled), expected)
    assert same(answers(filled, session_id=session, since=filled._clock()), narrowed)


def test_of_many_the_nearest_are_asked_for(
    filled: MemoryManager, builtin: MemoryManager, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than all of them the best stay the best, and score about the same."""
    query = "tea in the garden"
    expected = builtin.search_messages(query, user_id="alice", limit=10)
    request.getfixturevalue("no_other_answers")
    for name, value in (("NEAREST", 40), ("ENOUGH", 20), ("SAMPLE", 60)):
        monkeypatch.setattr(chroma, name, value)
    found = filled.search_messages(query, user_id="alice", limit=10)
    assert found[0].id == expected[0].id
    assert len({item.id for item in found} & {item.id for item in expected}) >= 8
    assert [item.score for item in found] == pytest.approx([item.score for item in expected], rel=0.15)
    later = filled.search_messages(query, user_id="alice", limit=10, since=filled._clock())
    assert later[0].id == expected[0].id
    assert len({item.id for item in later} & {item.id for item in expected}) >= 8


def test_another_owner_s_vectors_are_not_looked_at(filled: MemoryManager) -> None:
    alice = {message.id for message in filled.search_messages("tea", user_id="alice", limit=1_000)}
    bob = {message.id for message in filled.search_messages("tea", user_id="bob", limit=1_000)}
    assert alice
    assert bob
    assert not alice & bob


def test_neither_texts_nor_owners_are_given_to_chroma(filled: MemoryManager, place: tuple[str, Path]) -> None:
    held = b"".join(file.read_bytes() for file in place[1].rglob("*") if file.is_file())
    assert len(held) > 10_000
    for word in (b"alice", b"bob", b"garden", b"fake"):
        assert word not in held


def test_files_of_chroma_are_the_owner_s_alone(filled: MemoryManager, place: tuple[str, Path]) -> None:
    held = place[1]
    modes = {path.stat().st_mode & 0o077 for path in (held, *held.rglob("*"))}
    assert modes == {0}


@pytest.mark.long
def test_what_is_new_replaced_or_deleted_counts_at_once(opened: Opened, no_other_answers: None) -> None:
    """Before Chroma is told of it: there is no thread in the background here."""
    with opened() as memory:
        session = fill(memory, messages=30, facts=0)
        new = memory.add_message(Message(session_id=session, role="user", content="zebra crossing"))
        [found] = memory.search_messages("zebra", user_id="alice", limit=1, explain=True)
        assert found.id == new
        assert (found.explanation or {}).get("dense", 0.0) > 1
        best = memory.search_messages("tea garden", user_id="alice", limit=2, explain=True)
        memory.delete_message(best[0].id or 0)
        memory.update_message(best[1].id or 0, "wholly different words")
        left = memory.search_messages("tea garden", user_id="alice", limit=100, explain=True)
        assert best[0].id not in {item.id for item in left}
        now = {item.id: (item.explanation or {}).get("dense", 0.0) for item in left}
        assert now.get(best[1].id, 0.0) < (best[1].explanation or {})["dense"]


@pytest.mark.long
def test_vectors_that_are_all_alike(tmp_path: Path, lines: list[str]) -> None:
    """Of these an index finds only some; they are not taken for lost, and all of them are found."""
    with opening(str(tmp_path / "memory.db"), tmp_path) as memory:
        session = memory.create_session("alice").id
        texts = ["tea"] * 200 + ["coffee"] * 20
        memory.add_messages([Message(session_id=session, role="user", content=text) for text in texts])
        memory.reindex()
        found = memory.search_messages("tea", user_id="alice", limit=1_000, explain=True)
        assert sum((item.explanation or {}).get("dense", 0.0) > 0 for item in found) == 200
        assert sum("made anew" in line for line in lines) <= 1
        for _ in range(3):
            memory.search_messages("tea", user_id="alice")
        assert sum("made anew" in line for line in lines) <= 1


@pytest.mark.long
def test_forgetting_leaves_nothing_in_chroma(opened: Opened, tmp_path: Path) -> None:
    with opened() as memory:
        fill(memory, index=False)
        fill(memory, "bob")
        alice, bob = _vectors(memory, "alice") - _vectors(memory, "bob"), _vectors(memory, "bob")
        assert alice
        assert _in_files(tmp_path, alice) == alice  # this test would find them
        receipt = memory.forget_user("alice")
        assert (receipt.state, receipt.reason) == ("done", None)
        assert not _in_files(tmp_path, alice)
        assert memory.search_messages("tea", user_id="bob")
        memory.reindex()
        assert _in_files(tmp_path, bob) == bob
        assert not _in_files(tmp_path, alice)


def _vectors(memory: MemoryManager, user_id: str) -> set[bytes]:
    """The owner's vectors as Chroma is given them."""
    owned = select(ROWS.c.vector).where(ROWS.c.user_id == user_id)
    packed = memory._store.read(lambda uow: uow.db.execute(owned).scalars().all())
    return {vector.astype("<f4").tobytes() for vector in unpacked(packed, 32)}


def _in_files(folder: Path, vectors: set[bytes]) -> set[bytes]:
    held = b"".join(file.read_bytes() for file in folder.glob("*chroma/**/*") if file.is_file())
    return {vector for vector in vectors if vector in held}


def test_without_the_extra_it_says_so_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mirai-memory\[chroma\]'"):
        opening(str(tmp_path / "memory.db"), tmp_path)
    opening(str(tmp_path / "memory.db"), tmp_path, store="builtin").close()


def test_a_server_needs_to_be_told_where_chroma_is() -> None:
    settings = load_settings(memory={"rag": {"vector_store": "chroma"}})
    with pytest.raises(ConfigurationError, match=r"rag\.chroma\.url"):
        MemoryManager("postgresql://nobody@127.0.0.1:1/none", embedder=FakeEmbedder(), settings=settings)


@pytest.mark.parametrize(
    "chroma",
    [
        {"url": "ftp://host"},
        {"url": "http://user:secret@host:8000"},
        {"url": "http://host:8000/somewhere"},
        {"min_items": 0},
        {"path": ""},
        {"path": "folder", "url": "http://host:8000"},
        {"pth": "folder"},
    ],
)
def test_bad_values(chroma: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"rag\.chroma"):
        load_settings(memory={"rag": {"chroma": chroma}})


def test_a_small_owner_needs_no_chroma(tmp_path: Path) -> None:
    with opening(str(tmp_path / "memory.db"), tmp_path, chroma={"min_items": 1_000}) as memory:
        fill(memory, messages=5, facts=5)
        assert memory.search_messages("tea", user_id="alice")
        assert memory.forget_user("alice").state == "done"
    assert not (tmp_path / "memory.db.chroma").exists()


def test_a_memory_that_keeps_nothing_does_without(tmp_path: Path) -> None:
    with opening(":memory:", tmp_path) as memory:
        fill(memory, messages=5, facts=5)
        assert memory.search_messages("tea", user_id="alice")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_chromadb_is_never_loaded_into_the_program(tmp_path: Path) -> None:
    """Its index can crash a process, and cannot be forked: it has one of its own."""
    code = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from chroma_memories import answers, fill, opening
        with opening(sys.argv[1] + "/memory.db", Path(sys.argv[1])) as memory:
            fill(memory, messages=5, facts=5)
            answers(memory)
            assert "Chroma has 10 of the 10" in str(memory.health())
        assert "mirai_memory.search.chroma" in sys.modules
        assert "chromadb" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_nothing_of_it_is_loaded_without_the_setting(tmp_path: Path) -> None:
    code = """if True:
        import sys, mirai_memory
        with mirai_memory.MemoryManager(sys.argv[1]) as memory:
            memory.search_messages("tea", user_id="alice")
        print(*sys.modules)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "memory.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mirai_memory.chroma_opening" in loaded
    assert not loaded & {"chromadb", "mirai_memory.chroma_feeding", "mirai_memory.search.chroma"}
