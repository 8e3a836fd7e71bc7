"""Whatever an embedder does wrong: an EmbeddingError in time, which says no text."""

from __future__ import annotations

import contextvars
import decimal
import gc
import itertools
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from mirai_memory.embeddings import GuardedEmbedder
from mirai_memory.errors import EmbeddingError, InvalidInput
from mirai_memory.testing import FakeEmbedder

SECRET = "the launch code is 0451"


@pytest.fixture
def fake() -> Iterator[FakeEmbedder]:
    embedder = FakeEmbedder(dim=4, name="fake-4")
    yield embedder
    embedder.release()


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mirai-memory-embedder"]


def _eventually(what: Callable[[], Any], seconds: float = 10) -> Any:
    """Its result, as soon as it raises no EmbeddingError."""
    for end in itertools.repeat(time.monotonic() + seconds):
        try:
            return what()
        except EmbeddingError:
            if time.monotonic() > end:
                raise
    return None


class Embedder:
    """The protocol with any answers."""

    name = "mine"
    dim: Any = 3

    def __init__(self, documents: Callable[[Sequence[str]], Any], query: Callable[[str], Any] | None = None) -> None:
        self.embed_documents = documents
        self.embed_query = query or (lambda text: documents([text])[0])


# --- what comes out ---------------------------------------------------------------------------------------------------

TWO = [[3.0, 0.0, 4.0], [0.0, -2.0, 0.0]]


