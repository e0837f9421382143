"""Fixtures of the tests over HTTP: see `tests.http.support`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.support import Serve, server


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A function that serves engines until the module's tests have ended."""
    with server(tmp_path_factory.mktemp("served")) as serve:
        yield serve
