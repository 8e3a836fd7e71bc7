"""Show that every promise's tests can fail: each deliberate fault, put into a copy, must fail the tests it names.

    python tests/faults/run.py [--only NAME]... [--list] [--stale] [--check]

The named tests first run in a copy without a fault, where they must pass. Then every fault has a copy of its own. It is
caught when each test it names fails there by an assertion or by one of the package's errors, on each engine on which it
is a fault: one of the cases of a test on SQLite, and one of those on PostgreSQL. A test that cannot be collected, set
up or ended proves nothing. One that is not caught makes the exit code 1. ``--stale`` and ``--check`` run no test.
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

from faults import ROOT, Case, Fault, apply, is_expected, is_of, load, problems, stale

JOBS = 2
PARTS = 8  # into which the run of all tests is cut: some files take minutes
LONGEST = 180.0  # seconds for the tests of one fault
CONTROL = 900.0  # and for all of them without one
MOST = 4_000  # characters of what pytest said of a fault that was not caught

Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What pytest did: an outcome for each test that ran, or None where it did not come to its end."""

    outcomes: list[Outcome] | None
    output: str
    seconds: float

    def of(self, test: str) -> list[Outcome]:
        """All cases of a test, or the one case that is named."""
        return [one for one in self.outcomes or () if is_of(one["test"], test)]


@dataclass(frozen=True, slots=True)
class Sound:
    """Where there is no fault: all cases, the tests that pass, the engines that cases ran on, and pytest's words."""

    cases: list[Case]
    passing: set[str]
    engines: dict[str, set[str]]
    output: str


def verdict(fault: Fault, run: Run, engines: dict[str, set[str]]) -> str:
    """``caught``, or why not; ``engines`` are those on which the cases run where there is no fault."""
    if run.outcomes is None:
        return "the tests did not end, or pytest failed"
    for test in fault.tests:
        if not run.of(test):
            return f"not run: {test}"
        for engine in _engines_of(test, fault, engines):
            on_it = [one for one in run.of(test) if engine is None or engine in engines.get(one["test"], ())]
            where = f"{test} on {engine}" if engine else test
            failed = [one for one in on_it if one["errors"]]
            if not failed:
                return f"survived: {where}" if on_it else f"not run: {where}"
            if not any(one["when"] == "call" and is_expected(one["errors"], fault.errors) for one in failed):
                return f"failed in {failed[0]['when']} by {failed[0]['errors'][0][0]}: {where}"
    return "caught"


def _engines_of(test: str, fault: Fault, engines: dict[str, set[str]]) -> list[str | None]:
    """Those of the fault's on which the test runs; None where it runs on none of them, and just has to fail."""
    used = {engine for case, on in engines.items() if is_of(case, test) for engine in on}
    return [engine for engine in fault.engines if engine in used] or [None]


def copy_tree(source: Path, target: Path, *without: str) -> Path:
    """The sources and the tests; what is hidden, made or installed stays behind."""
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "data", *without)
    shutil.copytree(source, target, ignore=ignored, symlinks=True)
    return target


def pytest(
    tree: Path, tests: Sequence[str], *options: str, report: Path, timeout: float, errors: Sequence[str] = ()
) -> Run:
    """Run the tests in a tree, which is what they import; ``report`` is where what they leave goes."""
    outcomes, started = report.with_name(f"{report.name}.json"), time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-n", "0", "-p", "fault_outcomes"]
    command += ["-p", "no:cacheprovider", f"--basetemp={report.with_name(f'{report.name}.tmp')}", *options, *tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # see run_all
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tree, tree / "tests" / "faults")))
    environment |= {"FAULT_OUTCOMES": str(outcomes), "FAULT_ERRORS": " ".join(errors)}
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


def named(faults: Sequence[Fault]) -> list[str]:
    return sorted({test for fault in faults for test in fault.tests})


def collected(faults: Sequence[Fault], tree: Path, place: Path) -> list[Case]:
    """All cases of the files of the named tests: where one test is not found, pytest would collect none."""
    files = sorted(
        {_file(test) for test in named(faults)} & {str(p.relative_to(tree)) for p in tree.glob("tests/**/*.py")}
    )
    run = pytest(tree, files, "--collect-only", report=place / "collected", timeout=CONTROL)
    return [Case(one["test"], tuple(one["engines"])) for one in run.outcomes or ()]