@pytest.mark.parametrize(
    "answer",
    [
        TWO,
        tuple(map(tuple, TWO)),
        [[3, 0, 4], [0, -2, 0]],
        np.array(TWO),
        np.array(TWO, dtype=np.float16),
        np.array(TWO, dtype=np.float32)[:, ::1],
        np.array(TWO, dtype=np.longdouble),
        np.array(TWO, dtype=np.int8),
        [np.array(TWO[0]), TWO[1]],
        np.array(TWO) * 1e300,
        np.array(TWO) * 5e-324,
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),  # the same in every process
)
def test_any_numbers_become_float32_of_length_one(answer: Any) -> None:
    guarded = GuardedEmbedder(Embedder(lambda texts: answer))
    vectors = guarded.documents(["a", "b"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 3)
    assert vectors[1].tolist() == [0.0, -1.0, 0.0]
    assert float(vectors[0] @ vectors[0]) == pytest.approx(1, abs=1e-6)
    assert vectors[0][1] == 0
    assert 0.5 < vectors[0][0] <= vectors[0][2] < 0.9
    query = guarded.query("a")
    assert (query.dtype, query.shape) == (np.float32, (3,))
    assert query.tolist() == vectors[0].tolist()


def test_no_texts_have_no_vectors(fake: FakeEmbedder) -> None:
    vectors = GuardedEmbedder(fake).documents([])
    assert (vectors.shape, vectors.dtype, fake.calls) == ((0, 4), np.float32, 0)


def test_texts_are_handed_on_as_they_are(fake: FakeEmbedder) -> None:
    texts = ["", " \n", "a" * 100_000, "\u00e9 e\u0301"]
    guarded = GuardedEmbedder(fake)
    assert guarded.documents(texts).shape == (4, 4)
    guarded.query("")
    assert fake.texts == [*texts, ""]


def test_documents_go_in_batches_in_order() -> None:
    sizes: list[list[int]] = []

    def documents(texts: Sequence[str]) -> Any:
        sizes.append([len(text) for text in texts])
        return [[len(text), 1.0, 0.0] for text in texts]

    embedder: Any = Embedder(documents)
    embedder.batch_texts, embedder.batch_chars = 3, 100
    vectors = GuardedEmbedder(embedder).documents(["x" * length for length in (1, 2, 3, 4, 60, 41, 500, 5)])
    assert sizes == [[1, 2, 3], [4, 60], [41], [500], [5]]
    assert [round(float(row[0] / row[1])) for row in vectors] == [1, 2, 3, 4, 60, 41, 500, 5]


@pytest.mark.parametrize("wrong", [0, -1, None, "many"])
def test_nonsensical_batch_sizes_are_not_followed(fake: Any, wrong: Any) -> None:
    fake.batch_texts = fake.batch_chars = wrong
    assert GuardedEmbedder(fake).documents(["a", "b"]).shape == (2, 4)


# --- nonsense ---------------------------------------------------------------------------------------------------------


class _Raising:
    def __array__(self, *arguments: object, **options: object) -> Any:
        raise RuntimeError(SECRET)


NAN, INF = float("nan"), float("inf")
NO_VECTOR = {
    "nothing": (None, "answered with NoneType where numbers belong"),
    "a text": ("1.0 2.0 3.0", "answered with str where numbers belong"),
    "bytes": (b"\0\0\0", "answered with bytes where numbers belong"),
    "a number": (1.0, "answered with a number instead of a vector"),
    "empty": ([], "answered with a vector of 0 numbers, its dim is 3"),
    "too short": ([1.0, 2.0], "answered with a vector of 2 numbers, its dim is 3"),
    "too long": (np.ones(4), "answered with a vector of 4 numbers, its dim is 3"),
    "two dimensions": (np.ones((1, 3)), "answered with an array of 2 dimensions instead of a vector"),
    "NaN": ([1.0, NAN, 0.0], "answered with a NaN or an infinity"),
    "infinity": (np.array([1.0, -INF, 0.0]), "answered with a NaN or an infinity"),
    "beyond float64": (np.array([1, 0, 0], dtype=np.longdouble) * np.longdouble("1e4000"), "a NaN or an infinity"),
    "zeros": ([0.0, -0.0, 0], "answered with a vector of zeros"),
    "texts": (["1.0", "2.0", "3.0"], "answered with list where numbers belong"),
    "a None in it": ([1.0, None, 2.0], "answered with list where numbers belong"),
    "a text in it": ([1.0, SECRET, 2.0], "answered with list where numbers belong"),
    "truth values": ([True, False, True], "answered with list where numbers belong"),
    "complex": ([1.0, 2j, 3.0], "answered with list where numbers belong"),
    "decimals": ([decimal.Decimal(1)] * 3, "answered with list where numbers belong"),
    "a dict": ({0: 1.0, 1: 1.0, 2: 1.0}, "answered with dict where numbers belong"),
    "a set": ({1.0, 2.0, 3.0}, "answered with set where numbers belong"),
    "unequal lists": ([[1.0], [1.0, 2.0], 3.0], "answered with list where numbers belong"),
    "itself": (itertools.repeat(1.0), "answered with repeat where numbers belong"),
    "a trap": (_Raising(), "failed with RuntimeError"),
}


@pytest.mark.parametrize("case", NO_VECTOR)
def test_what_is_no_vector_is_refused(case: str) -> None:
    answer, words = NO_VECTOR[case]
    guarded = GuardedEmbedder(Embedder(lambda texts: [[1.0, 1.0, 1.0], answer], lambda text: answer))
    for call in (lambda: guarded.query(SECRET), lambda: guarded.documents([SECRET, "other"])):
        with pytest.raises(EmbeddingError) as caught:
            call()
        assert words in str(caught.value)
        assert str(caught.value).startswith("embedder 'mine' ")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "answered with 0 vectors for 2 texts"),
        ([[1.0, 0.0, 0.0]], "answered with 1 vectors for 2 texts"),
        (np.ones((3, 3)), "answered with 3 vectors for 2 texts"),
        (np.ones((2, 2)), "answered with a vector of 2 numbers, its dim is 3"),
        (np.ones((2, 0)), "answered with a vector of 0 numbers, its dim is 3"),
        (np.ones(3), "answered with an array of 1 dimensions instead of a list of vectors"),
        (np.ones((2, 3, 1)), "answered with an array of 3 dimensions instead of a list of vectors"),
        ([1.0, 2.0], "answered with a number instead of a vector"),
        (None, "answered with NoneType where numbers belong"),
        (iter(TWO), "answered with list_iterator where numbers belong"),
        ({"a": TWO[0], "b": TWO[1]}, "answered with dict where numbers belong"),
        (["ab", "cd"], "answered with str where numbers belong"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),  # the same in every process
)
def test_what_is_no_list_of_vectors_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(EmbeddingError, match=words):
        GuardedEmbedder(Embedder(lambda texts: answer)).documents(["a", "b"])


@pytest.mark.parametrize("dim", [0, -3, None, "3", 3.0, True, 10**9])
def test_a_dim_must_be_a_number_of_numbers(dim: Any) -> None:
    embedder = Embedder(lambda texts: [[1.0] * 3 for _ in texts])
    embedder.dim = dim
    guarded = GuardedEmbedder(embedder)
    for call in (lambda: guarded.dim, lambda: guarded.query("a"), lambda: guarded.documents([])):
        with pytest.raises(EmbeddingError, match="dim must be an integer between 1 and 65536"):
            call()


def test_a_dim_may_be_numpys_and_does_not_change() -> None:
    embedder = Embedder(lambda texts: [[1.0] * int(embedder.dim) for _ in texts])
    embedder.dim = np.int64(3)
    guarded = GuardedEmbedder(embedder)
    assert guarded.dim == 3
    assert type(guarded.dim) is int
    embedder.dim = 5
    with pytest.raises(EmbeddingError, match="a vector of 5 numbers, its dim is 3"):
        guarded.query("a")


