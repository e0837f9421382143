"""The power campaign: one workflow on a `Disk` that fails at a chosen write or sync.

Rules: after a power cut an engine on the healthy disk goes on, and all that was acknowledged before
is in the file; a step with effects has begun only if its row is in the file. After an error of the
disk the same engine goes on by itself, and a refused caller asks again. Every failure says how to
repeat it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from operator import eq
from typing import Any

import apsw
import msgspec

from campaigns.corpus import CASES, Case
from campaigns.faulty_disk import Disk, Fault
from campaigns.main import Count
from perdure.api.definitions import Workflow
from perdure.core import events as ev
from perdure.core.lifecycle import FINAL
from perdure.errors import PerdureError, RequestRefused, RunCancelled, RunFailed, StoreError
from perdure.store.sqlite import connection
from perdure.store.sqlite.queries import Q
from perdure.store.sqlite.reader import Reader
from perdure.testing import invariants
from perdure.testing.crash import CrashHarness, PowerLost
from perdure.testing.invariants import InvariantViolated
from perdure.testing.recording import Recording, recordings
from perdure.testing.survive import RUN_ID, Outcome, _Trial

EVERY = 20  # a seed tries every twentieth place: twenty seeds in a row try them all
ASK_AGAIN_S = 0.5
TIMES = 4  # writes or syncs that fail in a row
# Time has a say in the results of these, and a disk that fails takes time.
BY_THE_CLOCK = {
    "raced",
    "first_of",
    "as_they_come",
    "synchronized",
    "drawing",
    "refuses_to_be_cancelled",
    "several_listeners",
}
BY_THE_CLOCK |= {"barrier_and_condition", "waits_in_sets"}


def power(seeds: range) -> Iterator[Count]:
    """The corpus on a disk that loses its power, fails, is full or tears at every write and sync;
    20 seeds try all of them.
    """
    for seed in seeds:
        for case in CASES:
            yield from campaign(case, seed, EVERY)


def campaign(case: Case, seed: int, every: int, **options: Any) -> Iterator[Count]:
    """One case at each `every`-th of its places, of which the seed chooses the first."""
    trial = trial_of(case, seed, **options)
    try:
        places = trial.places()
    except Exception as error:
        yield Count(
            f"power with {case.name}, seed {seed}",
            broken=f"undisturbed: {type(error).__name__}: {error}",
        )
        return
    for fault in places[seed % every :: every]:
        found = Count(f"power with {case.name}, seed {seed}, {fault}", checks=1)
        try:
            found.crashes = int(trial.holds(fault) and (fault.kind == "power" or fault.then_power))
        except Exception as error:
            found.broken = f"{type(error).__name__}: {error}"
        yield found


def trial_of(case: Case, seed: int, **options: Any) -> PowerTrial:
    """A case of the corpus as something to try."""
    messages = [(channel, msgspec.json.decode(data)) for channel, data in case.messages]
    timeout = None if case.timeout_ms is None else case.timeout_ms / 1000
    definition = case.call.definition
    assert isinstance(definition, Workflow)
    options["by_the_clock"] = case.name in BY_THE_CLOCK
    return PowerTrial(
        case.call,
        [definition],
        messages,
        [(channel, msgspec.json.decode(data)) for channel, data in case.requests],
        0.03 if case.cancelled else None,
        timeout,
        None,
        None,
        eq,
        seed,
        **options,
    )


@dataclass
class PowerTrial(_Trial):
    """One call under one seed. `by_the_clock` says that a disk that fails for a while may change
    its result; `synchronous` is for the test that shows that the invariants can fail.
    """

    by_the_clock: bool = False
    synchronous: str | None = None
    acknowledged: list[str] = field(default_factory=list)
    writes: int = 0
    syncs: int = 0

    def places(self) -> list[Fault]:
        """Everything that can go wrong with the run, found by an undisturbed one."""
        with self._lives_on_disk() as (harness, disk):
            self.calm = harness.run(self._drive(harness))
            self.calm_replies = self.replies
            self.writes, self.syncs = disk.writes, disk.syncs
        found = [Fault("power", "write", n) for n in range(1, self.writes + 1)]
        found += [Fault("power", "sync", n) for n in range(1, self.syncs + 1)]
        for n in range(1, self.writes + 1):
            found += [
                Fault("ioerr", "write", n, TIMES),
                Fault("full", "write", n, TIMES),
                Fault("torn", "write", n),
            ]
            found += [Fault("torn", "write", n, then_power=True)]
        for n in range(1, self.syncs + 1):
            found += [Fault("ioerr", "sync", n, TIMES), Fault("ioerr", "sync", n, then_power=True)]
        return found

    def holds(self, fault: Fault) -> bool:
        """Whether the fault happened. Raises `InvariantViolated`."""
        with self._lives_on_disk() as (harness, disk):
            disk.fault = fault
            with _listening() as heard:
                outcome = self._live(harness, disk)
            if not disk.failed:
                return False
            same = self.same
            if self.by_the_clock and fault.kind != "power":
                self.same = lambda *_: True
            try:
                if outcome is None or disk.off:  # it may also go while the engine closes
                    disk.restart(self.seed * 1000 + fault.number)
                    self._goes_on(harness)
                else:
                    self._has_gone_on(harness, outcome, heard)
            finally:
                self.same = same
            _intact(harness.path)
        return True

    def _goes_on(self, harness: CrashHarness) -> None:
        """On a healthy disk, after a power cut."""
        harness.disk = None
        held = self._survived(harness, list(self.acknowledged))
        self._compare(harness.run(self._drive(harness)), held, recordings(harness.path))
        invariants.not_begun_again(harness.begun, {one.key: one.rows for one in held})

    def _has_gone_on(self, harness: CrashHarness, outcome: Outcome, heard: _Heard) -> None:
        """By itself, after errors of the disk; and it has ended for ever."""
        if harness.refused and not heard.said("does not take writes"):
            raise InvariantViolated(
                f"The store refused {harness.refused} transactions, and the engine did not say so"
            )
        held = recordings(harness.path)
        self._compare(outcome, [], held)
        harness.disk = None
        again = harness.run(self._drive(harness))
        self._compare(again, held, recordings(harness.path))
        if str(again) != str(outcome):
            raise InvariantViolated(f"It was {outcome} and has become {again}")

    def _live(self, harness: CrashHarness, disk: Disk) -> Outcome | None:
        """Until the run has ended or the power has; a disk that fails may also keep an engine from
        opening.
        """
        for _ in range(TIMES + 2):
            try:
                outcome: Outcome = harness.run(self._drive(harness))
                return outcome
            except (PowerLost, apsw.Error, PerdureError) as error:
                if disk.off:
                    return None
                if not isinstance(error, StoreError):
                    raise
        raise InvariantViolated("No engine can be opened, although the disk works again")

    @contextlib.contextmanager
    def _lives_on_disk(self) -> Iterator[tuple[CrashHarness, Disk]]:
        self.acknowledged.clear()
        with self._harness() as harness, contextlib.closing(Disk()) as disk:
            harness.disk, harness.synchronous = disk, self.synchronous
            yield harness, disk

    async def _ask(
        self, what: str, verb: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        """Note what was acknowledged, and ask again what a failing disk refused."""
        while True:
            try:
                answer = await verb(*args, **options)
            except (RunFailed, RunCancelled, RequestRefused):
                self.acknowledged.append(what)
                raise
            except StoreError:
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                self.acknowledged.append(what)
                return answer

    # --- the invariants ---------------------------------------------------------------------------

    def _survived(self, harness: CrashHarness, acknowledged: list[str]) -> list[Recording]:
        """What is in the file after a power cut, looked at in a copy, so that the engine finds it
        untouched.
        """
        path, begun = harness.path, set(harness.begun)
        with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
            for name in os.listdir(os.path.dirname(path)):
                shutil.copyfile(
                    os.path.join(os.path.dirname(path), name), os.path.join(folder, name)
                )
            copy = os.path.join(folder, os.path.basename(path))
            if not _intact(copy):
                if acknowledged or begun:
                    raise InvariantViolated(
                        f"Nothing is in the file, and {acknowledged or begun} was "
                        f"acknowledged or begun"
                    )
                return []
            held = recordings(copy)
            rows = {one.key: one.rows for one in held}
            invariants.commit_before_effect(begun, rows)
            with contextlib.closing(connection.open_reader(copy)) as db:
                _nothing_lost(db, {one.id: one for one in held}, acknowledged)
            invariants.recorded_stays(harness.recorded, rows)
        return held


class _Heard(logging.Handler):
    """What the engine says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@contextlib.contextmanager
