"""The invariants of the kernel, over the corpus and many seeded schedules. A failure names its
seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from campaigns import kernel_sim
from campaigns.corpus import AFTER, BEFORE, CASES, Case
from campaigns.kernel_sim import World, kernel_of
from campaigns.random_workflows import program

SEEDS = range(12)
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


every_law = pytest.mark.parametrize(
    "invariant", kernel_sim.INVARIANTS.values(), ids=list(kernel_sim.INVARIANTS)
)


@every_case
@every_law
def test_every_law_holds_for_every_workflow_of_the_corpus(
    invariant: Callable[[Case, int], int], case: Case
) -> None:
    for seed in SEEDS:
        try:
            invariant(case, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_corpus_is_large_and_its_names_are_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 25


def test_a_change_guarded_by_patched_takes_over_runs_at_any_row() -> None:
    """Runs begun by the old code end under the new one, on the path where their history leaves the
    choice.
    """
    for seed in SEEDS:
        old = World(BEFORE, seed)
        old.run()
        for end in range(1, len(old.rows)):
            taken_over = World(AFTER, seed, rows=old.rows[:end])
            taken_over.run()
            assert taken_over.rows[:end] == old.rows[:end], (
                f"seed {seed}, taken over after row {end}"
            )
            again = kernel_of(AFTER)
            assert again.replay(taken_over.rows) == [], f"seed {seed}, taken over after row {end}"
            assert again.outcome == taken_over.kernel.outcome, (
                f"seed {seed}, taken over after row {end}"
            )


_REPLAY = """
import sys
import msgspec
from perdure.core.events import Event
from campaigns.kernel_sim import kernel_of
from tests.invariants.test_kernel import hash_cases
histories = msgspec.msgpack.decode(sys.stdin.buffer.read())
for case in hash_cases():
    assert kernel_of(case).replay([Event(*row) for row in histories[case.name]]) == [], case.name
print("replayed", len(histories))
"""


def hash_cases() -> list[Case]:
    return CASES + [program(seed) for seed in range(60)]


@pytest.mark.parametrize("hash_seed", ["0", "1", "77"])
def test_another_process_with_another_hash_seed_replays_the_same(hash_seed: str) -> None:
    """The order of sets of strings differs there, and so do the addresses that
    coroutines hash by."""
    histories = {}
    for case in hash_cases():
        world = World(case, seed=5)
        world.run()
        histories[case.name] = [msgspec.structs.astuple(row) for row in world.rows]
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", _REPLAY],
        input=msgspec.msgpack.encode(histories),
        capture_output=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.stdout.decode() == f"replayed {len(histories)}\n", done.stderr.decode()