@pytest.mark.parametrize("name", ["", None, 7, "a\x00b", "n" * 256])
def test_a_name_must_fit_beside_a_vector(name: Any) -> None:
    embedder = Embedder(lambda texts: [])
    embedder.name = name
    with pytest.raises(InvalidInput, match=r"embedder\.name"):
        GuardedEmbedder(embedder)


def test_what_is_no_embedder_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="no method embed_documents and no method embed_query"):
        GuardedEmbedder(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="texts: must be a list"):
        GuardedEmbedder(FakeEmbedder()).documents("one text")


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), KeyError(SECRET), MemoryError(), SystemExit(3), KeyboardInterrupt(), StopIteration(1)]
)
def test_what_it_raises_is_chained_and_not_quoted(error: BaseException) -> None:
    def fail(texts: object) -> Any:
        raise error

    guarded = GuardedEmbedder(Embedder(fail, fail))
    for call in (lambda: guarded.query(SECRET), lambda: guarded.documents([SECRET])):
        with pytest.raises(EmbeddingError) as caught:
            call()
        assert str(caught.value) == f"embedder 'mine' failed with {type(error).__name__}"
        assert caught.value.__cause__ is error


def test_it_works_again_after_a_failure(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake)
    fake.fail()
    with pytest.raises(EmbeddingError, match="'fake-4' failed with ConnectionError"):
        guarded.query("a")
    fake.recover()
    assert guarded.query("a").shape == (4,)


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_call_that_hangs_ends_in_time_and_those_after_it_at_once(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake, timeout_s=60)
    assert guarded.query("warm").shape == (4,)
    before = len(_threads())
    fake.hang()
    with pytest.raises(EmbeddingError, match=r"'fake-4' gave no answer within 0\.05 s"):
        guarded.query(SECRET, timeout_s=0.05)
    calls, start = fake.calls, time.monotonic()
    for _ in range(50):
        with pytest.raises(EmbeddingError, match="still busy with an earlier call"):
            guarded.documents(["a"])
    assert time.monotonic() - start < 30  # and not the 60 s that each of them could take
    assert (fake.calls, len(_threads())) == (calls, before)
    fake.release()
    assert _eventually(lambda: guarded.documents(["a"])).shape == (1, 4)


def test_calls_that_wait_behind_one_that_hangs_fail_with_it(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake, timeout_s=60)
    guarded.query("warm")
    fake.hang()
    failures: list[str] = []

    def call(timeout_s: float) -> None:
        try:
            guarded.query("a", timeout_s=timeout_s)
        except EmbeddingError as error:
            failures.append(str(error))

    first = threading.Thread(target=call, args=(1.0,))
    first.start()
    while fake.calls < 2:
        pass
    others = [threading.Thread(target=call, args=(60,)) for _ in range(3)]
    for thread in others:
        thread.start()
    for thread in [first, *others]:
        thread.join(30)
    assert sorted("busy" in failure for failure in failures) == [False, True, True, True]


def test_one_whose_turn_does_not_come_is_not_made(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake, timeout_s=60)
    guarded.query("warm")
    fake.hang()
    done: list[Any] = []
    first = threading.Thread(target=lambda: done.append(guarded.query("first")))
    first.start()
    while fake.calls < 2:
        pass
    with pytest.raises(EmbeddingError, match=r"gave no answer within 0\.05 s"):
        guarded.query("second", timeout_s=0.05)
    fake.release()
    first.join(30)
    assert len(done) == 1  # it is no reason to give up the one before
    guarded.query("third")
    assert fake.texts == ["warm", "first", "third"]


def test_calls_of_many_threads_are_made_one_at_a_time_in_their_order() -> None:
    inside = threading.Lock()
    busy, go_on = threading.Event(), threading.Event()
    order: list[str] = []
    threads: set[int] = set()

    def documents(texts: Sequence[str]) -> Any:
        assert inside.acquire(blocking=False)
        threads.add(threading.get_ident())
        order.append(texts[0])
        busy.set()
        assert go_on.wait(30)
        inside.release()
        return [[1.0, 0.0, 0.0] for _ in texts]

    embedder: Any = Embedder(documents)
    embedder.batch_texts = 1
    guarded = GuardedEmbedder(embedder)
    many = threading.Thread(target=lambda: guarded.documents(["1", "2", "3"]))
    many.start()
    assert busy.wait(30)
    query = threading.Thread(target=lambda: guarded.query("question"))
    query.start()
    while guarded._thread()._queue.qsize() < 1:  # type: ignore[union-attr]
        pass
    go_on.set()
    many.join(30)
    query.join(30)
    assert order == ["1", "question", "2", "3"]  # a question does not wait for all documents
    assert len(threads) == 1
    assert threads.isdisjoint({threading.get_ident()})


