"""The embeddings API of OpenAI, over HTTP: limits, faults, keys."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embeddings_server import Answer, EmbeddingsServer, Fault, Request, as_base64, error

from mirai_memory.config import load_settings
from mirai_memory.embeddings import GuardedEmbedder, open_embedder
from mirai_memory.embeddings.openai_ import OpenAIEmbedder
from mirai_memory.errors import EmbeddingError
from mirai_memory.logging import logger
from mirai_memory.testing import FakeEmbedder
from mirai_memory.tokens import ExactTokens

SMALL = "text-embedding-3-small"
SECRET = "the launch code is 0451"


@pytest.fixture
def embedder(server: EmbeddingsServer, keys: Any) -> OpenAIEmbedder:
    server.size = 1536
    return OpenAIEmbedder(SMALL, keys=keys, base_url=server.url, timeout_s=20)


def _fails(embedder: OpenAIEmbedder, words: str) -> EmbeddingError:
    """The error of a call, in which there is neither text nor key, wherever one looks."""
    with pytest.raises(EmbeddingError) as caught:
        GuardedEmbedder(embedder).documents([SECRET, "b"])
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    seen: list[BaseException | None] = [caught.value]
    while seen[-1] is not None:
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    shown += " ".join(map(repr, seen))
    assert SECRET not in shown
    assert "sk-test" not in shown
    assert embedder.name in str(caught.value)
    assert words in str(caught.value)
    return caught.value


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_has_model_key_and_texts(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    vectors = GuardedEmbedder(embedder).documents(["зелёный чай", "b"])
    (request,) = server.requests
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == "Bearer sk-test-0123456789abcdef"
    assert (request.body["model"], request.body["input"]) == (SMALL, ["зелёный чай", "b"])
    assert "dimensions" not in request.body
    expected = GuardedEmbedder(FakeEmbedder(dim=1536)).documents(["зелёный чай", "b"])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_large_model_and_shortened_vectors(server: EmbeddingsServer, keys: Any) -> None:
    large = OpenAIEmbedder("text-embedding-3-large", keys=keys, base_url=server.url)
    assert GuardedEmbedder(large).query("a").shape == (3072,)
    short = OpenAIEmbedder("text-embedding-3-large", keys=keys, base_url=server.url, dimensions=256)
    assert GuardedEmbedder(short).query("a").shape == (256,)
    assert [request.body.get("dimensions") for request in server.requests] == [None, 256]


def test_settings_are_followed(server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-test-of-the-team")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-another")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    settings = load_settings(
        memory={"rag": {"embedder": "openai"}},
        models={"embedding": {"model": "bge-m3", "dimensions": 8, "base_url": server.url}},
        security={"api_keys": {"env_var": "TEAM_KEY"}},
    )
    embedder = open_embedder(settings)
    assert embedder is not None
    assert GuardedEmbedder(embedder).query("a").shape == (8,)
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer sk-test-of-the-team"
    assert request.body["model"] == "bge-m3"


def test_the_official_address_is_not_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    client = OpenAIEmbedder(SMALL, keys=keys)._connect()
    assert str(client.base_url) == "https://api.openai.com/v1/"
    client.close()


def test_an_empty_text_is_sent_as_a_space(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    assert GuardedEmbedder(embedder).documents(["", "a", "\n"]).shape == (3, 1536)
    assert server.inputs == [[" ", "a", "\n"]]


@pytest.mark.long
def test_requests_keep_the_limits(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    server.size = embedder.dim = 2
    texts = [f"text {number}" for number in range(5_000)]
    assert len(embedder.embed_documents(texts)) == 5_000
    assert [len(input) for input in server.inputs] == [2048, 2048, 904]
    assert [text for input in server.inputs for text in input] == texts
    server.requests.clear()
    long = ["word " * 6_000] * 100
    assert len(embedder.embed_documents(long)) == 100
    assert sum(map(len, server.inputs)) == 100
    assert 3 <= len(server.inputs) <= 4
    assert all(len(input) * 6_000 <= 300_000 for input in server.inputs)


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "слово " * 20_000, "漢字" * 20_000, "\U00012000" * 20_000, "x" * 2_000_000], ids=range(5)
)
def test_a_text_is_cut_to_what_the_model_reads(embedder: OpenAIEmbedder, server: EmbeddingsServer, text: str) -> None:
    embedder.embed_query(text)
    ((sent,),) = server.inputs
    assert text.startswith(sent)
    assert 1_000 <= ExactTokens("cl100k_base").count(sent) <= 8_191


def test_a_text_at_the_limit_is_not_cut(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    text = "word " * 7_000
    embedder.embed_query(text)
    assert server.inputs == [[text]]


# --- faults that pass -------------------------------------------------------------------------------------------------


def test_it_waits_as_long_as_the_server_asks(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    server.faults.append(error(429, headers={"retry-after": "0.7"}))
    server.faults.append(error(503, headers={"retry-after-ms": "50"}))
    assert GuardedEmbedder(embedder).query("a").shape == (1536,)
    first, second, third = (request.when for request in server.requests)
    assert second - first >= 0.7
    assert third - second >= 0.05


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_fails_for_the_moment_is_tried_again(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, status: int
) -> None:
    server.faults.append(error(status))
    assert GuardedEmbedder(embedder).query("a").shape == (1536,)
    assert len(server.requests) == 2


def test_answers_out_of_order_are_put_in_order(embedder: OpenAIEmbedder, server: EmbeddingsServer) -> None:
    def shuffled(request: Request) -> Answer:
        body = server.vectors(request)
        body["data"].reverse()
        return Answer(body=body)

    server.faults.append(shuffled)
    guarded = GuardedEmbedder(embedder)
    np.testing.assert_array_equal(guarded.documents(["a", "b", "c"]), guarded.documents(["a", "b", "c"]))


@pytest.mark.parametrize("pack", [list, as_base64])
def test_a_server_may_answer_in_either_format(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, pack: Callable[[list[float]], Any]
) -> None:
    numbers = [0.0] * 1535 + [2.0]
    server.faults.append(lambda request: Answer(body={"data": [{"index": 0, "embedding": pack(numbers)}]}))
    assert GuardedEmbedder(embedder).query("a").tolist() == [0.0] * 1535 + [1.0]


COMPLAINTS = [
    error(400, "This model's maximum context length is 8192 tokens, however you requested 10000"),
    error(400, "too much", code="context_length_exceeded"),
    error(400, "too much", code="max_tokens_per_request"),
    error(413, "`inputs` must have less than 512 tokens. Given: 600"),
    error(422, "Input is too long"),
    error(500, "input is too large to process. increase the physical batch size", headers={"x-should-retry": "false"}),
]


@pytest.mark.parametrize("complaint", COMPLAINTS, ids=range(len(COMPLAINTS)))
def test_only_the_text_that_the_server_finds_too_long_is_cut(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, complaint: Fault
) -> None:
    long = "word " * 3_000
    server.always = lambda request: complaint(request) if any(len(t) > 5_500 for t in request.body["input"]) else None
    texts = ["a", "b " * 2_000, "c", long, "d " * 2_000]
    vectors = GuardedEmbedder(embedder).documents(texts)
    assert vectors.shape == (5, 1536)
    accepted = [text for request in server.requests if not server.always(request) for text in request.body["input"]]
    assert set(texts) - set(accepted) == {long}
    (cut,) = set(accepted) - set(texts)
    assert long.startswith(cut)
    assert 2_500 <= len(cut) <= 5_500


def test_a_server_that_finds_all_too_long_is_not_asked_for_ever(
    embedder: OpenAIEmbedder, server: EmbeddingsServer
) -> None:
    server.always = error(400, "maximum context length exceeded")
    _fails(embedder, "finds every text too long")
    assert len(server.requests) <= 8


def test_a_server_that_takes_no_dimensions_is_asked_without(server: EmbeddingsServer, keys: Any) -> None:
    server.size = 1024
    server.always = lambda request: (
        error(400, 'Model "m" does not support matryoshka representation')(request)
        if "dimensions" in request.body
        else None
    )
    guarded = GuardedEmbedder(OpenAIEmbedder("m", keys=keys, base_url=server.url, dimensions=1024))
    assert guarded.query("a").shape == guarded.query("b").shape == (1024,)
    assert ["dimensions" in request.body for request in server.requests] == [True, False, False]
    server.size = 768
    with pytest.raises(EmbeddingError, match="a vector of 768 numbers, its dim is 1024"):
        guarded.query("a")


# --- faults that stay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "requests"),
    [
        (400, "refused the request (status 400)", 1),
        (401, "refuses the API key; check the places that security.api_keys names (status 401)", 1),
        (403, "does not let this API key use the model (status 403)", 1),
        (404, "check models.embedding.model and models.embedding.base_url (status 404)", 1),
        (429, "refuses more calls for now, or the quota is used up (status 429)", 3),
        (500, "refused the request (status 500)", 3),
    ],
)
def test_a_refusal_says_what_to_do_and_quotes_nothing(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, status: int, words: str, requests: int
) -> None:
    server.always = lambda request: error(
        status, f"key {request.headers['authorization']}, input {request.body['input']}"
    )(request)
    _fails(embedder, words)
    assert len(server.requests) == requests


NUMBERS = [0.5] * 1536
NAN = [math.nan, *NUMBERS[1:]]
NO_ANSWERS: dict[str, tuple[Any, str]] = {
    "no JSON": (b'{"data": [', "something that is no list of vectors"),
    "HTML": (Answer(body=b"<html>busy</html>", headers={"content-type": "text/html"}), "no list of vectors"),
    "nothing": (b"", "something that is no list of vectors"),
    "a list": ([], "something that is no list of vectors"),
    "no data": ({"object": "list"}, "something that is no list of vectors"),
    "null": ({"data": None}, "something that is no list of vectors"),
    "empty data": ({"data": []}, ""),
    "too few": ({"data": [{"index": 0, "embedding": NUMBERS}]}, "answered with 1 vectors for 2 texts"),
    "too many": (
        {"data": [{"index": i, "embedding": NUMBERS} for i in range(3)]},
        "answered with 3 vectors for 2 texts",
    ),
    "the same twice": ({"data": [{"index": 0, "embedding": NUMBERS}] * 2}, "indexes are not those of the texts"),
    "from one": ({"data": [{"index": i, "embedding": NUMBERS} for i in (1, 2)]}, "indexes are not those of the texts"),
    "no index": ({"data": [{"embedding": NUMBERS}] * 2}, "indexes are not those of the texts"),
    "no vector": ({"data": [{"index": 0}, {"index": 1}]}, "answered with"),
    "null vectors": ({"data": [{"index": i, "embedding": None} for i in range(2)]}, "where numbers belong"),
    "a short one": ({"data": [{"index": i, "embedding": NUMBERS[i:]} for i in range(2)]}, "1535 numbers, its dim is"),
    "zeros": ({"data": [{"index": i, "embedding": [0] * 1536} for i in range(2)]}, "a vector of zeros"),
    "NaN": ({"data": [{"index": i, "embedding": NAN} for i in range(2)]}, "a NaN or an infinity"),
    "NaN in base64": ({"data": [{"index": i, "embedding": as_base64(NAN)} for i in range(2)]}, "a NaN or an infinity"),
    "no base64": ({"data": [{"index": i, "embedding": "?" * 7} for i in range(2)]}, "answered with"),
    "texts": ({"data": [{"index": i, "embedding": [SECRET] * 1536} for i in range(2)]}, "where numbers belong"),
}


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_nonsense_is_refused_without_being_quoted(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, case: str
) -> None:
    answer, words = NO_ANSWERS[case]
    server.always = lambda request: answer if isinstance(answer, Answer) else Answer(body=answer)
    _fails(embedder, words)
    server.always = lambda request: None
    assert GuardedEmbedder(embedder).query("a").shape == (1536,)


def test_a_server_that_hangs_ends_in_time(server: EmbeddingsServer, keys: Any) -> None:
    server.always = server.hang
    embedder = OpenAIEmbedder(SMALL, keys=keys, base_url=server.url, timeout_s=0.1)
    _fails(embedder, "did not answer within 0.1 s")
    guarded = GuardedEmbedder(OpenAIEmbedder(SMALL, keys=keys, base_url=server.url), timeout_s=0.1)
    with pytest.raises(EmbeddingError, match=r"gave no answer within 0\.1 s"):
        guarded.query("a")


def test_a_server_that_is_not_there(keys: Any) -> None:
    with EmbeddingsServer() as gone:
        url = gone.url
    embedder = OpenAIEmbedder(SMALL, keys=keys, base_url=url)
    _fails(embedder, "cannot be reached; check the network and models.embedding.base_url")


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_key_is_looked_up_with_the_first_call(embedder: OpenAIEmbedder, keys: Any) -> None:
    assert keys.lookups == 0
    embedder.embed_query("a")
    embedder.embed_query("b")
    assert keys.lookups == 1


def test_another_server_needs_no_key(server: EmbeddingsServer, keys: Any) -> None:
    keys.key = None
    GuardedEmbedder(OpenAIEmbedder("text-embedding-3-large", keys=keys, base_url=server.url)).query("a")
    assert server.requests[0].headers["authorization"] == "Bearer not-needed"


def test_openai_needs_one_and_says_where_it_belongs(keys: Any) -> None:
    keys.key = None
    _fails(OpenAIEmbedder(SMALL, keys=keys), "cannot be used: no API key of openai: set the environment variable")


def test_a_key_file_that_is_broken_is_named(server: EmbeddingsServer, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"openai": "sk-test-broken')
    settings = load_settings(security={"api_keys": {"fallback_file": str(tmp_path / "keys.json")}})
    _fails(OpenAIEmbedder(SMALL, keys=settings.security.api_keys, base_url=server.url), "keys.json")


def test_the_key_is_nowhere_to_be_seen(embedder: OpenAIEmbedder, tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message) + repr(message.record["extra"])), level=0)
    logger.enable("mirai_memory")
    try:
        GuardedEmbedder(embedder).documents([SECRET])
    finally:
        logger.disable("mirai_memory")
        logger.remove(sink)
    assert len(lines) == 1
    assert "'tokens_in': 7" in lines[0]
    shown = [
        *lines,
        repr(embedder),
        str(embedder),
        embedder.name,
        repr(vars(embedder)),
        repr(GuardedEmbedder(embedder)),
    ]
    for text in shown:
        assert "sk-test" not in text
        assert SECRET not in text
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(embedder)


def test_a_forked_process_connects_anew(
    embedder: OpenAIEmbedder, server: EmbeddingsServer, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder.embed_query("a")
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what a child sees of it
    embedder.embed_query("b")
    embedder.embed_query("c")
    assert keys.lookups == 2
    assert json.dumps(server.inputs) == '[["a"], ["b"], ["c"]]'
