"""What every test may use: a place for a store, and the tests' own helpers as `tests.…` however
pytest is started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The tests start hundreds of processes; without byte code on the disk each would compile all of
# Perdure, for half of the suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A slow machine fails no example, nor the making of many. Twice as many of them:
# `--hypothesis-profile=default`.
settings.register_profile(
    "suite",
    settings.default,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


@pytest.fixture
def db(tmp_path: Path) -> str:
    """The path of a store that does not exist yet."""
    return str(tmp_path / "perdure.db")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`tests.sharing`, unless another way is asked for: `-n 4 --dist worksteal`."""
    from tests.sharing import Sharing

    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False  # the items have their order already
    return Sharing(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where all tests are run, each worker begins with modules of its own and finds the others
    compiled: rewriting assertions is most of what a first collection takes.
    """
    worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is not None and session.config.args == session.config.getini("testpaths"):
        from tests.sharing import import_part

        import_part(int(worker["workerid"].removeprefix("gw")), int(worker["workercount"]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.sharing import longest_first

        longest_first(items)
