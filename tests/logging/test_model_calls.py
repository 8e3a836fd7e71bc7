"""The caller's own model calls, as records."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from mirai_memory.model_calls import logged_model_call, model_call


@pytest.fixture
def records(configure: Any) -> Any:
    configure()

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path("mirai.log").read_text("utf-8").splitlines()]

    return read


class Refused(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__("the canary prompt was refused")
        self.__dict__.update(attributes)


class Untellable(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("no request was set")


def test_a_call_fills_the_fields(records: Any) -> None:
    with model_call("gpt-4o-mini", user_id="alice", attempt=2) as call:
        call.tokens_in = 12
        call.tokens_out = 40
    (record,) = records()
    assert record.pop("timestamp")
    assert record.pop("latency_ms") >= 0
    assert record == {
        "level": "INFO",
        "module": "mirai_memory.model_calls",
        "message": "model call",
        "model": "gpt-4o-mini",
        "tokens_in": 12,
        "tokens_out": 40,
        "attempt_number": 2,
        "error_code": None,
        "user_id": "alice",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), "ValueError"),
        (Refused(status_code=429, code="rate_limit"), "429"),
        (Refused(code="insufficient_quota"), "insufficient_quota"),
        (Refused(response=SimpleNamespace(status_code=503)), "503"),
        (Refused(status_code=None, code="a canary sentence"), "Refused"),
        (Refused(code=lambda: 1), "Refused"),
        (Untellable(), "Untellable"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_exception_is_a_code_and_passes_through(records: Any, error: BaseException, code: str) -> None:
    with pytest.raises(type(error)) as raised, model_call("m"):
        raise error
    assert raised.value is error
    (record,) = records()
    assert (record["error_code"], record["level"]) == (code, "WARNING")
    assert "canary" not in json.dumps(record)


def test_a_code_of_the_callers_own(records: Any) -> None:
    with model_call("m") as call:
        call.error_code = "content_filter"
    assert (records()[0]["error_code"], records()[0]["level"]) == ("content_filter", "WARNING")


def test_the_user_of_the_context_holds_where_none_is_given(records: Any) -> None:
    with logger.contextualize(user_id="alice"):
        with model_call("m"):
            pass
        with model_call("m", user_id="bob"):
            pass
    assert [record["user_id"] for record in records()] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("response", "tokens"),
    [
        (SimpleNamespace(usage=SimpleNamespace(prompt_tokens=3, completion_tokens=5)), (3, 5)),
        (SimpleNamespace(usage=SimpleNamespace(input_tokens=3, output_tokens=5)), (3, 5)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}, (3, 5)),
        (SimpleNamespace(usage={"input_tokens": 3}), (3, None)),
        (SimpleNamespace(usage=None), (None, None)),
        ({"usage": {"prompt_tokens": "3", "completion_tokens": True}}, (None, None)),
        ("just text", (None, None)),
        (None, (None, None)),
    ],
)
def test_the_decorator_takes_tokens_from_the_usage(records: Any, response: Any, tokens: Any) -> None:
    @logged_model_call("m", user_id="alice")
    def ask(question: str, *, loudly: bool = False) -> Any:
        """Ask."""
        return response

    @logged_model_call("m", user_id="alice")
    async def ask_later(question: str) -> Any:
        await asyncio.sleep(0)
        return response

    assert ask("canary", loudly=True) is response
    assert asyncio.run(ask_later("canary")) is response
    assert [(record["tokens_in"], record["tokens_out"], record["user_id"]) for record in records()] == [
        (*tokens, "alice")
    ] * 2
    assert "canary" not in json.dumps(records())
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    assert inspect.iscoroutinefunction(ask_later)


def test_a_decorated_function_that_fails(records: Any) -> None:
    @logged_model_call("m")
    def ask() -> None:
        raise Refused(status_code=500)

    with pytest.raises(Refused):
        ask()
    assert [record["error_code"] for record in records()] == ["500"]


def test_a_cancelled_call_is_recorded_and_stays_cancelled(records: Any) -> None:
    @logged_model_call("m")
    async def ask() -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [(record["error_code"], record["level"]) for record in records()] == [("cancelled", "INFO")]


def test_calls_at_the_same_time_do_not_mix(records: Any) -> None:
    async def ask(number: int) -> None:
        with model_call(f"m{number}", user_id=str(number)) as call:
            call.tokens_in = number
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*map(ask, range(20)))

    asyncio.run(main())
    found = sorted((int(record["user_id"]), record["model"], record["tokens_in"]) for record in records())
    assert found == [(number, f"m{number}", number) for number in range(20)]


def test_without_a_log_a_call_is_just_a_call(host: list[str]) -> None:
    with model_call("m") as call:
        call.tokens_in = 1
    assert host == []
