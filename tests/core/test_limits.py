"""Limits are whole numbers, checked where they are given."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from perdure import DefinitionError, Limits

NAMES = [field.name for field in fields(Limits)]
FROM_ZERO = {"runs_parked_max", "threads_hung_max"}


@pytest.mark.parametrize("wrong", [-1, True, 1.0, math.nan, math.inf, None, "5", 2**60], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_limit_is_refused_by_name(name: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=f"Limits: {name} is a whole number from"):
        Limits(**{name: wrong})


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_limit(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1
    if name in FROM_ZERO:
        assert getattr(Limits(**{name: 0}), name) == 0
    else:
        with pytest.raises(DefinitionError, match=name):
            Limits(**{name: 0})
