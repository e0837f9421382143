"""The kill campaign: a short one with real processes, and each of its invariants shown a log
that breaks it.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from campaigns import kill_checks, kill_worker
from campaigns.kill import kill_campaign
from campaigns.kill_checks import Line, Log, Member, Seen, Track
from campaigns.main import CAMPAIGNS, load
from perdure import Engine
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.testing.invariants import InvariantViolated
from perdure.testing.recording import Recording
from tests.runtime.support import awaited


@pytest.mark.parametrize("seed", [7, None], ids=["seed 7", "any seed"])
def test_four_processes_are_killed_and_frozen_and_every_law_holds(
    seed: int | None, tmp_path: Path
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    print(f"kill_campaign({seed}, 4)")
    done = kill_campaign(seed, 4, folder=tmp_path)
    print(done)
    assert done.broken == []
    assert done.kills >= 4
    assert min(done.jobs, done.begun, done.rows) > 0


def test_the_command_knows_the_campaign() -> None:
    assert CAMPAIGNS["kill"] == "campaigns.kill:kill"
    assert "SIGKILL" in (load("kill").__doc__ or "")


@pytest.mark.parametrize("kind", range(10))
@awaited
async def test_what_is_asked_for_ends_as_it_says_where_nobody_is_killed(
    kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = kill_worker.open_log(str(tmp_path / "log"))
    monkeypatch.setattr(kill_worker, "log_file", log)

    class Dice(random.Random):
        def randrange(self, *args: Any) -> int:
            return kind

        def choice(self, some: Any) -> Any:
            return some[0]

        def randint(self, *_: int) -> int:
            return 2

    async with Engine(str(tmp_path / "kill.db"), workflows=kill_worker.WORKFLOWS) as engine:
        for job in kill_worker.jobs(Dice(), 1):
            run = await engine.start(job.call, id=job.id)
            for value in job.messages:
                await run.send(value, channel="m")
            if job.expected is not None and job.call.definition is not kill_worker.listener:
                assert await run.result() == job.expected
        if kind in (7, 9):
            heard = kill_worker.jobs(Dice(), 1)[0]
            assert await (await engine.get(heard.id)).result() == heard.expected
    os.close(log)
    assert not [
        one
        for one in kill_checks.read_log(str(tmp_path / "log"))
        if one.mark == "F" and one.name != "second_try" and kind != 6
    ]


# --- the log --------------------------------------------------------------------------------------

WORKERS = [
    Member(1, 11, joined_ms=100, ended_ms=1000, lease_ms=1500, ttl_ms=1000),
    Member(2, 22, joined_ms=200, ended_ms=1000, lease_ms=1500, ttl_ms=1000),
    Member(
        3, 11, joined_ms=300, ended_ms=1000, lease_ms=1500, ttl_ms=1000
    ),  # the first process, come back
]
PIDS = {one.worker: one.pid for one in WORKERS}


def walk(*lines: Line, workers: list[Member] = WORKERS) -> Seen:
    seen = Seen()
    Log(lines, workers, seen)
    return seen


def line(mark: str, worker: int, seq: int = 2) -> Line:
    return Line(mark, PIDS[worker], worker, 9, seq, 1, "square")


def hit(mark: str, pid: int, at_ms: int = 150) -> Line:
    return Line(mark, pid, at_ms=at_ms)


def test_a_run_may_be_taken_from_who_was_killed_or_frozen() -> None:
    for mark in "KS":
        seen = walk(line("B", 1), hit(mark, 11), line("B", 2), line("E", 2))
        assert (seen.broken, seen.take_overs, seen.repeated) == ([], 1, 1)


def test_a_run_that_is_taken_from_the_living_is_told() -> None:
    assert (
        "was taken from worker 1, which nobody had killed"
        in walk(line("B", 1), line("B", 2)).broken[0]
    )
    assert "was taken from worker 2" in walk(line("B", 2), hit("K", 11), line("B", 3)).broken[0]


def test_who_was_silent_for_most_of_a_lease_may_lose_its_runs_and_is_counted() -> None:
    silent = Member(
        1, 11, joined_ms=100, ended_ms=1700, lease_ms=1900, ttl_ms=1000
    )  # its last beat was at 900
    seen = walk(line("B", 1), line("B", 2), workers=[silent, *WORKERS[1:]])
    assert (seen.broken, seen.lapsed) == ([], 1)


def test_to_have_been_frozen_before_it_joined_is_no_excuse() -> None:
    assert walk(line("B", 3), hit("S", 11, at_ms=150), line("B", 2)).broken
    assert not walk(line("B", 3), hit("S", 11, at_ms=350), line("B", 2)).broken


def test_a_frozen_worker_may_begin_what_was_on_disk_before_and_others_may_not() -> None:
    seen = walk(line("B", 1), hit("S", 11), line("B", 2), line("B", 1, seq=3), line("E", 1, seq=3))
    assert (seen.broken, seen.late) == ([], 1)
    seen = walk(line("B", 1), hit("S", 11), line("B", 2), line("B", 3, seq=4), line("B", 2, seq=3))
    assert any("after it has lost the run, and was never frozen" in text for text in seen.broken)


def test_who_was_frozen_before_its_first_step_of_a_run_began_is_late_and_no_owner() -> None:
    late = Line("B", 11, 1, 9, 2, 1, "square", at_ms=1000)  # it had been reaped by then
    seen = walk(line("B", 2), hit("S", 11), late, line("E", 2))
    assert (seen.broken, seen.late, seen.take_overs) == ([], 1, 0)
    assert "was never frozen" in walk(line("B", 2), late).broken[0]
    with pytest.raises(
        InvariantViolated, match="has an outcome of worker 1, which had lost the run before"
    ):
        beside(
            outcomes(1),
            hit("S", 11),
            Line("B", 11, 1, 9, 1, 1, "square", at_ms=1000),
            line("E", 1, seq=1),
        )


def test_a_step_that_is_begun_twice_by_one_worker_is_told_unless_it_failed() -> None:
    assert "has begun already" in walk(line("B", 1), line("B", 1)).broken[0]
    assert "has begun already" in walk(line("B", 1), line("E", 1), line("B", 1)).broken[0]
    assert walk(line("B", 1), line("F", 1), line("B", 1)).broken == []


# --- the file beside the log ----------------------------------------------------------------------


def log_of(*lines: Line) -> Log:
    return Log(lines, WORKERS, Seen())


def outcomes(*workers: int) -> Recording:
    """A run of as many steps, each with an outcome of one of these workers."""
    rows: list[Event] = []
    for worker in workers:
        seq = len(rows) + 1
        rows.append(Event(seq, ev.STEP, 0, None, "square", b'{"n":1,"ms":1}'))
        rows.append(Event(seq + 1, ev.COMPLETED, 0, seq, None, b"[1,%d]" % worker))
    return Recording(9, "r", "chain", "completed", b"{}", 1, None, rows)


def beside(run: Recording, *lines: Line) -> None:
    log = log_of(*lines)
    kill_checks._outcomes(run, log.runs.get(9, Track()), log)


def test_outcomes_beside_the_log() -> None:
    ended = [line(mark, 1, seq=1) for mark in "BE"], [line(mark, 2, seq=3) for mark in "BE"]
    beside(outcomes(1, 2), *ended[0], hit("K", 11), *ended[1])
    with pytest.raises(InvariantViolated, match="whose attempt did not end"):
        beside(outcomes(1, 2), *ended[0], hit("K", 11), ended[1][0])
    with pytest.raises(
        InvariantViolated, match="row 3 has an outcome of worker 1, after worker 2 had the run"
    ):
        beside(outcomes(2, 1), line("B", 1, 3), line("B", 2, 1), line("E", 2, 1), line("E", 1, 3))
    with pytest.raises(
        InvariantViolated, match="row 1 was recorded by worker 1, and worker 2 did it again"
    ):
        beside(outcomes(1, 2), *ended[0], line("B", 2, 1), *ended[1])


def test_a_step_that_began_before_its_row_was_on_disk_is_told() -> None:
    begun = Line("B", 11, 1, 9, 1, 1, "square", at_ms=50)
    for made_ms, place in ((50, 1), (51, 1), (50, 2)):
        run = Recording(
            9,
            "r",
            "chain",
            "completed",
            b"{}",
            1,
            None,
            [Event(place, ev.STEP, made_ms, None, "square", b"{}")],
        )
        if (made_ms, place) == (50, 1):
            kill_checks._on_disk_before(run, Track(begun=[begun]))
        else:
            with pytest.raises(InvariantViolated, match="worker 1 has begun"):
                kill_checks._on_disk_before(run, Track(begun=[begun]))


def test_who_is_cancelled_cleans_up_once() -> None:
    clean = Event(4, ev.STEP, 0, None, "square", b'{"n":99,"ms":1}')
    rows = [
        Event(1, ev.STEP, 0, None, "square", b'{"n":1,"ms":1}'),
        Event(2, ev.CANCEL, 0),
        Event(3, ev.ABANDON, 0, 1),
        clean,
        Event(5, ev.COMPLETED, 0, 4, None, b"[1,1]"),
    ]
    kill_checks._cleaned_up(rows)
    for wrong in (rows[:4], [*rows, Event(6, ev.STEP, 0, None, "square", b'{"n":99,"ms":1}')]):
        with pytest.raises(InvariantViolated, match="its clean-up is rows"):
            kill_checks._cleaned_up(wrong)
