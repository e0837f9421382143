"""What the engine logs about runs, steps and workers, with fields; and the filter that adds these
to the lines of user code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure import Engine, Limits, Retry, RunContextFilter, RunFailed, receive, step, workflow
from perdure.runtime.log import FIELDS
from perdure.runtime.unserved import Unserved
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, EndWorker, JoinWorker, Suspend, Turn
from tests.runtime.support import AT_ONCE, awaited, reached, until

log = logging.getLogger("tests.of_a_user")
HERE = __file__.rpartition("/")[2]


class Declined(Exception):
    """What a bank says."""


@step(retry=AT_ONCE)
async def charge(euros: int) -> None:
    raise Declined(f"{euros} are\ntoo \x1b[1mmany")


@step(retry=Retry(attempts=2, delay=0))
def charge_in_a_thread() -> None:
    raise Declined("no")


@step(retry=Retry(attempts=2, delay=0), transactional=True)
def charge_with_sql(db: Any) -> None:
    raise Declined("no")


@workflow
async def pay(euros: int) -> None:
    await charge(euros)


@workflow
async def pay_in_a_thread() -> None:
    await charge_in_a_thread()


@workflow
async def pay_with_sql() -> None:
    await charge_with_sql()


@workflow
async def pay_by_child() -> str:
    try:
        await pay(1)
    except RunFailed:
        return "by other means"
    return "paid"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in FIELDS if getattr(record, name) is not None}


def of(caplog: pytest.LogCaptureFixture, *names: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name in names]


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


# --- runs and steps -------------------------------------------------------------------------------


@awaited
async def test_each_attempt_that_fails_and_the_run_log_a_line_with_fields(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, workflows=[pay]) as engine:
        with pytest.raises(RunFailed):
            await engine.run(pay(5), id="p")
    said = of(caplog, "perdure.run", "perdure.step")
    where = (
        f"Declined: 5 are too [1mmany ({HERE}:{charge.fn.__code__.co_firstlineno + 2} in charge)"
    )
    assert [(record.name, record.levelname) for record in said] == [
        ("perdure.step", "WARNING")
    ] * 3 + [("perdure.run", "ERROR")]
    assert [record.getMessage() for record in said] == [
        f"run p: attempt 1 of step charge (row 2) failed, the next one begins in 0 s: {where}",
        f"run p: attempt 2 of step charge (row 2) failed, the next one begins in 0 s: {where}",
        f"run p: attempt 3 of step charge (row 2) failed, and there is no other one: {where}",
        f"run p (pay) failed: StepFailed: Step charge failed after 3 attempts: {where}",
    ]
    run: dict[str, Any] = {"run_id": "p", "workflow": "pay"}
    assert [fields(record) for record in said] == [
        *(run | {"step": "charge", "seq": 2, "attempt": n} for n in (1, 2, 3)),
        run,
    ]


@awaited
async def test_a_failed_run_that_nobody_waits_for_is_logged_with_its_traceback(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, workflows=[pay]) as engine:
        await reached(await engine.start(pay(5), id="p"), "failed")
        with pytest.raises(RunFailed):
            await engine.run(pay(5), id="q")
    alone, awaited_for = of(caplog, "perdure.run")
    assert "in charge\n    raise Declined" in logging.Formatter().format(alone)
    assert alone.exc_info is not None
    assert awaited_for.exc_info is None


@pytest.mark.parametrize("main", [pay_in_a_thread, pay_with_sql], ids=["in a thread", "with SQL"])
def test_steps_of_every_kind_log_the_same(
    main: Any, db: str, caplog: pytest.LogCaptureFixture
) -> None:
    @awaited
    async def fails() -> None:
        async with Engine(db, workflows=[main]) as engine:
            with pytest.raises(RunFailed):
                await engine.run(main(), id="p")

    fails()
    steps = of(caplog, "perdure.step")
    assert [(record.attempt, record.seq) for record in steps] == [(1, 2), (2, 2)]  # type: ignore[attr-defined]
    assert "no other one" in steps[1].getMessage()


@awaited
async def test_a_child_that_fails_is_a_warning_its_parent_decides(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, workflows=[pay_by_child]) as engine:
        assert await engine.run(pay_by_child(), id="p") == "by other means"
    (failed,) = of(caplog, "perdure.run")
    assert failed.levelname == "WARNING"
    assert fields(failed)["workflow"] == "pay"


@awaited
async def test_a_filter_that_fails_costs_the_line_and_not_the_run(
    db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    loggers = [logging.getLogger(name) for name in ("perdure.run", "perdure.step")]
    for logger in loggers:
        logger.addFilter(broken)
    try:
        async with Engine(db, workflows=[pay]) as engine:
            with pytest.raises(RunFailed, match="too"):
                await engine.run(pay(5), id="p")
    finally:
        for logger in loggers:
            logger.removeFilter(broken)
    assert capsys.readouterr().err.count("Traceback (most recent") == 4


@awaited
async def test_a_blocked_run_is_an_error_with_its_reason(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, workflows=[pay], limits=Limits(history_rows_max=2)) as engine:
        await engine.start(pay(5), id="p")
        await reached(await engine.get("p"), "blocked")
    (blocked,) = [
        record for record in of(caplog, "perdure.run") if "blocked" in record.getMessage()
    ]
    assert blocked.levelname == "ERROR"
    assert "its history has" in blocked.getMessage()
    assert fields(blocked) == {"run_id": "p", "workflow": "pay"}


# --- workers --------------------------------------------------------------------------------------


@pytest.fixture
def other(db: str) -> Iterator[SqliteStore]:
    store = SqliteStore(db, limits=Limits())
    yield store
    store.close()


@awaited
async def test_a_worker_that_was_taken_for_dead_says_so_and_what_goes_on(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is taken over by the same engine as another worker; the attempt that was under way is
    named.
    """
    begun, attempts = asyncio.Event(), iter([1, 2])

    @step
    async def held() -> int:
        begun.set()
        if next(attempts) == 1:
            await asyncio.Event().wait()
        return 1

    @workflow
    async def main() -> int:
        return await held()

    async with Engine(db, workflows=[main], lease_ttl=1) as engine:
        run = await engine.start(main(), id="m")
        await begun.wait()
        store = SqliteStore(db, limits=Limits())
        store.write([EndWorker(1, 0, True)], True)
        store.close()
        assert await run.result() == 1
    assert ("perdure.worker", "ERROR", 1) in [
        (one.name, one.levelname, one.worker)  # type: ignore[attr-defined]
        for one in of(caplog, "perdure.worker")
    ]
    (taken,) = [
        record for record in of(caplog, "perdure.run") if "goes on here" in record.getMessage()
    ]
    assert taken.levelname == "WARNING"
    assert fields(taken) == {
        "run_id": "m",
        "workflow": "main",
        "step": "held",
        "seq": 2,
        "attempt": 1,
    }


