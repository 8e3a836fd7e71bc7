"""The caller's own model calls, logged: model, tokens, latency, attempt, error. Never what was asked or answered.

>>> from mirai_memory.model_calls import model_call
>>> with model_call("gpt-4o-mini", user_id="alice", attempt=1) as call:
...     call.tokens_in, call.tokens_out = 12, 40
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from mirai_memory.logging import logger

P = ParamSpec("P")
R = TypeVar("R")

_CODE = re.compile(r"[\w.:-]{1,64}", re.ASCII)  # a code, not a sentence that may quote the user


class ModelCall:
    """One call of a model; at the end of its ``with`` it is one record, at level WARNING if it failed."""

    def __init__(self, model: str, *, user_id: str | None = None, attempt: int = 1) -> None:
        self.model = model
        self.user_id = user_id
        self.attempt = attempt
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.error_code: str | None = None
        self._started = 0.0

    def take_usage(self, response: Any) -> None:
        """The tokens that the ``usage`` of an OpenAI-like response tells; without one nothing changes."""
        usage = _member(response, "usage")
        for name, spellings in (
            ("tokens_in", ("prompt_tokens", "input_tokens")),
            ("tokens_out", ("completion_tokens", "output_tokens")),
        ):
            for spelling in spellings:
                count = _member(usage, spelling)
                if isinstance(count, int) and not isinstance(count, bool):
                    setattr(self, name, count)
                    break

    def __enter__(self) -> ModelCall:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        latency_ms = round((time.perf_counter() - self._started) * 1000, 1)
        if error is not None:
            self.error_code = _error_code(error)
        fields = {
            "model": self.model,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "latency_ms": latency_ms,
            "attempt_number": self.attempt,
            "error_code": self.error_code,
            "user_id": self.user_id,
        }
        # An absent one is not bound as None: what the caller gave to logger.contextualize() holds.
        bound = logger.bind(**{name: value for name, value in fields.items() if value is not None})
        if self.error_code in (None, "cancelled"):
            bound.info("model call")
        else:
            bound.warning("model call failed")


def model_call(model: str, *, user_id: str | None = None, attempt: int = 1) -> ModelCall:
    """A context manager around one call; what it cannot know is set on it: ``call.tokens_in``, ``call.tokens_out``.

    An exception passes through; its ``status_code`` or ``code``, else its class, is the ``error_code``.
    """
    return ModelCall(model, user_id=user_id, attempt=attempt)


def logged_model_call(
    model: str, *, user_id: str | None = None, attempt: int = 1
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for a function, plain or async, that calls a model and returns its response.

    A stream's tokens are known at its end only: put ``model_call`` around the reading of it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with ModelCall(model, user_id=user_id, attempt=attempt) as call:
                    response = await function(*args, **kwargs)
                    call.take_usage(response)
                return response

            return awaited  # type: ignore[return-value]  # R is a coroutine here, which the checker cannot see

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with ModelCall(model, user_id=user_id, attempt=attempt) as call:
                response = function(*args, **kwargs)
                call.take_usage(response)
            return response

        return called

    return decorate


def _error_code(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    if isinstance(error, Exception):  # SystemExit has a code too
        for holder, name in ((error, "status_code"), (_member(error, "response"), "status_code"), (error, "code")):
            code = _member(holder, name)
            if isinstance(code, int | str) and not isinstance(code, bool) and _CODE.fullmatch(str(code)):
                return str(code)
    return type(error).__name__


def _member(holder: Any, name: str) -> Any:
    """An item or attribute of what others made; None if it has none, or fails to tell."""
    try:
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:
        return None
