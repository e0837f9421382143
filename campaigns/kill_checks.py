"""The invariants of a file and a log after the kill campaign: one owner, recorded once, repeated
only after a failure or a death.

Rules: the log has what each worker began and which process the campaign has hit, the file what
was recorded. Each invariant gives the sentences that say where it is violated. None of them
looks at how long anything took.

Terms: a worker is *hit* when its process was killed, or frozen after it had joined. It has *lapsed*
when it was silent for most of its lease before it was reaped; on a loaded machine that happens
without a hit, so it is counted. Only a worker that was hit or has lapsed may lose its runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from campaigns import kill_worker
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.runtime.recovery import is_crash
from perdure.store.sqlite.connection import connect
from perdure.testing import invariants
from perdure.testing.recording import Recording, recordings, replay_recorded

CLEAN_UP = 99
KILLED, FROZEN = "K", "S"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log: B, E and F of an attempt; K and S say that a process is about to be killed
    or frozen, and when.
    """

    mark: str
    pid: int
    worker: int = 0
    run: int = 0
    seq: int = 0
    attempt: int = 0
    name: str = ""
    at_ms: int = 0


@dataclass(slots=True)
class Seen:
    """What the invariants counted on their way."""

    begun: int = 0
    repeated: int = 0
    take_overs: int = 0
    # attempts that a frozen worker began after another one had its run: their turn was on disk
    # before
    late: int = 0
    lapsed: int = 0
    crash_notes: int = 0
    rows: int = 0
    runs: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Member:
    """A worker as its row says at the end; `beat_ms` is its last renewal."""

    worker: int
    pid: int
    joined_ms: int
    ended_ms: int | None
    lease_ms: int
    ttl_ms: int

    @property
    def lapsed(self) -> bool:
        """Others count beats of their own, four to a lease: three of them, and timers of an event
        loop are never early.
        """
        silent_ms = (self.ended_ms or self.lease_ms) - (self.lease_ms - self.ttl_ms)
        return silent_ms >= 0.7 * self.ttl_ms


def read_log(path: str) -> list[Line]:
    """The lines of a log; the last one may be torn by nothing, because each is one write."""
    with open(path) as file:
        return [_line(text.split()) for text in file]


def _line(words: list[str]) -> Line:
    if words[0] in (KILLED, FROZEN):
        return Line(words[0], int(words[1]), at_ms=int(words[2]))
    pid, worker, run, seq, attempt = map(int, words[1:6])
    return Line(words[0], pid, worker, run, seq, attempt, words[6], int(words[7]))


@dataclass(slots=True)
class Track:
    """What the log says of one run so far: its owners in order, and of each row the last attempt of
    each worker.
    """

    owners: list[int] = field(default_factory=list)
    attempts: dict[tuple[int, int], Line] = field(default_factory=dict)
    begun: list[Line] = field(default_factory=list)


class Log:
    """Walks through the log once, with the workers that took part."""

    def __init__(self, lines: Iterable[Line], workers: Iterable[Member], seen: Seen) -> None:
        self.runs: dict[int, Track] = {}
        self.ended: set[tuple[int, int, int]] = set()  # run, row, worker
        self._workers, self._seen = {one.worker: one for one in workers}, seen
        self._hits: dict[int, list[Line]] = {}
        self._lapsed: set[int] = set()
        for line in lines:
            self._take(line)
        self._living_owners()
        seen.lapsed = len(self._lapsed)

    def _may_lose(self, worker: int) -> bool:
        """Whether a worker was hit, as far as the log was read, or has lapsed."""
        one = self._workers[worker]
        if any(
            mark.mark == KILLED or one.joined_ms <= mark.at_ms
            for mark in self._hits.get(one.pid, ())
        ):
            return True
        self._lapsed.update([worker] * one.lapsed)
        return one.lapsed

    def _take(self, line: Line) -> None:
        if line.mark in (KILLED, FROZEN):
            self._hits.setdefault(line.pid, []).append(line)
            return
        track = self.runs.setdefault(line.run, Track())
        if line.mark == "B":
            self._seen.begun += 1
            self._owner(track, line)
            self._again(track, line)
            track.attempts[line.seq, line.worker] = line
            track.begun.append(line)
            return
        track.attempts[line.seq, line.worker] = line
        if line.mark == "E":
            self.ended.add((line.run, line.seq, line.worker))

    def _owner(self, track: Track, line: Line) -> None:
        """One owner: a run goes to another worker only from one that was hit, and comes back to
        none.

        Who is frozen between the commit of a row and what follows it begins that step late, maybe
        as its first of the run.
        """
        ended_ms = self._workers[line.worker].ended_ms
        if line.worker in track.owners[:-1] or (ended_ms is not None and ended_ms <= line.at_ms):
            self._seen.late += 1
            if not self._may_lose(line.worker):
                self._tell(line, "begins a step after it has lost the run, and was never frozen")
        elif not track.owners:
            track.owners.append(line.worker)
        elif track.owners[-1] == line.worker:
            pass
        else:
            self._seen.take_overs += 1
            track.owners.append(line.worker)

    def _again(self, track: Track, line: Line) -> None:
        """At least once, and recorded: an attempt is repeated after one that failed, or whose
        worker was hit.
        """
        self._seen.repeated += any(before.seq == line.seq for before in track.begun)
        before = track.attempts.get((line.seq, line.worker))
        if before is not None and before.mark != "F":
            self._tell(line, "begins a step that it has begun already")

    def _living_owners(self) -> None:
        """A worker that lost a run was hit before, or had lapsed."""
        for run, track in self.runs.items():
            for worker in track.owners[:-1]:
                if not self._may_lose(worker):
                    self._seen.broken.append(
                        f"run {run} was taken from worker {worker}, which nobody had "
                        f"killed or frozen"
                    )

    def _tell(self, line: Line, what: str) -> None:
        self._seen.broken.append(
            f"worker {line.worker} (pid {line.pid}) {what}: run {line.run}, row "
            f"{line.seq}, attempt {line.attempt}"
        )


