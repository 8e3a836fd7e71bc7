"""No setting of the suite's own reaches these tests: they are about settings."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, _bare_surroundings: None) -> None:
    for name in [name for name in os.environ if name.upper().startswith("MIRAI_")]:
        monkeypatch.delenv(name)
