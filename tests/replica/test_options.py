"""The options of a replica: what can't be right is refused where the value is made."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from perdure import DefinitionError, Engine, Replica, SyncEngine


@pytest.mark.parametrize(
    "option",
    [
        *({"fencing": value} for value in ("clocks", None, 1)),
        *({"standby": value} for value in ("yes", None, 1)),
        *({"drill_every": value} for value in (0, -1, math.nan, math.inf, "2", True)),
        *({"on_wait": value} for value in ("loud", 5)),
        *({"on_progress": value} for value in ("loud", 5)),
    ],
    ids=lambda option: ascii(option),
)
def test_an_option_of_a_replica(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(option))):
        Replica("file:///folder", **option)


def test_a_standby_needs_a_lease_that_it_can_wait_for() -> None:
    with pytest.raises(DefinitionError, match="standby=True waits for a lease"):
        Replica("file:///folder", standby=True, fencing=False)


@pytest.mark.parametrize("address", [5, b"file:///folder", "", "ftp://x/y"])
def test_an_address_that_can_not_be_used(address: Any) -> None:
    with pytest.raises(DefinitionError):
        Replica(address)


def test_an_address_alone_is_a_replica_with_the_defaults() -> None:
    assert Engine("a.db", replica="file:///folder")._options.replica == Replica("file:///folder")
    assert Replica("file:///folder") == Replica("file:///folder", fencing=True, standby=False)


@pytest.mark.parametrize("name", ["fencing", "standby", "drill_every", "on_wait"])
@pytest.mark.parametrize("make", [Engine, SyncEngine])
def test_an_option_that_was_the_engines_says_where_it_is_now(make: Any, name: str) -> None:
    with pytest.raises(DefinitionError, match=rf"replica=Replica\(.*, {name}=\.\.\.\)"):
        make("a.db", replica="file:///folder", **{name: True})
    with pytest.raises(TypeError, match="unexpected keyword argument 'fence'"):
        make("a.db", fence=True)


def test_a_program_without_a_replica_loads_nothing_of_it_but_the_options() -> None:
    code = "import sys, perdure; print(*(m for m in sys.modules if 'perdure.replica' in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["perdure.replica", "perdure.replica.options"]