def sound_tests(faults: Sequence[Fault], tree: Path) -> Sound:
    """The named tests where there is no fault."""
    cases = collected(faults, tree, tree.parent)
    tests = [test for test in named(faults) if any(is_of(case.test, test) for case in cases)]
    # Cut by their files: fixtures of a module are made once.
    files = sorted({_file(test) for test in tests})
    parts = [[test for test in tests if files.index(_file(test)) % PARTS == part] for part in range(PARTS)]
    with ThreadPoolExecutor(JOBS) as pool:
        runs = [
            pool.submit(pytest, tree, part, report=tree.with_name(f"sound-{number}"), timeout=CONTROL)
            for number, part in enumerate(parts)
            if part
        ]
        done = [run.result() for run in runs]
    passing = {test for test in tests for run in done if run.of(test) and not any(o["errors"] for o in run.of(test))}
    engines = {one["test"]: set(one["engines"]) for run in done for one in run.outcomes or ()}
    return Sound(cases, passing, engines, "\n".join(run.output for run in done))


def _file(test: str) -> str:
    return test.partition("::")[0]


def unfit(fault: Fault, tree: Path, sound: Sound) -> list[str]:
    """Why there is no use in trying the fault."""
    wrong = problems(fault, tree, sound.cases)
    if wrong:
        return wrong
    failing = [test for test in fault.tests if test not in sound.passing]
    used = {engine for case, on in sound.engines.items() if any(is_of(case, t) for t in fault.tests) for engine in on}
    missing = [engine for engine in fault.engines if engine not in used]
    return [f"fails without the fault: {test}" for test in failing] or [f"not run on {engine}" for engine in missing]


def try_out(fault: Fault, tree: Path, sound: Sound) -> tuple[str, Run]:
    """The verdict on a fault, and the run of its tests on a copy of the tree that has it."""
    wrong = unfit(fault, tree, sound)
    if wrong:
        return "; ".join(wrong), Run(None, "", 0.0)
    faulty = copy_tree(tree, tree.with_name(fault.name))
    apply(fault, faulty)
    report = faulty.with_name(f"{fault.name}-run")
    run = pytest(faulty, fault.tests, report=report, timeout=LONGEST, errors=fault.errors)
    shutil.rmtree(faulty, ignore_errors=True)
    return verdict(fault, run, sound.engines), run


@contextmanager
def server() -> Iterator[None]:
    """One PostgreSQL server for all runs, where the tests would else start one each (tests/conftest.py)."""
    beside = ROOT / "tests"
    if "MIRAI_TEST_PG_URL" in os.environ or not (beside / "own_server.py").exists():
        yield
        return
    sys.path.append(str(beside))
    from own_server import own_server

    with own_server() as own:
        os.environ["MIRAI_TEST_PG_URL"] = own.url
        try:
            yield
        finally:
            del os.environ["MIRAI_TEST_PG_URL"]


def say(wrong: Sequence[str]) -> int:
    """Print what is wrong, and tell it by the exit code."""
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def check_edits(faults: Sequence[Fault]) -> int:
    """Say which faults do not fit the sources; 1 if there are any."""
    return say([f"{fault.name}: {problem}" for fault in faults for problem in stale(fault, ROOT)])


def check(faults: Sequence[Fault]) -> int:
    """That, and which name a test that there is not, or none for an engine on which they have to be caught."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        cases = collected(faults, ROOT, Path(name))
    return say([f"{fault.name}: {problem}" for fault in faults for problem in problems(fault, ROOT, cases)])


def run_all(faults: Sequence[Fault]) -> int:
    """A line for each fault as it is tried; 1 unless every one is caught."""
    caught = 0
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name, server():
        # Compiled by the first run, and copied so: to compile everything takes longer than most of the tests.
        tree = copy_tree(ROOT, Path(name) / "sound", "__pycache__")
        sound = sound_tests(faults, tree)
        with ThreadPoolExecutor(JOBS) as pool:
            results = pool.map(lambda fault: try_out(fault, tree, sound), faults)
            for fault, (said, run) in zip(faults, results, strict=True):
                caught += said == "caught"
                print(f"{said}  {fault.promise}  {fault.name}  {run.seconds:.1f} s", flush=True)
                if said != "caught":
                    print(f"    {fault.what}", *run.output[-MOST:].splitlines(), sep="\n    ", flush=True)
    if not sound.passing.issuperset(named(faults)):
        print(sound.output)
    print(f"{caught} of {len(faults)} faults are caught")
    return 0 if caught == len(faults) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="one fault; may be given again")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--stale", action="store_true", help="say which faults do not fit the sources, and run nothing")
    parser.add_argument("--check", action="store_true", help="--stale, and which do not fit the tests they name")
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
    if arguments.stale:
        return check_edits(faults)
    return check(faults) if arguments.check else run_all(faults)


if __name__ == "__main__":
    sys.exit(main())
