"""One record is one line: exactly the configured fields, whatever the record holds."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirai_memory._log_lines import as_json, as_text

LOG = Path("mirai.log")
STEERING = ("\x1b[2J", "\x07", "\x9b1m", "\r", "\u2028", "\u2029", "\x85", "\u202e", "\x00", "\x7f")


def records() -> list[dict[str, Any]]:
    # Split at "\n" alone: other ends of lines must not occur either, which the next test looks at.
    return [json.loads(line) for line in LOG.read_text("utf-8").split("\n")[:-1]]


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        ("message",),
        ("message", "timestamp"),
        ("user_id", "error_code", "latency_ms", "level"),
        ("model", "session_id", "module"),
        (
            "timestamp",
            "level",
            "module",
            "message",
            "model",
            "tokens_in",
            "tokens_out",
            "latency_ms",
            "attempt_number",
            "error_code",
            "user_id",
        ),
    ],
)
def test_a_line_has_the_configured_fields_in_their_order(configure: Any, ours: Any, fields: tuple[str, ...]) -> None:
    configure(fields=fields)
    ours.info("one")
    ours.bind(user_id="alice", session_id="s1", tokens_in=3, unasked="for").info("two")
    assert [tuple(record) for record in records()] == [fields, fields]


def test_what_a_record_has_not_is_null(configure: Any, ours: Any) -> None:
    configure(fields=("message", "model", "tokens_in", "user_id", "latency_ms"))
    ours.bind(user_id="alice", latency_ms=math.nan).info("hello")
    assert records() == [{"message": "hello", "model": None, "tokens_in": None, "user_id": "alice", "latency_ms": None}]


def test_numbers_stay_numbers_and_the_four_own_fields_are_the_records(configure: Any, ours: Any) -> None:
    configure()
    before = datetime.now(UTC)
    ours.bind(tokens_in=12, latency_ms=1.5, attempt_number=True, message="not this", level="nor this").warning("hello")
    (record,) = records()
    moment = datetime.fromisoformat(record["timestamp"])
    assert moment.utcoffset() == timedelta(0)
    assert before <= moment <= datetime.now(UTC)
    assert (record["level"], record["module"], record["message"]) == ("WARNING", "mirai_memory.somewhere", "hello")
    assert (record["tokens_in"], record["latency_ms"], record["attempt_number"]) == (12, 1.5, True)


def test_the_context_of_the_caller_is_taken(configure: Any, ours: Any) -> None:
    from loguru import logger

    configure(fields=("user_id",))
    with logger.contextualize(user_id="алиса"):
        ours.info("hello")
    assert records() == [{"user_id": "алиса"}]
    assert "алиса" in LOG.read_text("utf-8")


def test_records_below_the_level_and_of_others_are_left_out(configure: Any, ours: Any) -> None:
    from loguru import logger

    configure(level="INFO")
    ours.debug("too low")
    logger.info("the host's")
    logger.patch(lambda record: record.update(name="mirai_memory_plugin")).info("a neighbour's")
    ours.info("ours")
    assert [record["message"] for record in records()] == ["ours"]


# --- exceptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "text"])
def test_an_exception_is_in_its_line_without_the_values_of_variables(configure: Any, ours: Any, format: str) -> None:
    configure(format=format)
    hidden = "canary-in-a-variable"
    try:
        raise ZeroDivisionError("password=hunter2 first\nsecond"[: 9 * len(hidden)])
    except ZeroDivisionError:
        ours.exception("it broke")
    text = LOG.read_text("utf-8")
    assert text.count("\n") == 1
    assert "canary-in-a-variable" not in text
    assert "hunter2" not in text
    assert "ZeroDivisionError: password=[redacted] first\\nsecond" in text
    assert "Traceback" in text


def test_the_class_of_an_exception_is_the_error_code_unless_one_was_bound(configure: Any, ours: Any) -> None:
    configure(fields=("error_code", "message"))
    for bound in (ours, ours.bind(error_code="E42")):
        bound.opt(exception=KeyError("k")).error("it broke")
    assert [record["error_code"] for record in records()] == ["KeyError", "E42"]


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_the_same_fields_for_eyes(configure: Any, ours: Any) -> None:
    configure(format="text", fields=("level", "message", "model", "user_id", "tokens_in", "error_code"))
    ours.bind(user_id="alice", tokens_in=0, error_code="a b=c").warning("hello  there")
    assert LOG.read_text("utf-8") == 'WARNING hello  there user_id=alice tokens_in=0 error_code="a b=c"\n'


# --- hostile content --------------------------------------------------------------------------------------------------


class Untellable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "message",
    [
        "{} {0} {name} {extra[x]} %s %(x)s",
        "<red>no markup</red>",
        'one\ntwo\r\nthree\n{"level": "INFO"}\n',
        "".join(STEERING),
        "\ud800 lone \udfff",
        "\\" * 5 + '"' * 5,
        "",
    ],
    ids=lambda message: repr(message[:12]),
)
def test_no_message_leaves_its_line(configure: Any, ours: Any, format: str, message: str) -> None:
    configure(format=format, fields=("message", "user_id"))
    ours.bind(user_id=message).info(message)
    ours.bind(user_id=message).info("{}", message)
    raw = LOG.read_bytes().decode("utf-8")
    assert raw.count("\n") == 2
    assert not any(character in raw for character in STEERING)
    if format == "json":
        assert records() == [{"message": message, "user_id": message}] * 2


def test_a_megabyte_is_a_line(configure: Any, ours: Any) -> None:
    configure(fields=("message",))
    ours.info("\n" * 1_000_000)
    assert records() == [{"message": "\n" * 1_000_000}]


def test_a_value_that_cannot_be_told_is_its_class(configure: Any, ours: Any) -> None:
    configure(fields=("user_id", "message"))
    ours.bind(user_id=Untellable()).info("hello")
    assert records() == [{"user_id": "<Untellable>", "message": "hello"}]


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_one_line_of_utf8(text: str) -> None:
    for line in (as_json({"message": text, "x": text}), as_text({"message": text, "x": text})):
        decoded = line.decode("utf-8")
        assert decoded.endswith("\n")
        assert len(decoded.splitlines()) == 1
        assert all(character not in decoded for character in STEERING)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert json.loads(as_json({"message": text})) == {"message": text}
