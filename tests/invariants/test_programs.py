"""The invariants of the kernel for random programs: a tree of asyncio's verbs from
each seed.

Rules: a failure names the seed, and `program(seed)` makes it again; more seeds: `python -m
campaigns --only programs`.
"""

from __future__ import annotations

import pytest

from campaigns import kernel_sim
from campaigns.random_workflows import program

SEEDS_EACH = 10


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("invariant", ["prefixes", "crashes_often", "values", "notes"])
def test_every_law_holds_for_random_programs(invariant: str, part: int) -> None:
    for seed in range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH):
        try:
            kernel_sim.INVARIANTS[invariant](program(seed), seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
