"""Fixtures of the conformance suite: a database of each backend, and stores on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from perdure.core.limits import Limits
from perdure.store.base import Store
from tests.store.conformance.backends import BACKENDS, Backend
from tests.store.conformance.recording import CALLS, Recording
from tests.store.conformance.support import OpenStore


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test with each backend that has what it needs."""
    asked = set(metafunc.fixturenames)
    if "backend" not in asked:
        return
    backends = [
        backend
        for backend in BACKENDS
        if (backend.shared or not asked & {"other", "race"})
        and (backend.checksum is not None or "checked" not in asked)
    ]
    metafunc.parametrize("backend", backends, ids=lambda one: one.name, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    return cast("Backend", request.param)


@pytest.fixture
def open_store(backend: Backend, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens another store on the database of the test, as another process would."""
    database = backend.new_database(tmp_path)
    opened: list[Store] = []

    def open_one(limits: Limits | None = None) -> Store:
        store = cast("Store", Recording(backend.open(database, limits or Limits()), backend.name))
        opened.append(store)
        return store

    yield open_one
    for store in reversed(opened):
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def other(store: Store, open_store: OpenStore) -> Store:
    """The store of another process on the same database."""
    return open_store()


@pytest.fixture(scope="session", autouse=True)
def _report() -> Iterator[None]:
    """For test_coverage, which runs the suite: what was called, as JSON."""
    yield
    if path := os.environ.get("PERDURE_TEST_CALLS"):
        seen: dict[str, Any] = {
            name: {kind: sorted(found) for kind, found in kinds.items()}
            for name, kinds in CALLS.items()
        }
        Path(path).write_text(json.dumps(seen))
