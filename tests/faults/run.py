"""Show that every promise's tests can fail: each deliberate fault, put into a copy, must fail the tests it names.

    python tests/faults/run.py [--only NAME]... [--list] [--check]

The named tests first run in a copy without a fault, where they must pass. Then every fault has a copy of its own. It is
caught when each test it names fails there by an assertion or by one of the package's errors; a test that cannot be
collected, set up or ended proves nothing. One that is not caught makes the exit code 1. ``--check`` runs no test and
only says which faults no longer fit the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import ROOT, Fault, apply, load, problems

JOBS = 2
LONGEST = 180.0  # seconds for the tests of one fault
CONTROL = 900.0  # and for all of them without one
MOST = 4_000  # characters of what pytest said of a fault that was not caught
# A failed assertion, pytest.raises that saw nothing, and what the package itself says.
EXPECTED = frozenset({"builtins.AssertionError", "builtins.Failed", "mirai_memory.errors.MiraiMemoryError"})

Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What pytest did: an outcome for each test that ran, or None where it did not come to its end."""

    outcomes: list[Outcome] | None
    output: str
    seconds: float

    def of(self, test: str) -> list[Outcome]:
        """All cases of a test, or the one case that is named."""
        return [one for one in self.outcomes or () if one["test"] == test or one["test"].startswith(f"{test}[")]


def verdict(fault: Fault, run: Run) -> str:
    """``caught``, or why not."""
    if run.outcomes is None:
        return "the tests did not end, or pytest failed"
    expected = EXPECTED | {fault.error}
    for test in fault.tests:
        outcomes = run.of(test)
        if not outcomes:
            return f"not run: {test}"
        failed = [one for one in outcomes if one["errors"]]
        if not failed:
            return f"survived: {test}"
        if not any(one["when"] == "call" and _is_expected(one, expected) for one in failed):
            return f"failed in {failed[0]['when']} by {failed[0]['errors'][0][0]}: {test}"
    return "caught"


def _is_expected(outcome: Outcome, expected: frozenset[str | None]) -> bool:
    return all(not expected.isdisjoint(names) for names in outcome["errors"])


def copy_tree(source: Path, target: Path, *without: str) -> Path:
    """The sources and the tests; what is hidden, made or installed stays behind."""
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "data", *without)
    shutil.copytree(source, target, ignore=ignored, symlinks=True)
    return target


def pytest(tree: Path, tests: Sequence[str], *options: str, report: str, timeout: float) -> Run:
    """Run the tests in a copy of the tree, which is what they import."""
    outcomes, started = tree.with_name(f"{report}.json"), time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-n", "0", "-p", "fault_outcomes"]
    command += ["-p", "no:cacheprovider", f"--basetemp={tree.with_name(f'{report}.tmp')}", *options, *tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tree, tree / "tests" / "faults")))
    environment["FAULT_OUTCOMES"] = str(outcomes)
    output = _output(command, tree, environment, timeout)
    found = json.loads(outcomes.read_text("utf-8")) if outcomes.exists() else None
    return Run(found, output, time.monotonic() - started)


def _output(command: list[str], folder: Path, environment: dict[str, str], timeout: float) -> str:
    # A session of its own, which ends with it: processes that a hanging test has started too.
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=timeout)[0]
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"{process.communicate()[0]}\nnot at an end after {timeout:g} s"
            raise


def sound_tests(faults: Sequence[Fault], tree: Path) -> tuple[set[str], str]:
    """The named tests that pass where there is no fault, and what pytest said of all of them."""
    tests = sorted({test for fault in faults for test in fault.tests})
    # Halved by their files: fixtures of a module are made once.
    files = sorted({_file(test) for test in tests})
    halves = [[test for test in tests if files.index(_file(test)) % JOBS == part] for part in range(JOBS)]
    with ThreadPoolExecutor(JOBS) as pool:
        runs = [
            pool.submit(pytest, tree, half, report=f"sound-{part}", timeout=CONTROL)
            for part, half in enumerate(halves)
            if half
        ]
        done = [run.result() for run in runs]
    passed = {test for test in tests for run in done if run.of(test) and not any(o["errors"] for o in run.of(test))}
    return passed, "\n".join(run.output for run in done)


def _file(test: str) -> str:
    return test.partition("::")[0]


def try_out(fault: Fault, sound: Path, passing: set[str]) -> tuple[str, Run]:
    """The verdict on a fault, and the run of its tests on a copy of the tree that has it."""
    wrong = problems(fault, sound)
    wrong += [f"fails without the fault: {test}" for test in fault.tests if test not in passing and not wrong]
    if wrong:
        return "; ".join(wrong), Run(None, "", 0.0)
    tree = copy_tree(sound, sound.with_name(fault.name))
    apply(fault, tree)
    only_one = ["-x"] if len(fault.tests) == 1 else []
    run = pytest(tree, fault.tests, *only_one, report=fault.name, timeout=LONGEST)
    shutil.rmtree(tree, ignore_errors=True)
    return verdict(fault, run), run


@contextmanager
def server() -> Iterator[None]:
    """One PostgreSQL server for all runs, where the tests would else start one each (tests/conftest.py)."""
    script = ROOT / "tests" / "embedded_server.py"
    if "MIRAI_TEST_PG_URL" in os.environ or not script.exists():
        yield
        return
    pipe = subprocess.PIPE
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            os.environ["MIRAI_TEST_PG_URL"] = process.stdout.readline().strip()
            yield
        finally:
            del os.environ["MIRAI_TEST_PG_URL"]
            process.communicate("stop\n")


def check(faults: Sequence[Fault]) -> int:
    """Say which faults do not fit the sources; 1 if there are any."""
    wrong = [f"{fault.name}: {problem}" for fault in faults for problem in problems(fault, ROOT)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def run_all(faults: Sequence[Fault]) -> int:
    """A line for each fault as it is tried; 1 unless every one is caught."""
    caught = 0
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name, server():
        # Compiled by the first run, and copied so: to compile everything takes longer than most of the tests.
        sound = copy_tree(ROOT, Path(name) / "sound", "__pycache__")
        passing, output = sound_tests([fault for fault in faults if not problems(fault, sound)], sound)
        with ThreadPoolExecutor(JOBS) as pool:
            results = pool.map(lambda fault: try_out(fault, sound, passing), faults)
            for fault, (said, run) in zip(faults, results, strict=True):
                caught += said == "caught"
                print(f"{said}  {fault.promise}  {fault.name}  {run.seconds:.1f} s", flush=True)
                if said != "caught":
                    print(f"    {fault.what}", *run.output[-MOST:].splitlines(), sep="\n    ", flush=True)
    if any(test not in passing for fault in faults for test in fault.tests):
        print(output)
    print(f"{caught} of {len(faults)} faults are caught")
    return 0 if caught == len(faults) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="one fault; may be given again")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--check", action="store_true", help="say which faults do not fit the sources, and run nothing")
    arguments = parser.parse_args()
    faults = load()
    unknown = set(arguments.only or ()) - {fault.name for fault in faults}
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; --list shows what there is")
    faults = [fault for fault in faults if not arguments.only or fault.name in arguments.only]
    if arguments.list:
        for fault in faults:
            print(f"{fault.promise}  {fault.name}: {fault.what}")
        return 0
    return check(faults) if arguments.check else run_all(faults)


if __name__ == "__main__":
    sys.exit(main())
