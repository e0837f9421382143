"""Schedules on real engines: ticks, overlaps, restarts, several processes. Time is virtual."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import (
    BadSchedule,
    DefinitionError,
    Engine,
    Every,
    Queue,
    QueueNotFound,
    Rate,
    Schedule,
    ScheduleNotFound,
    SyncEngine,
    WeightOverBurst,
    connect,
    continue_as,
    current_run,
    step,
    workflow,
)
from perdure.store.sqlite.queries import Q
from perdure.testing import CrashHarness
from perdure.testing.virtual_time import BEGIN_MS
from tests.runtime.support import Victim, awaited

MINUTE = timedelta(minutes=1)
BEGIN = datetime.fromtimestamp(BEGIN_MS / 1000, UTC)  # 2027-01-15 08:00
begun: list[tuple[str, datetime | None]] = []


@workflow
async def report(seconds: float = 0.0) -> str:
    begun.append((current_run().id, current_run().scheduled_at))
    await asyncio.sleep(seconds)
    return current_run().id


@workflow
async def tidy(seconds: float) -> str:
    try:
        await asyncio.sleep(3_600)
    finally:
        await asyncio.sleep(seconds)
    return "never"


@workflow
async def in_parts(left: int) -> str:
    at = current_run().scheduled_at
    if left:
        await asyncio.sleep(20)
        continue_as(in_parts(left - 1))
    return str(at)


@step(retry=None)
def break_unless(path: str, at: str) -> str:
    if not Path(path).exists():
        raise ValueError(path)
    return at


@workflow
async def fragile(path: str) -> str:
    return await break_unless(path, str(current_run().scheduled_at))


@pytest.fixture
def harness(tmp_path: Path) -> CrashHarness:
    begun.clear()
    return CrashHarness(tmp_path / "perdure.db")


Main = Callable[[], Coroutine[Any, Any, Any]]


def every_minute(seconds: float = 0.0, **options: Any) -> Schedule:
    return Schedule("m", "* * * * *", report(seconds), **options)


async def ran(engine: Engine) -> list[str]:
    """Minute and status of each run, in the order of their ticks."""
    runs = sorted(await engine.runs(limit=1_000), key=lambda run: run.id)
    return [f"{run.id[16:21]} {run.status}" for run in runs]


# --- ticks ----------------------------------------------------------------------------------------


def test_a_tick_is_a_run_with_its_time(harness: CrashHarness) -> None:
    async def main() -> None:
        async with harness.engine(schedules=[every_minute(tz="Europe/Berlin")]) as engine:
            await asyncio.sleep(150)
            (info,) = await engine.schedules()
            assert (info.name, info.when, info.workflow) == ("m", "* * * * *", "report")
            assert info.args == {"seconds": 0.0}
            assert info.next_at == BEGIN + 3 * MINUTE and info.last_at == BEGIN + 2 * MINUTE
            assert str(info.next_at.tzinfo) == "Europe/Berlin"
            assert (info.missed, info.skipped, info.waiting, info.status) == (0, 0, 0, "active")
            assert info.last_run == "m@2027-01-15T09:02:00+01:00"

    harness.run(main())
    assert begun == [
        ("m@2027-01-15T09:01:00+01:00", BEGIN + MINUTE),
        ("m@2027-01-15T09:02:00+01:00", BEGIN + 2 * MINUTE),
    ]
    assert begun[0][1] is not None and begun[0][1].tzinfo is UTC


def test_a_run_that_no_tick_started_has_no_time(harness: CrashHarness) -> None:
    harness.run(report())
    assert begun[0][1] is None


def test_the_time_of_a_tick_goes_on_with_its_run(harness: CrashHarness) -> None:
    async def main() -> str:
        schedule = Schedule("parts", Every(MINUTE), in_parts(2), overlap="skip")
        async with harness.engine(schedules=[schedule]) as engine:
            await asyncio.sleep(70)
            await engine.schedule("parts", "@yearly", in_parts(2))
            run = await engine.get("parts@2027-01-15T08:01:00+00:00")
            return str(await run.result())

    assert harness.run(main()) == str(BEGIN + MINUTE)


def test_a_retry_has_the_time_of_its_tick(harness: CrashHarness, tmp_path: Path) -> None:
    async def main() -> Any:
        schedule = Schedule("once", "1 8 * * *", fragile(str(tmp_path / "mended")))
        async with harness.engine(schedules=[schedule]) as engine:
            await asyncio.sleep(70)
            run = await engine.get("once@2027-01-15T08:01:00+00:00")
            assert await run.status() == "failed"
            (tmp_path / "mended").touch()
            await engine.retry(run.id)
            fork = await engine.fork(run.id, 1, new_id="again")
            return await (await engine.get(run.id)).result(), await fork.result()

    assert harness.run(main()) == (str(BEGIN + MINUTE), str(BEGIN + MINUTE))


def test_a_zone_without_a_time_has_a_run_right_after_the_gap(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with harness.engine() as engine:
            nightly = await engine.schedule("n", "30 2 * * *", report(), tz="Europe/Berlin")
            await asyncio.sleep(80 * 86_400)
            marked = [tick for tick in await nightly.next(300) if tick.clock]
            assert [(tick.isoformat(), tick.clock) for tick in marked] == [
                ("2027-10-31T02:30:00+02:00", "its time comes twice, and this is the first"),
                ("2027-11-01T02:30:00+01:00", "the clock goes back by 1:00:00"),
            ]
            return sorted(run.id for run in await engine.runs(limit=1_000))

    ids = harness.run(main())
    assert len(ids) == 80
    assert "n@2027-03-28T03:00:00+02:00" in ids and "n@2027-03-29T02:30:00+02:00" in ids


def test_seconds_and_intervals(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        schedules = [
            Schedule("s", "*/20 * * * * *", report(), overlap="allow"),
            Schedule("e", Every(timedelta(seconds=40), offset=5), report(), overlap="allow"),
        ]
        async with harness.engine(schedules=schedules) as engine:
            await asyncio.sleep(103)
            return sorted(run.id[0] + run.id[16:21] for run in await engine.runs())

    assert harness.run(main()) == [
        "e00:05", "e00:45", "e01:25", "s00:20", "s00:40", "s01:00", "s01:20", "s01:40",
    ]  # fmt: skip


def test_jitter_is_the_same_on_every_process_and_before_the_next_tick(tmp_path: Path) -> None:
    def times(name: str) -> list[float]:
        harness = CrashHarness(tmp_path / name)

        async def main() -> list[float]:
            async with harness.engine(schedules=[every_minute(jitter=3_600)]) as engine:
                await asyncio.sleep(1_200)
                runs = await engine.runs(limit=100)
                return sorted((run.created_at - BEGIN).total_seconds() for run in runs)

        found: list[float] = harness.run(main())
        return found

    first = times("a.db")
    assert first == times("b.db")
    assert len({round(at % 60, 3) for at in first}) > 10
    assert all(60 * n <= at < 60 * (n + 1) for n, at in enumerate(first, start=1))


# --- overlap --------------------------------------------------------------------------------------


def overlapping(harness: CrashHarness, schedule: Schedule, seconds: float) -> tuple[list[str], Any]:
    async def main() -> tuple[list[str], Any]:
        async with harness.engine(schedules=[schedule]) as engine:
            await asyncio.sleep(seconds)
            return await ran(engine), (await engine.schedules())[0]

    found: tuple[list[str], Any] = harness.run(main())
    return found


def test_skip(harness: CrashHarness) -> None:
    runs, info = overlapping(harness, every_minute(90), 310)
    assert runs == ["01:00 completed", "03:00 completed", "05:00 waiting"]
    assert (info.skipped, info.missed) == (2, 0)


def test_wait(harness: CrashHarness) -> None:
    runs, info = overlapping(harness, every_minute(70, overlap="wait"), 290)
    assert runs == ["01:00 completed", "02:00 completed", "03:00 completed", "04:00 waiting"]
    assert (info.skipped, info.missed, info.waiting) == (0, 0, 0)


def test_cancel_lets_the_running_one_clean_up(harness: CrashHarness) -> None:
    schedule = Schedule("m", "*/2 * * * *", tidy(30), overlap="cancel")

    async def main() -> list[tuple[str, str, float]]:
        async with harness.engine(schedules=[schedule]) as engine:
            await asyncio.sleep(275)
            runs = sorted(await engine.runs(), key=lambda run: run.id)
            return [
                (run.id[16:21], run.status, (run.created_at - BEGIN).total_seconds())
                for run in runs
            ]

    assert harness.run(main()) == [("02:00", "cancelled", 120), ("04:00", "waiting", 270)]


def test_allow(harness: CrashHarness) -> None:
    runs, info = overlapping(harness, every_minute(150, overlap="allow"), 200)
    assert runs == ["01:00 waiting", "02:00 waiting", "03:00 waiting"]
    assert (info.skipped, info.missed) == (0, 0)


def test_runs_of_a_schedule_take_their_places_in_a_queue(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        call = report.options(queue="other", key="acme", weight=1)(100)
        schedule = Schedule("m", "* * * * *", call, queue="one", overlap="allow")
        one = Queue("one", concurrency=1)
        async with harness.engine(schedules=[schedule], queues=[one]) as engine:
            await asyncio.sleep(250)
            assert {run.key for run in await engine.runs()} == {"acme"}
            return await ran(engine)

    assert harness.run(main()) == [
        "01:00 completed", "02:00 waiting", "03:00 waiting", "04:00 waiting",
    ]  # fmt: skip


def test_a_tick_whose_queue_is_full_starts_when_there_is_room(harness: CrashHarness) -> None:
    async def main() -> tuple[str | None, list[str], Any]:
        schedule = Schedule("m", "1 8 * * *", report(), queue="small")
        small = Queue("small", waiting_max=1, paused=True)
        async with harness.engine(schedules=[schedule], queues=[small]) as engine:
            await engine.start(report(), id="a@2027-01-15T08:00:00+00:00", queue="small")
            await asyncio.sleep(200)
            error = (await engine.schedules())[0].error
            await engine.queue("small", waiting_max=None, paused=False)
            await asyncio.sleep(40)
            return error, await ran(engine), (await engine.schedules())[0]

    error, runs, info = harness.run(main())
    assert error is not None and "'small' is full" in error
    assert runs == ["00:00 completed", "01:00 completed"]
    assert (info.error, info.missed) == (None, 0)


def test_a_queue_that_takes_no_run_is_refused_before_anything_is_stored(
    harness: CrashHarness,
) -> None:
    async def main() -> None:
        lost = Schedule("lost", "@daily", report(), queue="nope")
        with pytest.raises(QueueNotFound, match="no queue 'nope'"):
            async with harness.engine(schedules=[every_minute(), lost]):
                raise AssertionError
        slow = Queue("slow", rate=Rate(1, per=60))
        async with harness.engine(queues=[slow]) as engine:
            with pytest.raises(QueueNotFound, match="There are: slow"):
                await engine.schedule(lost)
            with pytest.raises(WeightOverBurst):
                await engine.schedule("b", "@daily", report.options(queue="slow", weight=2)())
            assert await engine.schedules() == []

    harness.run(main())


def test_a_schedule_is_given_whole_or_in_parts(harness: CrashHarness) -> None:
    async def main() -> None:
        async with harness.engine() as engine:
            for more in ({"when": "@hourly"}, {"tz": "Asia/Tokyo"}, {"call": report()}):
                with pytest.raises(BadSchedule, match="a Schedule has its options itself"):
                    await engine.schedule(every_minute(), **more)
            assert await engine.schedules() == []

    harness.run(main())


# --- missed ticks ---------------------------------------------------------------------------------


def away(harness: CrashHarness, schedule: Schedule, seconds: float) -> tuple[list[str], Any]:
    """A first engine for 90 s, none for a time, and one for 20 s more."""

    async def main() -> tuple[list[str], Any]:
        async with harness.engine(schedules=[schedule]):
            await asyncio.sleep(90)
        await asyncio.sleep(seconds)
        async with harness.engine(schedules=[schedule]) as engine:
            await asyncio.sleep(20)
            return await ran(engine), (await engine.schedules())[0]

    found: tuple[list[str], Any] = harness.run(main())
    return found


def test_of_missed_ticks_the_newest_runs(harness: CrashHarness) -> None:
    runs, info = away(harness, every_minute(), 600)  # 08:02 to 08:11 are missed
    assert runs == ["01:00 completed", "11:00 completed"]
    assert info.missed == 9


def test_of_missed_ticks_the_newest_n_run(harness: CrashHarness) -> None:
    runs, info = away(harness, every_minute(catch_up_max=3, overlap="allow"), 600)
    assert runs == ["01:00 completed", *(f"{n:02}:00 completed" for n in (9, 10, 11))]
    assert info.missed == 7


def test_what_is_older_than_the_window_is_only_counted(harness: CrashHarness) -> None:
    options: dict[str, Any] = {"catch_up": 90, "catch_up_max": 5, "overlap": "allow"}
    runs, info = away(harness, every_minute(**options), 600)  # back at 08:11:30
    assert runs == ["01:00 completed", "10:00 completed", "11:00 completed"]
    assert info.missed == 8


def test_a_month_of_seconds_is_counted_and_blocks_nothing(harness: CrashHarness) -> None:
    schedule = Schedule("m", "* * * * * *", report(), catch_up=0, overlap="allow")
    runs, info = away(harness, schedule, 30_000)
    assert info.missed == 30_000
    assert len(runs) == 89 + 1 + 19  # until 08:01:30, the newest missed one, until the end
    assert info.skipped == 0


def test_a_pause_leaves_ticks_out_and_counts_none(harness: CrashHarness) -> None:
    async def main() -> tuple[list[str], Any]:
        async with harness.engine(schedules=[every_minute()]) as engine:
            handle = await engine.get_schedule("m")
            await asyncio.sleep(90)
            await handle.pause()
            await handle.pause()
            assert (await handle.info()).status == "paused"
            assert (await handle.info()).next_at is None
            await asyncio.sleep(300)
            await handle.resume()
            await asyncio.sleep(60)
            return await ran(engine), await handle.info()

    runs, info = harness.run(main())
    assert runs == ["01:00 completed", "07:00 completed"]
    assert (info.missed, info.status) == (0, "active")


# --- code -----------------------------------------------------------------------------------------


def test_a_schedule_that_code_no_longer_has_is_orphaned(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with harness.engine(schedules=[every_minute()]):
            await asyncio.sleep(70)
        async with harness.engine(workflows=[report]) as engine:
            await asyncio.sleep(300)
            (info,) = await engine.schedules()
            assert (info.status, info.next_at) == ("orphaned", None)
            return await ran(engine)

    assert harness.run(main()) == ["01:00 completed"]


def test_other_code_in_another_process_starts_it_all_the_same(harness: CrashHarness) -> None:
    """While one process declares it, any process starts its ticks."""

    async def main() -> list[str]:
        async with harness.engine(schedules=[every_minute()]) as first:
            async with harness.engine(workflows=[]):
                await asyncio.sleep(70)
            (info,) = await first.schedules()
            assert info.status == "active"
            return await ran(first)

    assert harness.run(main()) == ["01:00 completed"]


def test_changed_code_changes_it(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with harness.engine(schedules=[every_minute()]):
            await asyncio.sleep(70)
        changed = Schedule("m", "*/5 * * * *", report(1.0))
        async with harness.engine(schedules=[changed]) as engine:
            await asyncio.sleep(240)
            (info,) = await engine.schedules()
            assert (info.when, info.args, info.missed) == ("*/5 * * * *", {"seconds": 1.0}, 0)
            return await ran(engine)

    assert harness.run(main()) == ["01:00 completed", "05:00 completed"]


def test_two_of_one_name_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(BadSchedule, match="name: two schedules"):
        Engine(tmp_path / "x.db", schedules=[every_minute(), every_minute(5)])
    with pytest.raises(DefinitionError):
        Engine(tmp_path / "x.db", schedules=every_minute())  # type: ignore[arg-type]
    assert not (tmp_path / "x.db").exists()


def test_a_zone_that_this_machine_lacks_stops_that_schedule_only(
    harness: CrashHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[str]:
        async with harness.engine(schedules=[every_minute()]) as engine:
            await engine.schedule("far", "* * * * *", report(), overlap="wait")
            with contextlib.closing(apsw.Connection(str(tmp_path / "perdure.db"))) as db:
                db.execute("UPDATE perdure_schedule SET tz = 'Mars/Phobos' WHERE name = 'far'")
            await asyncio.sleep(190)
            assert [info.name for info in await engine.schedules()] == ["far", "m"]
            late = [run.created_at - at for run in await engine.runs() if (at := run.scheduled_at)]
            assert len(late) == 3 and max(late) < timedelta(seconds=2)
            return await ran(engine)

    assert harness.run(main()) == [f"0{n}:00 completed" for n in (1, 2, 3)]
    assert caplog.text.count("can't be computed on this machine") == 1


# --- by hand --------------------------------------------------------------------------------------


def test_a_trigger_is_a_run_of_its_own(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with harness.engine() as engine:
            handle = await engine.schedule("m", "* * * * *", report(), paused=True)
            await asyncio.sleep(60)  # to the very time of a tick
            runs = [await handle.trigger(), await handle.trigger()]
            await handle.resume()
            await asyncio.sleep(61)
            assert (await handle.info()).last_run == "m@2027-01-15T08:02:00+00:00"
            ids = [run.id for run in runs]
            assert [await run.result() for run in runs] == ids
            return sorted(run.id for run in await engine.runs())

    assert harness.run(main()) == [
        "m@2027-01-15T08:01:00+00:00-trigger",
        "m@2027-01-15T08:01:00.001+00:00-trigger",
        "m@2027-01-15T08:02:00+00:00",
    ]


def test_a_backfill_can_be_repeated(harness: CrashHarness) -> None:
    async def main() -> None:
        async with harness.engine(schedules=[every_minute()]) as engine:
            await asyncio.sleep(130)
            handle = await engine.get_schedule("m")
            begin = BEGIN - 3 * MINUTE
            first = await handle.backfill(begin, BEGIN + 3 * MINUTE - MINUTE)
            again = await handle.backfill(begin, BEGIN + 2 * MINUTE)
            assert [run.id for run in first] == [run.id for run in again]
            assert [run.id[12:17] for run in first] == [
                "T07:5", "T07:5", "T07:5", "T08:0", "T08:0",
            ]  # fmt: skip
            results = await asyncio.gather(*(run.result() for run in first))
            assert results == [run.id for run in first]
            assert len(await ran(engine)) == 6

    harness.run(main())
    times = [at for _, at in begun]
    assert len(times) == len(set(times)) == 6


def test_what_can_not_be_backfilled(harness: CrashHarness) -> None:
    async def main() -> None:
        async with harness.engine() as engine:
            handle = await engine.schedule("m", "* * * * *", report())
            for start, end, wrong in [
                (BEGIN - MINUTE, None, "end: a backfill needs a start and an end"),
                (None, BEGIN, "start: a backfill needs"),
                (BEGIN, BEGIN - MINUTE, "end: it has to be after the start"),
                (BEGIN, BEGIN + MINUTE, "end: it is in the future"),
                (BEGIN - timedelta(days=2), BEGIN, "more than 1,000 ticks before it"),
                (datetime(2026, 1, 1), BEGIN, "start: it is an aware datetime"),
                ("yesterday", BEGIN, "start: it is an aware datetime"),
            ]:
                with pytest.raises(BadSchedule, match=wrong):
                    await handle.backfill(start, end)  # type: ignore[arg-type]
            assert await engine.runs() == []

    harness.run(main())


def test_a_schedule_is_set_changed_and_removed(harness: CrashHarness) -> None:
    async def main() -> None:
        async with harness.engine() as engine:
            handle = await engine.schedule("m", "@daily", report())
            same = await engine.schedule(Schedule("m", "@daily", report()))
            assert repr(handle) == repr(same) == "<schedule m>"
            await engine.schedule("m", "* * * * *", report(5))
            await asyncio.sleep(70)
            assert await ran(engine) == ["01:00 completed"]
            await handle.remove()
            await asyncio.sleep(120)
            assert await ran(engine) == ["01:00 completed"]
            assert await engine.schedules() == []
            for verb in (
                handle.info, handle.pause, handle.resume, handle.trigger, handle.remove,
                handle.next,
            ):  # fmt: skip
                with pytest.raises(ScheduleNotFound):
                    await verb()
            with pytest.raises(BadSchedule, match="hour"):
                await engine.schedule("m", "0 24 * * *", report())
            with pytest.raises(BadSchedule, match="call"):
                await engine.schedule("m", "0 3 * * *")
            for count in (0, 1_001, "3"):
                with pytest.raises(DefinitionError):
                    await (await engine.schedule("m", "@daily", report())).next(count)  # type: ignore[arg-type]

    harness.run(main())


def test_a_client_sets_what_a_worker_starts(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with (
            harness.engine(workflows=[report]) as worker,
            harness.engine(execute=False, schedules=[every_minute()]) as client,
        ):
            assert await client.schedules() == []  # a client declares nothing
            await client.schedule("m", "* * * * *", report())
            await asyncio.sleep(130)
            return await ran(worker)

    assert harness.run(main()) == ["01:00 completed", "02:00 completed"]


def test_an_engine_that_is_asked_starts_no_tick(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with harness.engine(execute="asked", schedules=[every_minute()]) as engine:
            await engine.schedule("m", "* * * * *", report())
            await asyncio.sleep(130)
            return await ran(engine)

    assert harness.run(main()) == []


def test_without_an_event_loop(tmp_path: Path) -> None:
    with SyncEngine(tmp_path / "perdure.db", workflows=[report]) as engine:
        handle = engine.schedule("m", "@yearly", report())
        run = handle.trigger()
        assert run.result() == run.id
        handle.pause()
        assert [one.status for one in engine.schedules()] == ["paused"]
        past = datetime.now(UTC) - timedelta(days=400)
        runs = engine.get_schedule("m").backfill(past, datetime.now(UTC))
        assert [run.result() for run in runs] == [run.id for run in runs]
        assert len(handle.next(3)) == 3
        handle.remove()


# --- several engines, clocks that jump, crashes ---------------------------------------------------


def test_several_engines_start_one_run_for_a_tick(harness: CrashHarness) -> None:
    async def main() -> list[str]:
        async with (
            harness.engine(schedules=[every_minute()]),
            harness.engine(schedules=[every_minute()]),
            harness.engine(schedules=[every_minute()]) as engine,
        ):
            await asyncio.sleep(605)
            (info,) = await engine.schedules()
            assert (info.missed, info.skipped) == (0, 0)
            return await ran(engine)

    assert harness.run(main()) == [f"{n:02}:00 completed" for n in range(1, 11)]
    assert len(begun) == len(set(begun)) == 10


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_commit_loses_no_tick_and_doubles_none(tmp_path: Path, when: Any) -> None:
    for commits in range(1, 11):
        begun.clear()
        harness = CrashHarness(tmp_path / f"{when}{commits}.db")

        async def main(harness: CrashHarness = harness) -> list[str]:
            async with harness.engine(schedules=[every_minute(overlap="wait")]) as engine:
                await asyncio.sleep((BEGIN + timedelta(seconds=190) - engine_now(engine)).seconds)
                return await ran(engine)

        with harness.crash_after(commits, when):
            harness.run(main())
        runs = harness.run(main())
        assert runs == [f"0{n}:00 completed" for n in (1, 2, 3)], commits


@awaited
async def test_processes_that_are_killed_start_each_tick_once(tmp_path: Path) -> None:
    """Three at a time on one file; after each two ticks one of them is killed."""
    path, script = str(tmp_path / "perdure.db"), Path(__file__).with_name("ticker.py")
    async with Engine(path, execute=False) as engine:

        async def ticks() -> int:
            return sum((await engine.counts()).values())

        with contextlib.ExitStack() as stack:
            crew = [stack.enter_context(Victim(path, script=script)) for _ in range(3)]
            for number in range(4):
                while await ticks() < 2 * number + 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                crew[number % 3].kill()
                crew[number % 3] = stack.enter_context(Victim(path, script=script))
        (info,) = await engine.schedules()
    with contextlib.closing(connect(path)) as db:
        times = [at for (at,) in db.execute("SELECT scheduled_ms FROM run ORDER BY 1")]
    assert times == list(range(times[0], times[-1] + 1, 1_000))
    assert len(times) >= 8 and (info.missed, info.skipped) == (0, 0)


def engine_now(engine: Engine) -> datetime:
    return datetime.fromtimestamp(engine._clock.now_ms() / 1000, UTC)


class JumpingClock:
    """The virtual clock, set to another time."""

    idle_s_max, passes = 60.0, False

    def __init__(self, inner: Any) -> None:
        self.inner, self.offset_ms = inner, 0

    def now_ms(self) -> int:
        return int(self.inner.now_ms()) + self.offset_ms


class RunningClock(JumpingClock):
    """100 s behind, and a millisecond later at each read; more reads than a look takes fail."""

    READS_MAX = 500

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.offset_ms, self.reads = -100_000, 0

    def now_ms(self) -> int:
        self.reads, self.offset_ms = self.reads + 1, self.offset_ms + 1
        assert self.reads < self.READS_MAX
        return super().now_ms()


def with_clock(engine: Engine, clock: Callable[[Any], Any]) -> Engine:
    """The engine, opened with a clock made from its own."""
    opened = engine._opened

    async def open_with_it(stack: Any) -> Any:
        engine._clock = clock(engine._clock)
        return await opened(stack)

    engine._opened = open_with_it  # type: ignore[method-assign]
    return engine


def jumping(harness: CrashHarness, schedule: Schedule, *jumps: tuple[float, float]) -> Any:
    """Runs and info where the clock jumps by so much after so long, and 200 s more."""

    async def main() -> tuple[list[str], Any]:
        engine = harness.engine(schedules=[schedule])
        async with with_clock(engine, JumpingClock):
            for after_s, by_s in jumps:
                await asyncio.sleep(after_s)
                engine._clock.offset_ms += round(by_s * 1_000)  # type: ignore[attr-defined]
            await asyncio.sleep(200)
            return await ran(engine), (await engine.schedules())[0]

    return harness.run(main())


def test_a_clock_that_is_set_back_starts_no_tick_twice(harness: CrashHarness) -> None:
    runs, info = jumping(harness, every_minute(), (130, -100))  # 08:02:10, then 08:00:30
    assert runs == [f"0{n}:00 completed" for n in (1, 2, 3)]
    assert (info.missed, info.skipped) == (0, 0)
    assert len(begun) == len(set(begun)) == 3


def test_a_clock_that_is_set_forward_catches_up(harness: CrashHarness) -> None:
    runs, info = jumping(harness, every_minute(), (90, 600))  # 08:01:30, then 08:11:30
    assert runs[0] == "01:00 completed" and runs[-1] == "14:00 completed"
    assert len(runs) + info.missed == 14 and len(runs) >= 4


def test_a_clock_that_was_weeks_ahead_does_not_stop_a_schedule(harness: CrashHarness) -> None:
    weeks_s = 30 * 86_400
    schedule = Schedule("m", "*/5 * * * *", report())
    runs, info = jumping(harness, schedule, (90, weeks_s), (400, -weeks_s))
    assert [one for one in runs if one.startswith("10:00")] == ["10:00 completed"]
    assert info.last_at == BEGIN + 10 * MINUTE


def test_a_clock_that_runs_while_it_is_read_is_dealt_with_once(harness: CrashHarness) -> None:
    """A tick that lies ahead is dealt with at the time of one look: later times never end it."""

    async def main() -> int:
        async with harness.engine(schedules=[every_minute()]):
            await asyncio.sleep(130)
        engine = harness.engine(schedules=[every_minute()])
        async with with_clock(engine, RunningClock):
            await asyncio.sleep(1)
            return engine._clock.reads  # type: ignore[attr-defined, no-any-return]

    assert harness.run(main()) < RunningClock.READS_MAX


# --- the file -------------------------------------------------------------------------------------


def test_the_view_says_what_there_is(harness: CrashHarness, tmp_path: Path) -> None:
    async def main() -> None:
        async with harness.engine(schedules=[every_minute(catch_up=60)]) as engine:
            await asyncio.sleep(70)
            await engine.schedule("paused", "@daily", report(), tz="Asia/Tokyo", paused=True)

    harness.run(main())
    found = connect(tmp_path / "perdure.db").execute("SELECT * FROM perdure_schedules ORDER BY 1")
    columns = [name for name, _ in found.get_description()]
    first, second = (dict(zip(columns, row, strict=True)) for row in found)
    assert (first["schedule"], first["status"]) == ("m", "no worker")
    assert first["next_at"] == "2027-01-15 08:02:00.000"
    assert (first["last_at"], first["catch_up_ms"]) == ("2027-01-15 08:01:00.000", 60_000)
    assert first["last_run"] == "m@2027-01-15T08:01:00+00:00"
    assert (second["schedule"], second["status"], second["tz"]) == (
        "paused",
        "paused",
        "Asia/Tokyo",
    )


@step
def nothing() -> None: ...


@awaited
async def test_ten_thousand_idle_schedules_cost_one_read(tmp_path: Path) -> None:
    """Only indexes are read for the next fire time, however many there are."""
    path = str(tmp_path / "many.db")
    async with Engine(path, workflows=[report], execute=False) as engine:
        await engine.schedule("m", "0 0 1 1 *", report())
    db = apsw.Connection(path)
    columns = [
        name for (_, name, *_) in db.execute("PRAGMA table_info(perdure_schedule)")
        if name not in ("schedule", "name")
    ]  # fmt: skip
    listed = ", ".join(columns)
    with db:
        db.execute(
            f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999) "
            f"INSERT INTO perdure_schedule (name, {listed}) "
            f"SELECT 'm' || i, {listed} FROM n, perdure_schedule"
        )
    for query in ("next_fire", "any_held", "due_schedules"):
        given = (1, 1)[: Q[query].count("?")]
        plan = " ".join(map(str, db.execute(f"EXPLAIN QUERY PLAN {Q[query]}", given)))
        assert "INDEX perdure_schedule_" in plan, plan
    db.close()
    async with Engine(path, workflows=[report]) as engine:
        assert len(await engine.schedules()) == 10_000
    assert sqlite3.connect(path).execute("SELECT count(*) FROM run").fetchone() == (0,)
