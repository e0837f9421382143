"""What holds for every test of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.support import KERNELS


@pytest.fixture(autouse=True)
def no_run_is_left_to_the_garbage_collector() -> Iterator[None]:
    """Its coroutines would be closed somewhere in a later test, and what they raise then would be
    printed there.
    """
    yield
    while KERNELS:
        KERNELS.pop().discard()
