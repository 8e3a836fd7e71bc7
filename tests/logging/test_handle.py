"""What ``configure_logging`` changes of the host's logger, and that it changes it back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from mirai_memory.model_calls import model_call


def call(model: str) -> None:
    """A record from a module of ours, which loguru's switch decides upon."""
    with model_call(model):
        pass


def logged(path: str = "mirai.log") -> int:
    return Path(path).read_text().count("\n")


def test_nothing_is_logged_until_somebody_asks(host: list[str]) -> None:
    call("m")
    assert host == []


def test_the_hosts_sinks_stay_and_hear_us_while_a_log_is_open(configure: Any, host: list[str]) -> None:
    handle = configure()
    logger.info("the host's")
    call("m")
    handle.remove()
    logger.info("the host's again")
    call("m")
    assert host == ["the host's", "model call", "the host's again"]
    assert logged() == 1


def test_a_namespace_that_was_enabled_stays_enabled(configure: Any, host: list[str]) -> None:
    logger.enable("mirai_memory")
    configure().remove()
    call("m")
    assert host == ["model call"]


def test_remove_can_be_said_twice_and_after_the_host_has_removed_everything(configure: Any) -> None:
    handle = configure()
    logger.remove()
    handle.remove()
    handle.remove()
    configure().remove()


def test_a_handle_closes_at_the_end_of_its_block(configure: Any, host: list[str]) -> None:
    with configure() as handle:
        call("m")
    call("m")
    assert (logged(), host) == (1, ["model call"])
    assert handle.path == Path("mirai.log").absolute()


def test_two_logs_each_have_every_line_until_they_are_removed(configure: Any, host: list[str]) -> None:
    first, second = configure(path=Path("a.log")), configure(path=Path("b.log"))
    call("m")
    first.remove()
    call("m")
    second.remove()
    call("m")
    assert (logged("a.log"), logged("b.log"), len(host)) == (1, 2, 2)


def test_a_log_configured_again_has_each_line_once(configure: Any, monkeypatch: Any, tmp_path: Path) -> None:
    first = configure()
    second = configure(path=tmp_path / "." / "mirai.log", fields=("model",))
    monkeypatch.chdir("/")
    call("m")
    first.remove()  # its place is taken: nothing happens
    call("n")
    assert (tmp_path / "mirai.log").read_text().splitlines()[-2:] == ['{"model": "m"}', '{"model": "n"}']
    assert logged(str(tmp_path / "mirai.log")) == 2
    second.remove()
    call("m")
    assert logged(str(tmp_path / "mirai.log")) == 2


def test_a_level_that_does_not_exist_changes_nothing(configure: Any, host: list[str]) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure(level="LOUD")
    call("m")
    assert host == []


def test_the_switch_is_asked_without_a_trace(configure: Any, host: list[str]) -> None:
    for _ in range(2):
        configure().remove()
        logger.enable("mirai_memory")
    assert host == []


def test_the_hosts_logger_can_still_be_handed_to_a_process(configure: Any) -> None:
    logger.remove()  # pytest's own capture cannot be pickled
    configure(fields=("message",))
    copy = pickle.loads(pickle.dumps(logger))  # noqa: S301 - our own
    copy.patch(lambda record: record.update(name="mirai_memory.x")).info("from afar")
    assert Path("mirai.log").read_text() == '{"message": "from afar"}\n'


def test_importing_loads_no_loguru_and_logging_no_pydantic() -> None:
    code = (
        "import sys, mirai_memory\n"
        "assert 'loguru' not in sys.modules\n"
        "import mirai_memory.model_calls\n"
        "assert 'loguru' in sys.modules and 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
