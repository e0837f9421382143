"""What every test may use: a place for a store, and the tests' own helpers as `tests.…` however pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture
def db(tmp_path: Path) -> str:
    """The path of a store that does not exist yet."""
    return str(tmp_path / "perdure.db")
