"""Random programs forget tasks whose errors the collector reports; it is to do so here, not in the
middle of another module's test.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    yield
    gc.collect()
