"""The list of the checks, and how one is run: alone, in a thread that is left behind when its time is up."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import URL

from mirai_memory import _checks
from mirai_memory.config import Settings
from mirai_memory.errors import ConfigurationError, MiraiMemoryError
from mirai_memory.health import backups, contents, place, storage, surroundings
from mirai_memory.health.probe import PATIENCE, Probe
from mirai_memory.health.report import Check, Finding, Health, Skip, Unfinished, error, warning

if TYPE_CHECKING:
    from mirai_memory.manager import MemoryManager

TIMEOUT_S = 10.0
_A_MOMENT = 0.05  # between two attempts to stop a statement


@dataclass(frozen=True, slots=True)
class Step:
    """A check: its name, what it does, and the checks without which it would only repeat what they said."""

    name: str
    look: Callable[[Probe], Finding]
    needs: tuple[str, ...] = ()


# The names are a promise: programs look for them.
STEPS: tuple[Step, ...] = (
    Step("python", surroundings.python),
    Step("package", surroundings.package),
    Step("settings", surroundings.settings),
    Step("api_key", surroundings.api_key, ("settings",)),
    Step("embedder", surroundings.embedder, ("settings",)),
    Step("log_file", surroundings.log_file, ("settings",)),
    Step("database", storage.database, ("settings",)),
    Step("engine", storage.engine, ("settings",)),
    Step("schema", storage.schema_revision, ("database",)),
    Step("writing", storage.writing, ("schema",)),
    Step("integrity", storage.integrity, ("schema",)),
    Step("word_index", contents.word_index, ("schema",)),
    Step("vectors", contents.vectors, ("schema",)),
    Step("contents", contents.counts, ("schema",)),
    Step("connections", storage.connections, ("database",)),
    Step("clock", storage.clock, ("database",)),
    Step("tables", storage.tables, ("schema",)),
    Step("disk", place.disk, ("settings",)),
    Step("permissions", place.permissions, ("settings",)),
    Step("backups", backups.backups, ("settings",)),
)


def check_health(
    settings: Settings | None = None,
    url: str | os.PathLike[str] | URL | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    manager: MemoryManager | None = None,
    timeout_s: float = TIMEOUT_S,
    steps: Sequence[Step] = STEPS,
) -> Health:
    """Look at everything a memory needs, and at the memory itself; whatever is wrong is told, never raised.

    Without ``settings`` they are loaded, from the file ``config`` if one is named. ``url`` is as in ``MemoryManager``;
    with ``manager``, its settings and its database. No check takes longer than ``timeout_s``. Nothing is made or
    changed: a missing database stays missing, an older one is not upgraded.
    """
    limit = _checks.number("timeout_s", timeout_s, least=0.001, most=86_400)
    probe = Probe(settings, url, config, manager, limit)
    checks = []
    try:
        for step in steps:
            checks.append(_checked(step, probe))
            probe.statuses[step.name] = checks[-1].status
    finally:
        probe.close()
    return Health(all(check.status != "error" for check in checks), tuple(checks))


def _checked(step: Step, probe: Probe) -> Check:
    started = time.perf_counter()
    finding = _answer(step, probe)
    return Check(step.name, finding.status, finding.detail, finding.advice, round(time.perf_counter() - started, 6))


def _answer(step: Step, probe: Probe) -> Finding:
    """What the check says within its time; its thread keeps nothing from ending, the process included."""
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    thread = threading.Thread(
        target=lambda: answers.put(_finding(step, probe)), name=f"mirai-memory-health-{step.name}", daemon=True
    )
    deadline = time.monotonic() + probe.timeout_s
    pause = PATIENCE * probe.timeout_s
    try:
        thread.start()
    except RuntimeError:  # the system gives no more threads
        return error("no thread could be started for it", "end programs, or raise the limit of threads")
    while True:
        try:
            return answers.get(timeout=max(0.0, pause))
        except queue.Empty:
            # More than once: between two statements there is nothing to stop.
            probe.interrupt(thread.ident)
        left = deadline - time.monotonic()
        if left <= 0:
            return error(f"did not answer within {probe.timeout_s:g} s", "look for what it waits for: a disk, a server")
        pause = min(_A_MOMENT, left)


def _finding(step: Step, probe: Probe) -> Finding:
    try:
        probe.require(*step.needs)
        return step.look(probe)
    except Skip as reason:
        return Finding("skipped", str(reason))
    except Unfinished:
        advice = f"give it more time: {probe.command('health --timeout 600')}"
        return warning(f"not finished within {probe.timeout_s:g} s", advice)
    except ConfigurationError as fault:
        return error(str(fault), "correct it where it stands; mirai-memory config check lists every fault")
    except MiraiMemoryError as fault:
        # Our messages say what is wrong, then what to do.
        detail, _, advice = str(fault).partition("; ")
        return error(detail, advice or "correct that, and look again")
    except OSError as fault:
        return error(fault.strerror or type(fault).__name__, "correct that, and look again")
    except BaseException as fault:
        # Its text may hold anything, a password included.
        return error(f"the check itself failed: {type(fault).__name__}", "report it as a fault of mirai-memory")
