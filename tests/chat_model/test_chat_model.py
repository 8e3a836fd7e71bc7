"""A chat model over HTTP: what it is asked, what may go wrong, and for how long."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from chat_server import AT_ONCE, ChatAnswer, ChatFault, ChatRequest, ChatServer, answering, chat_error
from loguru import logger

from mirai_memory import MissingExtra, ModelError, chat_model, load_settings
from mirai_memory.chat_model import ChatModel

SECRET = "the launch code is 0451"
KEY = "sk-test-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}

Made = Callable[..., ChatModel]


@pytest.fixture
def made(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a model of this server, with settings of ``models.chat``."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(**chat: Any) -> ChatModel:
        settings = load_settings(models={"chat": {"base_url": server.url, "timeout_s": 20, **chat}})
        return ChatModel(settings.models.chat, settings.security.api_keys)

    return make


@pytest.fixture
def model(made: Made) -> ChatModel:
    return made()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged of calls."""
    lines: list[str] = []
    logger.enable("mirai_memory")
    handler = logger.add(lambda line: lines.append(str(line)), level="INFO", format="{level} {message} {extra}")
    yield lines
    logger.remove(handler)
    logger.disable("mirai_memory")


def _fails(model: ChatModel, words: str, **options: Any) -> ModelError:
    """The error of a question, in which there is neither text nor key, wherever one looks."""
    with pytest.raises(ModelError) as caught:
        model.ask("be brief", SECRET, **options)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    seen: list[BaseException | None] = [caught.value]
    while seen[-1] is not None:
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    shown += " ".join(map(repr, seen))
    assert SECRET not in shown
    assert "sk-test" not in shown
    assert model.name in str(caught.value)
    assert words in str(caught.value)
    return caught.value


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_has_model_key_and_both_parts(model: ChatModel, server: ChatServer) -> None:
    server.text = " зелёный чай "
    assert model.ask("be brief", "what does she drink?") == " зелёный чай "
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what does she drink?"},
        ],
    }


def test_a_schema_is_asked_for_strictly(model: ChatModel, server: ChatServer) -> None:
    server.text = '{"n": 1}'
    assert model.ask("count", "one", schema=SCHEMA) == '{"n": 1}'
    form = server.requests[0].body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == SCHEMA


def test_a_server_at_a_base_url_needs_no_key(made: Made, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert made(model="llama3").ask("be brief", "hi") == server.text
    assert server.requests[0].body["model"] == "llama3"


def test_openai_needs_one_and_the_places_are_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    _fails(made(base_url=None), "OPENAI_API_KEY")


def test_the_official_address_is_not_taken_from_the_environment(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    client = made(base_url=None)._connect()
    assert str(client.base_url) == "https://api.openai.com/v1/"
    client.close()


def test_names_tell_servers_apart_and_no_password(made: Made) -> None:
    assert made(base_url=None).name == "openai/gpt-4o-mini"
    assert made(base_url="http://me:pw@Example:80/v1").name == "openai+example:80/gpt-4o-mini"


def test_it_is_neither_pickled_nor_shown_with_its_key(model: ChatModel) -> None:
    assert KEY not in repr(model)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(model)


def test_the_missing_package_is_named_when_it_is_made(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"mirai-memory\[openai\]"):
        made()


def test_the_limit_goes_by_the_name_that_the_server_takes(model: ChatModel, server: ChatServer) -> None:
    refused, taken = "max_tokens", "max_completion_tokens"
    complaint = chat_error(400, f"Unsupported parameter: '{refused}' is not supported with this model")
    server.always = lambda request: complaint(request) if refused in request.body else None
    for _ in range(2):
        assert model.ask("be brief", "hi", most_tokens=50) == server.text
    limits = [{name for name in request.body if name.startswith("max")} for request in server.requests]
    assert limits == [{refused}, {taken}, {taken}]
    assert server.requests[-1].body[taken] == 50


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        chat_error(429),
        chat_error(500),
        chat_error(503),
        chat_error(408),
        lambda request: ChatAnswer(502, b"x", AT_ONCE),
    ],
    ids=["429", "500", "503", "408", "502"],
)
def test_what_fails_for_the_moment_is_tried_again(model: ChatModel, server: ChatServer, fault: ChatFault) -> None:
    server.faults.extend([fault, fault])
    assert model.ask("be brief", "hi") == server.text
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "words"),
    [(429, "more calls"), (500, "status 500"), (401, "security.api_keys"), (403, "key"), (404, "models.chat.model")],
)
def test_what_goes_on_failing_is_an_error(model: ChatModel, server: ChatServer, status: int, words: str) -> None:
    server.always = chat_error(status, f"{KEY} may not ask {SECRET}")
    _fails(model, words)
    assert len(server.requests) == (3 if status in (429, 500) else 1)