def check_run(run: Recording, track: Track, log: Log) -> None:
    """One run of the file against every invariant of a history, and beside the log. Raises
    `InvariantViolated`.
    """
    if run.status not in ("completed", "cancelled"):
        raise invariants.InvariantViolated(f"it is {run.status}")
    invariants.in_order(run.rows)
    invariants.recorded_once(run.rows)
    invariants.replied_once(run.rows)
    replay_recorded(run, kill_worker.WORKFLOWS)
    _on_disk_before(run, track)
    _outcomes(run, track, log)
    _cleaned_up(run.rows)


def _on_disk_before(run: Recording, track: Track) -> None:
    """Commit before effect: a step begins after the row that asks for it was made. One that was
    lost is made anew, and later.
    """
    asked = {row.seq: row for row in run.rows if row.kind == ev.STEP}
    for line in track.begun:
        row = asked.get(line.seq)
        if row is None:
            raise invariants.InvariantViolated(
                f"worker {line.worker} has begun the step of row {line.seq}, which is not there"
            )
        if row.at_ms > line.at_ms:
            raise invariants.InvariantViolated(
                f"worker {line.worker} has begun row {line.seq} at {line.at_ms} ms, which "
                f"was made at {row.at_ms} ms"
            )


def _outcomes(run: Recording, track: Track, log: Log) -> None:
    """No outcome of a worker that had lost the run, none that was not computed, and nothing
    recorded was done again.
    """
    owner = 0  # a place in the list of owners
    for seq, worker in _computed(run.rows):
        if (run.key, seq, worker) not in log.ended:
            raise invariants.InvariantViolated(
                f"row {seq} has an outcome of worker {worker}, whose attempt did not end"
            )
        if worker not in track.owners:
            raise invariants.InvariantViolated(
                f"row {seq} has an outcome of worker {worker}, which had lost the run before"
            )
        place = track.owners.index(worker)
        if place < owner:
            raise invariants.InvariantViolated(
                f"row {seq} has an outcome of worker {worker}, after worker "
                f"{track.owners[owner]} had the run"
            )
        owner = place
        for later in track.owners[place + 1 :]:
            if (seq, later) in track.attempts:
                raise invariants.InvariantViolated(
                    f"row {seq} was recorded by worker {worker}, and worker {later} did it again"
                )


def _computed(rows: list[Event]) -> Iterator[tuple[int, int]]:
    """Of each outcome that names a worker: its step's row, and the worker, in the order of the
    outcomes.
    """
    steps = {row.seq: row.name for row in rows if row.kind == ev.STEP}
    for row in rows:
        if row.kind == ev.COMPLETED and steps.get(row.ref or 0) in (
            "square",
            "in_thread",
            "second_try",
        ):
            yield row.ref or 0, _json(row)[1]


def _json(row: Event) -> Any:
    assert isinstance(row.data, bytes)  # a recording has it in one piece
    return msgspec.json.decode(row.data)


def _cleaned_up(rows: list[Event]) -> None:
    """Who was cancelled while it ran has done what its `finally` asks for, and that is recorded; a
    second cancel ends that, too.
    """
    if sum(row.kind == ev.CANCEL for row in rows) != 1:
        return
    last = [row.seq for row in rows if row.kind == ev.STEP and _json(row)["n"] == CLEAN_UP]
    if steps := [row for row in rows if row.kind == ev.STEP]:
        done = [row.ref for row in rows if row.kind == ev.COMPLETED and row.ref in last]
        if len(last) != 1 or done != last:
            raise invariants.InvariantViolated(
                f"it was cancelled after {len(steps)} steps, and its clean-up is rows "
                f"{last}, recorded {done}"
            )


def check(path: str, log_path: str) -> Seen:
    """All invariants. Call it when nothing runs any more, and not in an event loop."""
    seen = Seen()
    connection = connect(path)
    workers = [Member(*row) for row in connection.execute(kill_worker.Q["workers"])]
    if (found := connection.pragma("integrity_check")) != "ok":
        seen.broken.append(f"integrity_check says {found}")
    connection.close()
    seen.broken += [
        f"worker {one.worker} has not left and was not reaped"
        for one in workers
        if one.ended_ms is None
    ]
    log = Log(read_log(log_path), workers, seen)
    for run in recordings(path):
        seen.runs += 1
        seen.rows += len(run.rows)
        seen.crash_notes += sum(is_crash(row) for row in run.rows)
        try:
            check_run(run, log.runs.get(run.key, Track()), log)
        # also where the file makes no sense at all: the others are still to be looked at
        except Exception as error:
            seen.broken.append(f"run {run.id}: {type(error).__name__}: {error}")
    return seen
