"""Queues under random clients, workers that die, clocks that jump and transactions that fail."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest

from perdure.store.base import Store
from tests.store.conformance.queue_line import Line
from tests.store.conformance.queue_support import claimed, end, enqueue, ids
from tests.store.conformance.queue_world import World
from tests.store.conformance.support import join, queue

SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", "6"))
FIRST = int(os.environ.get("PERDURE_TEST_FIRST_SEED", "0"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_limits_hold_and_nothing_is_stuck(store: Store, other: Store, seed: int) -> None:
    print("seed", seed)
    world = World([store, other], seed)
    for _ in range(150):
        world.act()
        world.settle()
    world.drain()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_the_order_is_exact(store: Store, seed: int) -> None:
    """Priority, then turns of keys, then age, as a list that is searched from its start."""
    print("seed", seed)
    rng = random.Random(seed)
    worker = join(store)
    queue(store, concurrency=1)
    running = enqueue(store, "first", owner=worker).run
    line: list[tuple[int, str, int]] = []
    turns: dict[tuple[int, str], int] = {}
    last = 0
    number = 0
    for _ in range(200):
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
            number += 1
            priority, key = rng.choice([0, 0, 1]), rng.choice(["", "a", "b", "c"])
            enqueue(store, f"r{number}", key=key or None, priority=priority)
            if (priority, key) not in turns:
                others = [had for (at, _), had in turns.items() if at == priority]
                turns[priority, key] = min(others, default=last)
            line.append((priority, key, number))
        end(store, running, worker)
        if not line:
            running = enqueue(store, f"x{number}-{len(turns)}-{_}-{rng.random()}", owner=worker).run
            continue
        wanted = min(line, key=lambda one: (-one[0], turns[one[0], one[1]], one[2]))
        line.remove(wanted)
        priority, key, _ = wanted
        last = max(last, turns[priority, key])
        turns[priority, key] += 1
        if not any(one[:2] == (priority, key) for one in line):
            del turns[priority, key]
        (running,) = claimed(store, worker).runs
        assert ids(store, [running]) == [f"r{wanted[2]}"], f"seed {seed}"


def test_priorities_hold_over_workers_that_die_and_runs_that_move(store: Store) -> None:
    """Places go from worker to worker and wait without one: none overtakes a higher priority of a
    run that has a worker, whatever write admits it.
    """
    for seed in range(FIRST, FIRST + SEEDS):
        print("seed", seed)
        line = Line(store, random.Random(seed))
        for _ in range(120):
            line.act()
            line.check()


def test_keys_are_served_alike_whatever_they_ask_for(store: Store) -> None:
    """A tenant with a thousand runs does not delay one with ten."""
    rng = random.Random(1)
    worker = join(store)
    queue(store, concurrency=1)
    running = enqueue(store, "first", owner=worker).run
    asks = [("many", n) for n in range(120)] + [(key, n) for key in "abc" for n in range(10)]
    rng.shuffle(asks)
    for key, n in asks:
        enqueue(store, f"{key}{n}", key=key)
    served: dict[str, int] = defaultdict(int)
    for _ in range(40):
        end(store, running, worker)
        (running,) = claimed(store, worker).runs
        served[store.run_row(running).key or ""] += 1
    assert served == {"many": 10, "a": 10, "b": 10, "c": 10}
