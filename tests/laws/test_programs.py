"""The laws of the kernel for programs that nobody wrote by hand: a tree of asyncio's verbs from each seed.

Rules: every second seed has noise between its rows; a failure names the seed, and `program(seed)` makes it again.
"""

from __future__ import annotations

import random

import pytest
from tests.laws.test_laws import asked_next, facts

from perdure.testing.programs import program
from perdure.testing.sim import Watching, World, kernel_of

SEEDS_EACH = 30
parts = pytest.mark.parametrize("part", range(8))


def seeds_of(part: int) -> range:
    return range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH)


def world_of(seed: int, **options: object) -> World:
    return World(program(seed), seed, noise=bool(seed % 2), **options)  # type: ignore[arg-type]


@parts
def test_replay_of_every_prefix_asks_for_what_the_history_has_next(part: int) -> None:
    for seed in seeds_of(part):
        world = world_of(seed)
        world.run()
        for end in range(1, len(world.rows) + 1):
            kernel = kernel_of(world.case)
            assert facts(kernel.replay(world.rows[:end])) == facts(asked_next(world.rows, end)), f"seed {seed}, prefix of {end} rows"
            kernel.discard()


@parts
def test_crashes_at_random_points_change_nothing(part: int) -> None:
    for seed in seeds_of(part):
        calm = world_of(seed)
        calm.run()
        points = random.Random(seed).choices(range(1, len(calm.rows)), k=4)
        for crashes in [points[:1], points[1:]]:
            crashed = world_of(seed)
            crashed.run(crashes)
            assert facts(crashed.rows) == facts(calm.rows), f"seed {seed}, crashes after rows {sorted(crashes)}"


@parts
def test_replay_hands_over_the_values_that_the_workflow_saw_live(part: int) -> None:
    for seed in seeds_of(part):
        live, again = Watching(), Watching()
        world = world_of(seed, codec=live)
        world.run()
        kernel_of(world.case, again).replay(world.rows)
        assert again.seen == live.seen, f"seed {seed}"
