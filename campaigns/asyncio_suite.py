"""The campaign `asyncio`: CPython's own tests of asyncio, each as a workflow.

Rules: a test is a run of the real engine on a real file, in virtual time. Its history is replayed
and has to give the same outcome. Every test that does not pass is in `asyncio_table` with a reason;
the campaign fails for any other. The tests are those of this interpreter, unchanged.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import sys
import tempfile
import traceback
import unittest
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from campaigns.asyncio_loop import DrivenLoop, Driver, TimedLoop, in_test
from campaigns.asyncio_table import MODULES, TABLE, Kind, Row, fits
from campaigns.main import CannotBegin, Count
from perdure.api.definitions import workflow
from perdure.core import loop as core_loop
from perdure.errors import PerdureError
from perdure.testing import recording
from perdure.testing.crash import CrashHarness
from perdure.testing.invariants import InvariantViolated

PACKAGE = "test.test_asyncio"
PATIENCE_S = 1_000.0
"""How long a test may wait, in virtual time."""

_traces: dict[
    str, str
] = {}  # why a test has not passed, by its name; a run gives only that it has not


class NoTests(CannotBegin):
    """This interpreter came without its tests."""

    def __init__(self) -> None:
        super().__init__(
            f"This Python has no package {PACKAGE}, so there is nothing to run. Debian and "
            f"Ubuntu have it in libpython3-testsuite; "
            "python.org's installers, pyenv and uv bring it along."
        )


# --- one test -------------------------------------------------------------------------------------


class _Policy(asyncio.DefaultEventLoopPolicy):
    """The policy that gives a test the loop of its run."""

    def new_event_loop(self) -> Any:
        return DrivenLoop() if in_test() else super().new_event_loop()  # type: ignore[abstract]


class _AsyncioLog:
    """Perdure's logger puts the run before what it says; a test looks for it at
    asyncio's, without.
    """

    @staticmethod
    def error(text: str, *args: Any, exc_info: BaseException | None = None, **_: Any) -> None:
        found = exc_info and (type(exc_info), exc_info, exc_info.__traceback__)
        asyncio.base_events.logger.error((text % args).partition(": ")[2], exc_info=found)  # type: ignore[attr-defined]


@workflow(name="asyncio_test")
async def asyncio_test(name: str) -> str:
    """One test of CPython; returns its outcome."""
    return await DrivenLoop.drive(lambda: _outcome(name))


def _outcome(name: str) -> str:
    """Carry out a test in this thread."""
    result = unittest.TestResult()
    asyncio.set_event_loop_policy(_Policy())  # the test before may have set another
    try:
        unittest.defaultTestLoader.loadTestsFromName(name)(result)
    except BaseException:  # of the runner, where a test has taken what it stands on
        result.errors.append((unittest.TestCase(), traceback.format_exc()))
    bad = [text for _, text in result.errors + result.failures]
    bad += ["It passes, which CPython does not expect."] * len(result.unexpectedSuccesses)
    _traces[name] = "\n".join(bad) or "".join(reason for _, reason in result.skipped[:1])
    return "failed" if bad else "skipped" if result.skipped else "passed"


@contextmanager
def _in_place() -> Iterator[None]:
    """While tests run, what they call makes the loops of their runs, and what they look for is
    where they look.
    """
    with ExitStack() as stack:
        for owner, attribute, value in _places():
            stack.enter_context(mock.patch.object(owner, attribute, value))
        stack.callback(asyncio.set_event_loop_policy, None)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(Driver.drop_all)
        yield


def _places() -> Iterator[tuple[Any, str, Any]]:
    """What tests use to make a loop without asking the policy, and where they look for what is
    logged.
    """
    for module in (asyncio, asyncio.base_events):
        for name in ("BaseEventLoop", "SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                yield module, name, DrivenLoop
    yield importlib.import_module(f"{PACKAGE}.utils"), "TestLoop", TimedLoop
    yield core_loop, "log", _AsyncioLog


# --- a module -------------------------------------------------------------------------------------


@dataclass
class Report:
    """What became of the tests of one module: by name, what it came to and why."""

    module: str
    found: dict[str, tuple[Kind, str]] = field(default_factory=dict)

    def count(self, kind: Kind) -> int:
        """How many tests came to this."""
        return sum(one is kind for one, _ in self.found.values())


def conform(module: str) -> Report:
    """Run a module of CPython's tests, such as "test_locks". Raises `NoTests`."""
    names = names_of(module)
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder, _in_place():
        harness = CrashHarness(Path(folder) / "tests.db")
        outcomes = harness.run(
            _execute(harness, [name for name in names if (row := _row_of(name)) is None or row.run])
        )
        for one in recording.recordings(harness.path):
            name = f"{PACKAGE}.{one.id}"
            if outcomes[name] != "lost":
                outcomes[name] = _again(one, name, outcomes[name])
    return Report(
        module,
        {
            name.removeprefix(f"{PACKAGE}."): _judged(name, outcomes.get(name, "not run"))
            for name in names
        },
    )


