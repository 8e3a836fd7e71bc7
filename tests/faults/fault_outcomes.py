"""A pytest plugin: which tests passed and which failed by what, as JSON in the file that FAULT_OUTCOMES names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_outcomes: list[dict[str, Any]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is proved by a test of an installed package: the one beside the tests has to be imported."""
    import mirai_memory

    imported = Path(mirai_memory.__file__).resolve()
    if not imported.is_relative_to(config.rootpath.resolve()):
        raise pytest.UsageError(f"{imported} is imported, which does not stand in {config.rootpath}")


def pytest_sessionstart() -> None:
    """The first failure says enough: to look for a smaller one takes minutes."""
    if "hypothesis" in sys.modules:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("fault", settings(), phases=phases, derandomize=True, report_multiple_bugs=False)
        settings.load_profile("fault")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Looks on only: what it returns, nothing, leaves the report to pytest."""
    error = None if call.excinfo is None else call.excinfo.value
    if call.when == "call" or error is not None:
        causes = [] if error is None else [_names(leaf) for leaf in _leaves(error)]
        _outcomes.append({"test": item.nodeid, "when": call.when, "errors": causes})


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