@awaited
async def test_the_death_of_a_worker_is_logged_and_so_are_runs_over_which_too_many_died(
    db: str, other: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(pay(1), id="kills")
        await client.start(pay(2), id="innocent")
    ghost: Any = None
    (ghost,) = other.write([JoinWorker("ghost", "elsewhere", 999_999, "", 0, 0)], True)
    other.write([Claim(ghost, ("pay",), 10, 2**60)], True)
    for run in (1, 2):
        other.write(
            [Turn(run, ghost, [], 1, suspend=Suspend("running" if run == 1 else "waiting"))], True
        )
    async with Engine(db, workflows=[pay], limits=Limits(crashes_max=1), lease_ttl=1):
        (dead,) = await until(
            lambda: [one for one in of(caplog, "perdure.worker") if "is dead" in one.getMessage()]
        )
    assert (dead.levelname, dead.worker) == ("WARNING", ghost)
    assert (
        dead.getMessage()
        == f"worker {ghost} (ghost, pid 999999) is dead; its runs (1) go on where a worker is alive"
    )
    (blocked,) = [
        record for record in of(caplog, "perdure.run") if "blocked" in record.getMessage()
    ]
    assert blocked.levelname == "ERROR"
    assert "the process died 1 times" in blocked.getMessage()
    assert fields(blocked) == {"run_id": "kills", "workflow": "pay", "worker": ghost}


@awaited
async def test_a_due_run_of_a_workflow_that_nobody_knows_is_logged_once(
    db: str, other: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, execute=False) as client:
        for number in range(3):
            await client.start(pay(number), id=f"p{number}")
        await client.start(pay_in_a_thread(), id="t")
        await client.start(pay_by_child(), id="later", at=datetime(2400, 1, 1, tzinfo=UTC))
    unserved = Unserved(other, {"pay_in_a_thread"})
    for _ in range(10):
        unserved.look(7, 2**42, 2)
    (said,) = of(caplog, "perdure.worker")
    assert said.levelname == "WARNING"
    assert fields(said) == {"run_id": "p0", "workflow": "pay", "worker": 7}
    assert "Known here: pay_in_a_thread" in said.getMessage()


@awaited
async def test_a_workflow_that_becomes_known_in_time_or_is_known_to_another_worker_is_not_logged(
    db: str, other: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(pay(1), id="p1")
        await client.start(pay(2), id="p2")
    known: set[str] = set()
    unserved = Unserved(other, known)
    unserved.look(7, 2**42, 2)
    unserved.look(7, 2**42, 2)
    known.add("pay")
    unserved.look(7, 2**42, 2)
    known.clear()
    worker: Any = None
    (worker,) = other.write([JoinWorker("w", "here", 1, "", 0, 0)], True)
    other.write([Claim(worker, ("pay",), 1, 2**42)], True)
    for _ in range(10):
        unserved.look(7, 2**42, 2)
    assert of(caplog, "perdure.worker") == []


@awaited
async def test_an_engine_looks_for_such_runs(db: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(pay(1), id="p")
    async with Engine(db, workflows=[pay_in_a_thread], lease_ttl=1):
        (said,) = await until(lambda: of(caplog, "perdure.worker"))
    assert fields(said)["run_id"] == "p"


# --- the filter -----------------------------------------------------------------------------------


class Lines(logging.Handler):
    """Keeps what it is given, as text."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(RunContextFilter(**options))
        self.setFormatter(
            logging.Formatter("%(run_id)s %(workflow)s %(step)s %(seq)s %(attempt)s: %(message)s")
        )

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def handler() -> Iterator[Lines]:
    made = Lines()
    log.addHandler(made)
    yield made
    log.removeHandler(made)


@step(retry=Retry(attempts=2, delay=0))
async def says() -> None:
    log.info("in a step")
    await asyncio.to_thread(log.info, "in a thread of a step")
    if log.handlers:
        raise Declined("once more")


@step
def says_in_a_thread() -> None:
    log.info("in a plain step")


@step(transactional=True)
def says_with_sql(db: Any) -> None:
    log.info("in a transactional step")


@workflow
async def speaks() -> None:
    log.info("began")
    try:
        await says()
    except Exception:
        log.info("failed", extra={"step": "mine"})
    await says_in_a_thread()
    await says_with_sql()
    await receive("go")
    log.info("went")


@awaited
async def test_lines_of_user_code_say_where_they_come_from_and_once(
    db: str, handler: Lines
) -> None:
    """Also after a restart, when the workflow's code runs again."""
    log.info("outside")
    async with Engine(db, workflows=[speaks]) as engine:
        await reached(await engine.start(speaks(), id="s"), "waiting")
    async with Engine(db, workflows=[speaks]) as engine:
        await engine.send("s", None, channel="go")
        await (await engine.get("s")).result()
    assert handler.lines == [
        "- - - - -: outside",
        "s speaks - - -: began",
        "s speaks says 2 1: in a step",
        "s speaks says 2 1: in a thread of a step",
        "s speaks says 2 2: in a step",
        "s speaks says 2 2: in a thread of a step",
        "s speaks mine - -: failed",
        "s speaks says_in_a_thread 5 1: in a plain step",
        "s speaks says_with_sql 7 1: in a transactional step",
        "s speaks - - -: went",
    ]


def test_the_filter_keeps_the_fields_of_perdures_own_records_and_fills_the_rest() -> None:
    record = logging.LogRecord("perdure.run", logging.ERROR, "", 0, "x", None, None)
    record.__dict__ |= {"run_id": "r", "step": None}
    assert RunContextFilter(default=None).filter(record)
    assert (record.run_id, record.step, record.attempt) == ("r", None, None)  # type: ignore[attr-defined]


def test_no_field_takes_the_place_of_one_that_python_sets() -> None:
    record = logging.LogRecord("n", logging.ERROR, "", 0, "x", None, None)
    assert not set(FIELDS) & ({*vars(record)} | {"message", "asctime"})