def has_tests() -> bool:
    """Whether this interpreter has its tests with it."""
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        return False


def names_of(module: str) -> list[str]:
    """The tests of a module, by their whole names. Raises `NoTests`."""
    if not has_tests():
        raise NoTests
    if importlib.util.find_spec(f"{PACKAGE}.{module}") is None:
        return []  # another version has it
    _add_our_classes(importlib.import_module(f"{PACKAGE}.{module}"))
    return sorted(_walk(unittest.defaultTestLoader.loadTestsFromName(f"{PACKAGE}.{module}")))


def _walk(suite: Any) -> Iterator[str]:
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from _walk(one)
        else:
            yield one.id()


def _add_our_classes(module: Any) -> None:
    """CPython tries its tests on its own classes of tasks and futures, in Python and in C; the same
    on those of a run's loop.
    """
    for name in ("CTask_CFuture_Tests", "CFutureTests", "CEagerTaskFactoryLoopTests"):
        base, ours = getattr(module, name, None), name.replace("C", "Our")
        if (
            getattr(base, "cls", None) is not asyncio.Task
            and base is not None
            and not hasattr(module, ours)
        ):
            members = {
                "Task": core_loop.Task,
                "Future": core_loop.Future,
                "cls": core_loop.Future,
                "__module__": module.__name__,
            }
            setattr(module, ours, type(ours, (base,), members))


async def _execute(harness: CrashHarness, names: Iterable[str]) -> dict[str, str]:
    """Each test as a run, one after the other."""
    found = {}
    async with harness.engine(workflows=[asyncio_test]) as engine:
        for name in names:
            run = await engine.start(asyncio_test(name), id=name.removeprefix(f"{PACKAGE}."))
            try:
                found[name] = await run.result(timeout=PATIENCE_S)
            except (TimeoutError, PerdureError) as error:
                Driver.drop_all()
                found[name], _traces[name] = "lost", f"{type(error).__name__}: {error}"
    return found


def _again(record: recording.Recording, name: str, outcome: str) -> str:
    """Replay a test that has ended; its history records its outcome, so that another one is a
    difference.
    """
    trace = _traces[name]
    try:
        recording.replay_recorded(record, [asyncio_test])
    except InvariantViolated as error:
        Driver.drop_all()
        outcome, trace = "replays otherwise", f"{error}\n{trace}\nand on replay\n{_traces[name]}"
    _traces[name] = trace
    return outcome


def _judged(name: str, outcome: str) -> tuple[Kind, str]:
    """What a test comes to, with the reason."""
    trace = _traces.get(name, "")
    if outcome == "passed":
        return Kind.PASSED, ""
    if outcome == "skipped":
        return Kind.NOT_APPLICABLE, f"CPython skips it: {trace}"
    row = _row_of(name)
    if row is None or (
        row.kind is Kind.REFUSED and not ("NotDeterministic" in trace or "RefusalIgnored" in trace)
    ):
        return Kind.UNEXPECTED, f"{outcome}\n{trace}"
    return row.kind, row.reason


def _row_of(name: str) -> Row | None:
    return next((row for row in TABLE if row.matches(name.removeprefix(f"{PACKAGE}."))), None)


# --- the campaign ---------------------------------------------------------------------------------


def asyncio_tests(seeds: range) -> Iterator[Count]:
    """CPython's own tests of asyncio, each as a workflow, and replayed; once, whatever
    the seeds.
    """
    reports = []
    with (
        mock.patch.object(logging, "lastResort", None),
        mock.patch.object(logging.getLogger("perdure"), "disabled", True),
    ):
        for module in MODULES:
            reports.append(conform(module))
            for name, (kind, reason) in reports[-1].found.items():
                yield Count(name, checks=2, broken=reason if kind is Kind.UNEXPECTED else None)
    for line in lines(reports):
        yield Count("asyncio", trials=0, note=line)


def lines(reports: Iterable[Report]) -> Iterator[str]:
    """A table with a line for each module, and what the table of reasons says although it is no
    longer so.
    """
    done = [report for report in reports if report.found]
    row = "{:24}" + "{:>19}" * len(Kind)
    yield f"Python {sys.version.split()[0]}"
    yield row.format("module", *Kind)
    for report in done:
        yield row.format(report.module, *(report.count(kind) for kind in Kind))
    yield row.format("all", *(sum(report.count(kind) for report in done) for kind in Kind))
    yield from (f"passes by now, and is in the table: {pattern}" for pattern in outdated(done))


def outdated(reports: Iterable[Report]) -> list[str]:
    """Patterns of the table whose tests have all passed."""
    found = {name: kind for report in reports for name, (kind, _) in report.found.items()}
    patterns = [pattern for row in TABLE for pattern in row.applicable()]
    return [
        one
        for one in patterns
        if {kind for name, kind in found.items() if fits(name, one)} == {Kind.PASSED}
    ]
