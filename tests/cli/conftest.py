"""Commands log into a file of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def log_path(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    _bare_surroundings: None,
) -> Path:
    """Where commands log: outside of the working folder, which some tests list."""
    path = tmp_path_factory.mktemp("logs") / "mirai.log"
    # What those commands print is the settings themselves; and they log nothing.
    if request.path.name != "test_config_commands.py":
        monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(path))
    return path
