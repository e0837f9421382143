"""The pytest plugin: fixtures for workflows.

Rules: all fixtures of one test share one store file, which ends with the test; nothing happens
before a fixture is used; no other module imports pytest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from perdure.api.definitions import Workflow
from perdure.testing import recording
from perdure.testing.crash import CrashHarness, LivingEngine, When


@pytest.fixture
def perdure_time(tmp_path: Path) -> CrashHarness:
    """Virtual time, and the test's store: `perdure_time.run(order("a"))` returns the result of a
    workflow, and `perdure_time.run(main())` runs a coroutine that uses `perdure_engine`.
    Waiting takes no time.
    """
    return CrashHarness(tmp_path / "perdure.db")


@pytest.fixture
def perdure_engine(perdure_time: CrashHarness) -> Callable[..., LivingEngine]:
    """Engines on the test's store, made as `Engine` is but without a path: `async with` one of them
    and use it. Time is virtual in `perdure_time.run(...)`, and the machine's in an async test of
    pytest-asyncio or anyio.
    """
    return perdure_time.engine


@pytest.fixture
def perdure_crash_after(
    perdure_time: CrashHarness,
) -> Callable[[int, When], AbstractContextManager[None]]:
    """A kill -9. The engine dies after its third commit in
    `with perdure_crash_after(3): perdure_time.run(...)`; the next `perdure_time.run` goes on with
    the file. `perdure_crash_after(3, "before")` loses the third commit.
    """
    return perdure_time.crash_after


@pytest.fixture
def perdure_recorded(
    request: pytest.FixtureRequest,
) -> Callable[[str | os.PathLike[str], Iterable[Workflow[..., Any]]], None]:
    """`perdure_recorded("orders.json", [order])` replays an exported run (or every run of a store
    file) against today's code. The path counts from the folder of the test's own file.
    """

    def replay(path: str | os.PathLike[str], workflows: Iterable[Workflow[..., Any]]) -> None:
        file = request.path.parent / path
        if file.suffix == ".json":
            recording.replay_recorded(file, workflows)
        else:
            recording.replay_file(file, workflows)

    return replay
