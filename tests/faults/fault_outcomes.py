"""A pytest plugin: which tests passed and which failed by what, as JSON in the file that FAULT_OUTCOMES names.

Each case comes with the engines that it ran on: those that its parameters or fixtures name, else those on which
SQLAlchemy has had a connection. Where tests are only collected, they come with the engines that they name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import ENGINES, is_expected, is_of

_DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres"}
_outcomes: list[dict[str, Any]] = []
_connected: set[str] = set()  # the engines of the case that runs
_failed: set[tuple[str, tuple[str, ...]]] = set()  # a test as it was named, and the engines of the case that failed


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is proved by a test of an installed package: the one beside the tests has to be imported."""
    import mirai_memory

    imported = Path(mirai_memory.__file__).resolve()
    if not imported.is_relative_to(config.rootpath.resolve()):
        raise pytest.UsageError(f"{imported} is imported, which does not stand in {config.rootpath}")
    from sqlalchemy import Engine, event

    event.listen(Engine, "engine_connect", lambda connection: _connected.add(_DIALECTS[connection.dialect.name]))


def pytest_sessionstart() -> None:
    """The first failure says enough: to look for a smaller one takes minutes."""
    if "hypothesis" in sys.modules:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("fault", settings(), phases=phases, derandomize=True, report_multiple_bugs=False)
        settings.load_profile("fault")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        _outcomes.extend({"test": item.nodeid, "engines": _named_engines(item)} for item in session.items)


def _named_engines(item: pytest.Item) -> tuple[str, ...]:
    """What a parameter says is closer than what fixtures say, which may serve the other cases."""
    values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    given = {value for value in values if isinstance(value, str)}
    words = {word for name in getattr(item, "fixturenames", ()) for word in name.split("_")}
    return tuple(e for e in ENGINES if e in given) or tuple(e for e in ENGINES if e in words)


def _keys(item: pytest.Item) -> list[tuple[str, tuple[str, ...]]]:
    engines = _named_engines(item)
    return [(test, engines) for test in item.config.args if is_of(item.nodeid, test)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """What has failed as it should on an engine need not fail there again with other parameters, for minutes maybe."""
    _connected.clear()
    keys = _keys(item)
    return True if keys and _failed.issuperset(keys) else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Looks on only: what it returns, nothing, leaves the report to pytest."""
    error = None if call.excinfo is None else call.excinfo.value
    if call.when == "call" or error is not None:
        causes = [] if error is None else [_names(leaf) for leaf in _leaves(error)]
        engines = _named_engines(item) or sorted(_connected)
        _outcomes.append({"test": item.nodeid, "when": call.when, "errors": causes, "engines": engines})
        if causes and call.when == "call" and is_expected(causes, os.environ.get("FAULT_ERRORS", "").split()):
            _failed.update(_keys(item))


def pytest_sessionfinish() -> None:
    Path(os.environ["FAULT_OUTCOMES"]).write_text(json.dumps(_outcomes), "utf-8")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Hypothesis raises a group where a test fails in several ways."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _names(error: BaseException) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
