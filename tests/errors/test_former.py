"""Histories of earlier versions decode: their errors are today's classes under today's names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import perdure
import perdure.cli
import perdure.testing
from perdure import Engine, RunFailed, errors
from perdure.codec.error_encoder import encode_error
from perdure.codec.errors import decode_error
from perdure.errors import former
from tests.errors.former import failing_app
from tests.runtime.support import awaited, reached

WORKFLOWS: list[perdure.Workflow[..., Any]] = failing_app.WORKFLOWS
HERE = Path(__file__).parent / "former"
FORMER = ["made_by_0a4b975.db", "made_by_39360e5.db"]

FAILED = {
    "times_out": (errors.StepTimeout, errors.AttemptTimeout),
    "died_and_failed": (errors.StepFailed, errors.ProcessDied),
    "left": (errors.StepFailed, errors.LeftTheProcess),
    "cancelled_itself": (errors.StepFailed, errors.CancelledByItself),
    "missing_store": (errors.StepFailed, errors.StoreNotFound),
    "bad_replica": (errors.StepFailed, errors.BadReplicaAddress),
    "chained": (errors.StepFailed, ValueError),
    "child_failed": (errors.RunFailed, errors.StepFailed),
    "sent_to_none": (errors.RunNotFound, None),
    "opened_file": (errors.NotDeterministic, None),
}


@pytest.fixture(params=FORMER)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A copy of a store that an earlier version has written."""
    return str(shutil.copy(HERE / request.param, tmp_path / "store.db"))


@pytest.fixture
def repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the app do not fail any more."""
    monkeypatch.setattr(failing_app, "repaired", True)


@awaited
async def test_failed_runs_raise_the_classes_of_today(store: str) -> None:
    async with Engine(store, execute=False) as client:
        found = {}
        for run_id in FAILED:
            with pytest.raises(RunFailed) as raised:
                await (await client.get(run_id)).result()
            error = raised.value.__cause__
            assert error is not None
            found[run_id] = (type(error), error.__cause__ and type(error.__cause__))
        assert found == FAILED


@awaited
async def test_a_replay_catches_them_as_it_did(store: str) -> None:
    async with Engine(store, workflows=WORKFLOWS) as engine:
        await engine.send("caught", "on", channel="more")
        assert await (await engine.get("caught")).result() == (
            "StepTimeout from AttemptTimeout, StepFailed from LeftTheProcess, "
            "StepFailed from CancelledByItself, StepFailed from StoreNotFound, on"
        )
        assert await (await engine.get("died_and_retried")).result() == "done at the second attempt"
        await reached(await engine.get("endless"), "blocked")
        assert "1,000,000 callbacks" in str((await (await engine.get("endless")).info()).reason)


@awaited
@pytest.mark.usefixtures("repaired")
async def test_retry_goes_on_with_them(store: str) -> None:
    async with Engine(store, workflows=WORKFLOWS) as engine:
        for run_id in ("times_out", "left", "cancelled_itself", "child_failed"):
            await engine.retry(run_id)
            assert await (await engine.get(run_id)).result() is None


@awaited
async def test_a_run_that_has_no_end_gets_one(store: str) -> None:
    """0a4b975 left a run under way for ever whose retry policy fails."""
    async with Engine(store, workflows=WORKFLOWS) as engine:
        with pytest.raises(RunFailed) as raised:
            await (await engine.get("bad_policy")).result()
        assert raised.value.__cause__ is not None
        assert isinstance(raised.value.__cause__.__cause__, errors.RetryFailed)


def test_show_prints_them(store: str) -> None:
    def show(run_id: str) -> str:
        return CliRunner().invoke(perdure.cli.main, ["show", run_id, "--store", store]).output

    shown = {run_id: show(run_id) for run_id in FAILED}
    assert (
        "AttemptTimeout: the attempt took longer than its timeout of 0.02 s" in shown["times_out"]
    )
    assert "ProcessDied: the process ended during this attempt" in shown["died_and_failed"]
    assert "LeftTheProcess: the step called sys.exit(3)" in shown["left"]
    assert all("failed" in text for text in shown.values())


def test_what_is_recorded_today_names_one_module() -> None:
    recorded = json.loads(encode_error(errors.ProcessDied()))
    assert (recorded["module"], recorded["type"]) == ("perdure.errors", "ProcessDied")


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(subclasses, cls.__subclasses__()))


def test_every_error_that_a_history_can_hold_is_known_by_its_name() -> None:
    """A class elsewhere would be recorded with the module that it happens to be in."""
    elsewhere = {
        (cls.__module__, cls.__name__)
        for cls in subclasses(perdure.PerdureError)
        if cls.__module__.startswith("perdure.") and cls.__module__ != "perdure.errors"
    }
    # Raised in the place of a wait without end, in a test: no step can raise it.
    assert elsewhere == {("perdure.testing.virtual_time", "NothingLeftToWaitFor")}
    known = subclasses(perdure.PerdureError)
    assert [
        c for c in known if c.__module__ == "perdure.errors" and getattr(errors, c.__name__) != c
    ] == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *former.FORMER,
        *(
            (module, name)
            for module in sorted(former.FORMER_MODULES)
            for name in sorted(former.RENAMED)
        ),
    ],
)
def test_a_former_name_is_a_class_of_today(module: str, name: str) -> None:
    today: Any = getattr(errors, str(former.name_today(module, name)))
    text = "what it said then"
    back = decode_error(
        json.dumps({"type": name, "module": module, "message": text, "args": [text]}).encode()
    )
    assert type(back) is today
    assert str(back) == text