def test_it_may_be_used_from_many_threads(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake)
    results: list[bool] = []

    def work(number: int) -> None:
        text = f"word{number}"
        expected = FakeEmbedder(dim=4).embed_query(text)
        vectors = [guarded.query(text) for _ in range(50)]
        results.append(all(np.argmax(np.abs(v)) == np.argmax(np.abs(expected)) for v in vectors))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 8


def test_the_thread_ends_with_its_owner(fake: FakeEmbedder) -> None:
    before = set(_threads())
    guarded = GuardedEmbedder(fake)
    guarded.query("a")
    (thread,) = set(_threads()) - before
    assert thread.daemon
    del guarded
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_closed_one_ends_its_thread_and_may_be_used_again(fake: FakeEmbedder) -> None:
    before = set(_threads())
    guarded = GuardedEmbedder(fake)
    guarded.close()
    guarded.query("a")
    (thread,) = set(_threads()) - before
    guarded.close()
    guarded.close()
    thread.join(30)
    assert not thread.is_alive()
    assert guarded.query("a").shape == (4,)


def test_closing_does_not_make_room_for_a_second_call_that_hangs(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake)
    fake.hang()
    for words in ("gave no answer", "still busy", "still busy"):
        with pytest.raises(EmbeddingError, match=words):
            guarded.query("a", timeout_s=0.05)
        guarded.close()
    assert fake.calls == 1


def test_a_waiting_thread_keeps_no_text_alive() -> None:
    gone = threading.Event()

    class Text(str):
        def __del__(self) -> None:
            gone.set()

    guarded = GuardedEmbedder(Embedder(lambda texts: [[1.0, 0.0, 0.0] for _ in texts]))
    guarded.documents([Text("a")])
    assert gone.wait(10)


def test_the_callers_context_is_the_calls() -> None:
    user = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    def documents(texts: Sequence[str]) -> Any:
        seen.append(user.get())
        return [[1.0, 0.0, 0.0] for _ in texts]

    guarded = GuardedEmbedder(Embedder(documents))
    user.set("alice")
    guarded.documents(["a"])
    user.set("bob")
    guarded.documents(["a"])
    assert seen == ["alice", "bob"]


def test_neither_repr_nor_traceback_show_the_embedder(fake: FakeEmbedder) -> None:
    guarded = GuardedEmbedder(fake)
    assert repr(guarded) == "GuardedEmbedder('fake-4')"
    fake.answer_with([[1.0]])
    with pytest.raises(EmbeddingError) as caught:
        guarded.documents([SECRET])
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# --- processes --------------------------------------------------------------------------------------------------------


def _run(code: str) -> subprocess.CompletedProcess[str]:
    prelude = """
import os, signal, sys, threading, time
from mirai_memory.embeddings import GuardedEmbedder
from mirai_memory.errors import EmbeddingError
from mirai_memory.testing import FakeEmbedder
fake = FakeEmbedder(dim=4)
guarded = GuardedEmbedder(fake, timeout_s=60)
guarded.query("warm")
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", prelude + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    done = _run("""
fake.hang()
try:
    guarded.query("a", timeout_s=0.05)
except EmbeddingError:
    print("failed")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "failed\n", "")


def test_an_interrupt_reaches_the_caller_who_waits() -> None:
    done = _run("""
fake.hang()
def interrupt():
    while fake.calls < 2:
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    guarded.query("a")
except KeyboardInterrupt:
    print("interrupted")
try:
    guarded.query("a")
except EmbeddingError as error:
    print(error)
""")
    assert (
        done.stdout == "interrupted\nembedder 'fake' is still busy with an earlier call that gave no answer in time\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    done = _run("""
fake.hang()
waiting = threading.Thread(target=lambda: guarded.query("a"), daemon=True)
waiting.start()
while fake.calls < 2:
    pass
lock = guarded._thread()._changing
lock.acquire()                          # the worst moment: the parent holds it, and in the child nobody frees it
child = os.fork()
if child == 0:
    fake.recover()
    ok = guarded.query("a").shape == (4,) and guarded.documents(["a", "b"]).shape == (2, 4)
    os._exit(0 if ok else 1)
lock.release()
fake.release()
waiting.join(30)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), guarded.query("a").shape)
""")
    assert (done.stdout, done.stderr) == ("0 (4,)\n", "")
