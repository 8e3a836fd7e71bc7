"""One question to a chat model of OpenAI's, or of any server that speaks its protocol, through the official client.

What goes wrong, be it the network, the server or its answer, is a ModelError, which holds nothing of what was asked or
answered.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._calls import CallThread, Overdue
from mirai_memory.errors import ConfigurationError, MissingExtra, ModelError
from mirai_memory.model_calls import ModelCall, model_call

if TYPE_CHECKING:
    from openai import OpenAI

    from mirai_memory.config import ApiKeySettings, ChatModelSettings

__all__ = ["ChatModel"]

_OFFICIAL_URL = "https://api.openai.com/v1"  # if it is told none, the client asks the environment
_TRIES = 3
_FIRST_PAUSE = 0.5  # seconds, doubled each time, where the server does not say how long
_GRACE_S = 1.0  # beyond the time-out: for a client that does not keep it, as while a name is looked up

# The limit of an answer has one name at OpenAI, and another at servers that follow its older protocol.
_NEW_LIMIT, _OLD_LIMIT = "max_completion_tokens", "max_tokens"
_COMPLAINTS = frozenset({400, 422})
_LIMIT_REFUSED = re.compile(rf"{_NEW_LIMIT}|{_OLD_LIMIT}", re.IGNORECASE)
_TRY_AGAIN = frozenset({408, 409, 429})
_ADVICE = {
    401: "refuses the API key; check the places that security.api_keys names",
    403: "does not let this API key use the model",
    404: "does not know the model or the address; check models.chat.model and models.chat.base_url",
    429: "refuses more calls for now, or the quota is used up",
}


@dataclass(frozen=True, slots=True)
class _Failure:
    """What is wrong, and whether another try may go better: after ``pause_s``, or None where nobody says when."""

    error: ModelError
    passing: bool = False
    pause_s: float | None = None

    def pause(self, attempt: int) -> float:
        return _FIRST_PAUSE * 2 ** (attempt - 1) if self.pause_s is None else self.pause_s


class ChatModel:
    """The model that ``models.chat`` names.

    ``models.chat.timeout_s`` is the time for a question with all its attempts: what failed for the moment (429, 5xx, a
    broken connection) is tried again, after the time that the server asks for, if that is still within it. The key is
    looked up with the first question; where a ``base_url`` is given there need not be one. Raises MissingExtra when it
    is made, ModelError when it is asked.
    """

    def __init__(self, settings: ChatModelSettings, keys: ApiKeySettings) -> None:
        if importlib.util.find_spec("openai") is None:
            raise MissingExtra("openai", "openai")
        self.name = _name(settings.model, settings.base_url)
        self._settings = settings
        self._keys = keys
        self._limit = _OLD_LIMIT if settings.base_url else _NEW_LIMIT
        self._client = OncePerProcess(self._connect)

    def __repr__(self) -> str:
        return f"ChatModel({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ChatModel is not pickled: it has a connection and a key")

    @property
    def longest_s(self) -> float:
        """How long ``ask`` takes at most, in seconds."""
        return self._settings.timeout_s + _GRACE_S

    def ask(
        self,
        system: str,
        user: str,
        *,
        schema: dict[str, Any] | None = None,
        most_tokens: int | None = None,
        user_id: str | None = None,
    ) -> str:
        """The answer, which is not empty; with ``schema`` it is meant to be JSON of that schema, and is whole.

        Without one an answer may end where ``most_tokens`` cut it off. ``user_id`` is for the log alone. Raises
        ModelError.
        """
        request: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        }
        if schema is not None:
            form = {"name": "answer", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        # On a thread of its own, which may hang as long as it likes.
        thread = CallThread("mirai-memory-chat")
        try:
            done = thread.run(partial(self._try, request, most_tokens, user_id), self.longest_s)
        except Overdue:
            problem = self._overdue()
        else:
            answer = done.result()
            if isinstance(answer, str):
                return answer
            problem = answer
        finally:
            thread.close()
        raise problem  # here, without the client's error, which may quote the key or a text

    def _connect(self) -> OpenAI:
        from openai import OpenAI

        settings, key = self._settings, "not-needed"
        if settings.base_url is None or self._keys.locate("openai"):
            key = self._keys.get_api_key("openai").get_secret_value()
        return OpenAI(api_key=key, base_url=settings.base_url or _OFFICIAL_URL, max_retries=0)

    # What follows runs on the thread.

    def _try(self, request: dict[str, Any], most_tokens: int | None, user_id: str | None) -> str | ModelError:
        deadline = time.monotonic() + self._settings.timeout_s
        attempt = 1
        while True:
            limit = {} if most_tokens is None else {self._limit: most_tokens}
            left = max(0.001, deadline - time.monotonic())
            outcome = self._attempt({**request, **limit}, left, model_call(self.name, user_id=user_id, attempt=attempt))
            if isinstance(outcome, str):
                return outcome
            pause = outcome.pause(attempt)
            if not outcome.passing or attempt == _TRIES or time.monotonic() + pause >= deadline:
                return outcome.error
            time.sleep(pause)
            attempt += 1

    def _attempt(self, request: dict[str, Any], timeout_s: float, call: ModelCall) -> str | _Failure:
        try:
            with call:
                response = self._client().chat.completions.create(**request, timeout=timeout_s)
                call.take_usage(response)
                return self._text(response, whole="response_format" in request)
        except Exception as error:
            return self._failure(error, request)

    def _text(self, response: Any, *, whole: bool) -> str:
        choice = response.choices[0]
        text = choice.message.content
        if getattr(choice.message, "refusal", None):
            raise self._error("refuses to answer")
        if whole and choice.finish_reason == "length":
            raise self._error("answered with more than fits; its answer is cut off")
        if choice.finish_reason == "content_filter":
            raise self._error("does not answer: its filter is in the way")
        if text is not None and not isinstance(text, str):
            raise self._error(f"answered with a {type(text).__name__} where text belongs")
        if not text or not text.strip():
            raise self._error("answered with nothing")
        return text

    def _failure(self, error: Exception, request: Mapping[str, Any]) -> _Failure:
        """What is wrong, in words that hold nothing of what was sent or answered."""
        if isinstance(error, ModelError):
            return _Failure(error)
        if isinstance(error, ConfigurationError):
            return _Failure(self._error(f"cannot be used: {error}"))
        if isinstance(error, ImportError):
            return _Failure(self._error(f"cannot be loaded ({type(error).__name__})"))
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._complaint(error, request)
        if isinstance(error, openai.APITimeoutError):
            return _Failure(self._overdue())
        if isinstance(error, openai.APIConnectionError):
            return _Failure(self._error("cannot be reached; check the network and models.chat.base_url"), True)
        return _Failure(self._error(f"answered with something that is no chat completion ({type(error).__name__})"))

    def _complaint(self, error: Any, request: Mapping[str, Any]) -> _Failure:
        status = error.status_code
        problem = self._error(f"{_ADVICE.get(status, 'refused the request')} (status {status})")
        if status in _COMPLAINTS and self._limit in request and _LIMIT_REFUSED.search(str(error.message)):
            self._limit = _OLD_LIMIT if self._limit == _NEW_LIMIT else _NEW_LIMIT  # from now on
            return _Failure(problem, True, 0.0)
        return _Failure(problem, status in _TRY_AGAIN or status >= 500, _asked_pause(error.response.headers))

    def _overdue(self) -> ModelError:
        return self._error(f"did not answer within {self._settings.timeout_s:g} s")

    def _error(self, problem: str) -> ModelError:
        return ModelError(f"model {self.name!r} {problem}")


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """How many seconds the server asks to wait: a number, or a date."""
    given = headers.get("retry-after", "")
    for text, unit in ((headers.get("retry-after-ms", ""), 0.001), (given, 1.0)):
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _name(model: str, base_url: str | None) -> str:
    # Another server may have another model under the same name. The host is told without a password.
    host = "+" + urlsplit(base_url).netloc.rpartition("@")[2].lower() if base_url else ""
    return f"openai{host}/{model}"