def _listening() -> Iterator[_Heard]:
    """Collect the engine's log lines, and keep a thousand disk errors off the terminal."""
    log, heard = logging.getLogger("perdure"), _Heard()
    propagated, log.propagate = log.propagate, False
    log.addHandler(heard)
    try:
        yield heard
    finally:
        log.removeHandler(heard)
        log.propagate = propagated


def _intact(path: str) -> bool:
    """SQLite's own check, after its recovery; False where there is no table yet."""
    with contextlib.closing(apsw.Connection(path)) as db:
        found = db.pragma("integrity_check")
        if found != "ok":
            raise InvariantViolated(f"PRAGMA integrity_check says {found}")
        return bool(db.pragma("user_version"))


def _nothing_lost(db: apsw.Connection, held: dict[str, Recording], acknowledged: list[str]) -> None:
    if not acknowledged:
        return
    run = held.get(RUN_ID)
    if run is None:
        raise InvariantViolated(f"The run is not in the file, and {acknowledged} was acknowledged")
    for what in acknowledged:
        if what == "result":
            kept = run.status in FINAL
        elif what == "cancel":
            words = {row.kind for row in run.rows} | {
                row.kind for row in Reader(db, "").inbox(run.key, 0)
            }
            kept = run.status in FINAL or bool(words & {ev.CANCEL, "cancel"})
        elif what.startswith("request "):
            told = "SELECT 1 FROM perdure_requests WHERE key = ? AND state <> 'open'"
            kept = bool(db.execute(told, (what,)).fetchall())
        else:
            kept = what == "start" or bool(db.execute(Q["key_used"], (run.key, what)).fetchall())
        if not kept:
            raise InvariantViolated(
                f"{what!r} was acknowledged and is not in the file; the run is "
                f"{run.status} with {len(run.rows)} rows"
            )
