"""Errors that leave a run carry the user's file and line: in the process that ran it, and in those
that come later.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Retry, RunFailed, StepFailed, receive, step, workflow
from tests.runtime.support import AT_ONCE, awaited, reached


class Declined(Exception):
    def __init__(self, code: int, page: str) -> None:
        super().__init__(f"declined {code}")
        self.code, self.page = code, page


@step(retry=AT_ONCE)
async def charge(code: int) -> None:
    raise Declined(code, "p" * 100_000)  # the line of the step


@step(retry=Retry(attempts=1))
def charge_in_a_thread(code: int) -> None:
    raise Declined(code, "")  # the line in a thread


@workflow
async def pay(code: int) -> None:
    await charge(code)  # the line of the workflow


@workflow
async def pays_by_child(code: int) -> None:
    await pay(code)  # the line of the parent


@workflow
async def pays_in_a_thread() -> None:
    await charge_in_a_thread(1)


SEEN: list[list[Any]] = []


@workflow
async def looks(code: int) -> str:
    try:
        await charge(code)
    except StepFailed as error:
        cause = error.__cause__
        assert isinstance(cause, Declined)
        SEEN.append([repr(cause), vars(cause), traceback.format_exception(cause)])
    await receive("go")
    return "went"


def line_of(text: str) -> int:
    return next(
        number
        for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
        if line.endswith(f"# {text}")
    )


def assert_shown(error: BaseException, *texts: str) -> None:
    shown = "".join(traceback.format_exception(error))
    for text in texts:
        assert f'File "{__file__}", line {line_of(text)}, in ' in shown


@awaited
async def test_run_failed_shows_the_lines_of_step_and_workflow_also_after_a_restart(
    db: str,
) -> None:
    async with Engine(db, workflows=[pay]) as engine:
        run = await engine.start(pay(402), id="p")
        with pytest.raises(RunFailed) as here:
            await run.result()
    async with Engine(db, execute=False) as client:
        with pytest.raises(RunFailed) as later:
            await (await client.get("p")).result()
        info = await client.info("p")
    for caught in (here.value, later.value):
        assert_shown(caught, "the line of the workflow", "the line of the step")
        step_failed = caught.__cause__
        assert isinstance(step_failed, StepFailed)
        assert isinstance(step_failed.__cause__, Declined)
        assert step_failed.__cause__.code == 402
    assert info.error is not None
    assert [frame["function"] for frame in info.error["frames"]] == ["pay"]
    assert [frame["function"] for frame in info.error["cause"]["frames"]] == ["charge"]


@awaited
async def test_children_and_threads_are_shown_too(db: str) -> None:
    async with Engine(db, workflows=[pays_by_child, pays_in_a_thread]) as engine:
        with pytest.raises(RunFailed) as caught:
            await engine.run(pays_by_child(402))
        assert_shown(
            caught.value,
            "the line of the parent",
            "the line of the workflow",
            "the line of the step",
        )
        with pytest.raises(RunFailed) as caught:
            await engine.run(pays_in_a_thread())
        assert_shown(caught.value, "the line in a thread")


@awaited
async def test_an_error_that_a_workflow_catches_is_the_same_live_and_on_replay(db: str) -> None:
    SEEN.clear()
    async with Engine(db, workflows=[looks]) as engine:
        await reached(await engine.start(looks(402), id="l"), "waiting")
    async with Engine(db, workflows=[looks]) as engine:
        await engine.send("l", None, channel="go")
        assert await (await engine.get("l")).result() == "went"
    assert len(SEEN) == 2
    assert SEEN[0] == SEEN[1]
    assert "charge" in SEEN[0][2][1]
