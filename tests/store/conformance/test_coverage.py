"""The suite itself: on every backend it calls every method of the protocol and meets every refusal.

It is run once more, in a process that records what its tests really do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from perdure.core import lifecycle
from perdure.store import writes
from perdure.store.base import Store
from tests.store.conformance.backends import BACKENDS, Backend

SUITE = Path(__file__).parent
SHARED = [backend for backend in BACKENDS if backend.shared]
OF_REPLICAS = {"BeginEpoch"}
REFUSALS = {"BatchRolledBack", "NotAllowedInStep", "PayloadTooLarge", "StoreLocked"} | {
    move.outcome.__name__ for move in lifecycle.moves() if not isinstance(move.outcome, str)
}
"""Errors that a store gives or raises for what its callers do."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the tests call on stores that are shared, without those that cover much by chance: the
    table of statuses, races, and the model of queues.
    """
    path = tmp_path_factory.mktemp("coverage") / "calls.json"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "no:xdist", f"--ignore={SUITE / 'test_life_cycle.py'}"),
        *(f"--ignore={SUITE / 'test_races.py'}", f"--ignore={SUITE / 'test_queue_model.py'}"),
        *(f"--ignore={__file__}", "-k", " or ".join(of.name for of in SHARED), str(SUITE)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "PERDURE_TEST_CALLS": str(path)},
        cwd=SUITE.parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert path.exists(), done.stdout  # a test that fails is reported where it stands
    return json.loads(path.read_text())


def methods_of(protocol: type) -> set[str]:
    """Methods and attributes that a protocol names."""
    names = {*vars(protocol), *typing.get_type_hints(protocol)}
    return {name for name in names if not name.startswith("_")}


every_backend = pytest.mark.parametrize("of", SHARED, ids=lambda one: one.name)


@every_backend
def test_every_method_is_called(of: Backend, seen: Any) -> None:
    assert methods_of(Store) - set(seen[of.name]["methods"]) == set()


@every_backend
def test_every_write_is_written(of: Backend, seen: Any) -> None:
    wanted = {one.__name__ for one in typing.get_args(writes.Write)}
    without = OF_REPLICAS if of.begin_checksum is None else set()
    assert wanted - without - set(seen[of.name]["writes"]) == set()


@every_backend
def test_every_refusal_is_met(of: Backend, seen: Any) -> None:
    assert REFUSALS - set(seen[of.name]["refusals"]) == set()


def test_a_method_that_no_test_calls_is_found() -> None:
    class More(Store, typing.Protocol):
        added: int

        def another(self) -> None: ...

    assert methods_of(More) - methods_of(Store) == {"added", "another"}
    assert {"write", "run_row", "close", "path"} <= methods_of(Store)
