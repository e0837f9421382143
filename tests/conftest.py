"""What every test may use: a place for a store, and the tests' own helpers as `tests.…` however
pytest is started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The tests start hundreds of processes; without byte code on the disk each would compile all of
# Perdure, for half of the suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def db(tmp_path: Path) -> str:
    """The path of a store that does not exist yet."""
    return str(tmp_path / "perdure.db")