def test_a_pause_that_the_server_asks_for_is_kept(model: ChatModel, server: ChatServer) -> None:
    server.faults.append(chat_error(429, headers={"retry-after": "1"}))
    assert model.ask("be brief", "hi") == server.text
    first, second = server.requests
    assert second.when - first.when >= 1


def test_nor_is_a_longer_one_waited_for_than_there_is_time(made: Made, server: ChatServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for asked in ("60", "1e30", later):
        server.requests.clear()
        server.always = chat_error(429, headers={"retry-after": asked})
        started = time.monotonic()
        _fails(made(timeout_s=10), "more calls")
        assert time.monotonic() - started < 9
        assert len(server.requests) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "", "Mon, 99 Foo 2026"])
def test_a_pause_that_is_none_is_a_short_one(
    model: ChatModel, server: ChatServer, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_model, "_FIRST_PAUSE", 0.001)
    server.faults.append(chat_error(500, headers={"retry-after": asked}))
    assert model.ask("be brief", "hi") == server.text


def test_a_server_that_hangs_costs_the_time_out(made: Made, server: ChatServer) -> None:
    server.always = server.hang
    model = made(timeout_s=0.2)
    _fails(model, "did not answer within 0.2 s")
    assert len(server.requests) == 1


def test_one_that_drips_too(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read comes in time, the whole never: the client's own time-out does not see it."""
    monkeypatch.setattr(chat_model, "_GRACE_S", 0.1)
    model, ending = made(timeout_s=0.2), threading.Event()

    class Client:
        def __getattr__(self, name: str) -> Any:
            return self

        def create(self, **request: Any) -> Any:
            ending.wait(60)

    monkeypatch.setattr(model, "_client", Client)
    assert model.longest_s == pytest.approx(0.3)
    try:
        _fails(model, "did not answer within 0.2 s")
    finally:
        ending.set()


def test_a_server_that_is_not_there(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_model, "_FIRST_PAUSE", 0.001)
    _fails(made(base_url="http://127.0.0.1:9/v1"), "cannot be reached")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda request: ChatAnswer(body=b'{"choices": [{"mess'), "no chat completion"),
        (lambda request: ChatAnswer(body=b"<html>", headers={"content-type": "text/html"}), "no chat completion"),
        (lambda request: ChatAnswer(body={}), "no chat completion"),
        (lambda request: ChatAnswer(body={"choices": []}), "no chat completion"),
        (lambda request: ChatAnswer(body=[1]), "no chat completion"),
        (answering(""), "with nothing"),
        (answering(" \n "), "with nothing"),
        (answering(None), "with nothing"),
        (answering(["a"]), "a list where text belongs"),
        (answering(None, refusal="I will not"), "refuses to answer"),
        (answering("x", finish_reason="content_filter"), "filter"),
    ],
)
def test_what_is_no_answer(model: ChatModel, server: ChatServer, fault: ChatFault, words: str) -> None:
    server.always = fault
    _fails(model, words)


def test_an_answer_that_is_cut_off_is_one_unless_it_is_to_be_json(model: ChatModel, server: ChatServer) -> None:
    server.always = answering('{"n":', finish_reason="length")
    assert model.ask("count", "one") == '{"n":'
    _fails(model, "cut off", schema=SCHEMA)


def test_threads_do_not_wait_for_each_other(model: ChatModel, server: ChatServer) -> None:
    together = threading.Barrier(3, timeout=60)

    def meet(request: ChatRequest) -> None:
        together.wait()

    server.always = meet
    threads = [threading.Thread(target=model.ask, args=("be brief", "hi")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(server.requests) == 3
    assert not together.broken


def test_every_attempt_is_logged_without_what_was_said(model: ChatModel, server: ChatServer, lines: list[str]) -> None:
    server.faults.append(chat_error(500, SECRET))
    server.text = SECRET
    model.ask(SECRET, SECRET, user_id="alice")
    failed, done = lines
    assert "model call failed" in failed
    assert "'error_code': '500'" in failed
    assert "'attempt_number': 2" in done
    assert "'tokens_in': 11" in done
    assert "'tokens_out': 7" in done
    assert f"'model': '{model.name}'" in done
    assert "'user_id': 'alice'" in done
    assert SECRET not in failed + done
    assert "alice" not in str(server.requests[0].body)
