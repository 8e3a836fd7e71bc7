"""``logs summary``: a log as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner, Result

from mirai_memory.cli.app import app
from mirai_memory.model_calls import model_call


def summary(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["logs", "summary", *arguments])


def line(model: Any = "m", **fields: Any) -> str:
    return json.dumps({"model": model, "latency_ms": 1, **fields}) + "\n"


def write(name: str, *lines: str) -> None:
    Path(name).write_bytes("".join(lines).encode("utf-8", "surrogatepass"))


def test_calls_errors_tokens_and_latencies_of_each_model() -> None:
    calls = [line(latency_ms=number, tokens_in=2, tokens_out=3) for number in range(100, 0, -1)]
    write("a.log", *calls, line("other", error_code="429", latency_ms=None), line(None), line("other", latency_ms=7.5))
    result = summary("a.log", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "models": [
            {
                "model": "m",
                "calls": 100,
                "errors": 0,
                "tokens_in": 200,
                "tokens_out": 300,
                "latency_ms_p50": 50,
                "latency_ms_p95": 95,
            },
            {
                "model": "other",
                "calls": 2,
                "errors": 1,
                "tokens_in": 0,
                "tokens_out": 0,
                "latency_ms_p50": 7.5,
                "latency_ms_p95": 7.5,
            },
        ],
        "lines": 103,
        "bad_lines": 0,
    }


def test_the_table() -> None:
    write("a.log", line(latency_ms=None), line("\x1b[2Jnasty\nname"))
    result = summary("a.log")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "model           calls  errors  tokens in  tokens out  p50 ms  p95 ms"
    assert "m" in result.stdout
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "{",
        "[1]",
        "12",
        "null",
        "",
        '{"model": 7}',
        "[" * 100_000,
        "1" * 10_000,
        "\udc80\udcff",
        '{"model": "m", "tokens_in": ' + "9" * 5000 + "}",
    ],
    ids=lambda bad: repr(bad[:12]),
)
def test_bad_lines_are_counted_and_the_rest_is_read(bad: str) -> None:
    write("a.log", line(), bad + "\n", line())
    result = summary("a.log", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["lines"], found["bad_lines"], found["models"][0]["calls"]) == (3, 1, 2)
    assert result.stderr == "mirai-memory: 1 of 3 lines are no records and were left out\n"


def test_values_of_the_wrong_kind_do_not_count() -> None:
    write("a.log", '{"model": "m", "tokens_in": "12", "tokens_out": -1, "latency_ms": NaN}\n', line(latency_ms=True))
    (model,) = json.loads(summary("a.log", "--json").stdout)["models"]
    assert list(model.values()) == ["m", 2, 0, 0, 0, None, None]


def test_rotated_files_are_read_when_asked_for() -> None:
    write("a.log", line())
    write("a.log.1", line())
    write("a.log.10", line())
    for name in ("a.log.lock", "a.log.1.gz", "b.log.1", "a.log."):
        write(name, line("not this"))
    assert json.loads(summary("a.log", "--json").stdout)["models"][0]["calls"] == 1
    assert json.loads(summary("a.log", "--json", "--rotated").stdout)["models"][0]["calls"] == 3
    Path("a.log").unlink()  # just rotated
    assert json.loads(summary("a.log", "--json", "--rotated").stdout)["models"][0]["calls"] == 2


@pytest.mark.parametrize("options", [[], ["--rotated"], ["--json"]])
@pytest.mark.parametrize("name", ["missing.log", "missing/missing.log", "."])
def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_1(name: str, options: list[str]) -> None:
    result = summary(name, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"mirai-memory: error: {name}: ")
    assert result.stderr.count("\n") == 1


def test_a_log_without_model_calls_is_fine() -> None:
    write("a.log", line(None))
    result = summary("a.log")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no model calls" in result.stderr


def test_what_the_helper_logs_is_what_the_summary_reads(configure: Any) -> None:
    configure()
    for tokens in (1, 2, 3):
        with model_call("gpt-4o-mini") as call:
            call.tokens_in = tokens
    with pytest.raises(KeyError), model_call("gpt-4o-mini"):
        raise KeyError
    (model,) = json.loads(summary("mirai.log", "--json").stdout)["models"]
    assert (model["calls"], model["errors"], model["tokens_in"]) == (4, 1, 6)
    assert 0 <= model["latency_ms_p50"] <= model["latency_ms_p95"]
