"""The laws of the kernel, over the corpus and many seeded schedules. A failure names its seed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import msgspec
import pytest

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.testing.corpus import AFTER, BEFORE, CASES, Case
from perdure.testing.programs import program
from perdure.testing.sim import Watching, World, kernel_of

SEEDS = range(12)
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def facts(rows: Sequence[Event | Command]) -> list[tuple[object, ...]]:
    """Rows or commands as they compare; of a recorded error its traceback is left out."""
    return [(row.seq, row.kind, row.at_ms, row.ref, row.name, _without_traceback(row)) for row in rows]


def _without_traceback(row: Event | Command) -> object:
    if (row.kind, row.name) != (ev.FINISH, "failed"):
        return row.data
    assert isinstance(row.data, bytes)
    error = msgspec.json.decode(row.data)
    return error["type"], error["message"]


def asked_next(rows: list[Event], end: int) -> list[Event]:
    """What a replay of the first `end` rows has to ask for: the rest of the group of commands that the cut went through."""
    return list(takewhile(lambda row: row.kind in ev.COMMANDS, rows[end:]))


@every_case
def test_replay_of_every_prefix_asks_for_what_the_history_has_next(case: Case) -> None:
    for seed in SEEDS:
        world = World(case, seed, noise=bool(seed % 2))
        world.run()
        for end in range(1, len(world.rows) + 1):
            kernel = kernel_of(case)
            assert facts(kernel.replay(world.rows[:end])) == facts(asked_next(world.rows, end)), f"seed {seed}, prefix of {end} rows"
            kernel.discard()


@every_case
def test_a_crash_after_any_row_changes_nothing(case: Case) -> None:
    for seed in SEEDS:
        calm = World(case, seed)
        calm.run()
        for end in range(1, len(calm.rows)):
            crashed = World(case, seed)
            crashed.run(crash_after=end)
            assert facts(crashed.rows) == facts(calm.rows), f"seed {seed}, crash after row {end}"


@every_case
def test_many_crashes_of_one_run_change_nothing(case: Case) -> None:
    for seed in SEEDS:
        calm = World(case, seed, noise=True)
        calm.run()
        points = random.Random(seed).choices(range(1, len(calm.rows)), k=5)
        crashed = World(case, seed, noise=True)
        crashed.run(points)
        assert facts(crashed.rows) == facts(calm.rows), f"seed {seed}, crashes after rows {sorted(points)}"


@every_case
def test_every_command_is_answered_at_most_once_and_rows_are_in_order(case: Case) -> None:
    for seed in SEEDS:
        world = World(case, seed)
        world.run()
        answers = [row.ref for row in world.rows if row.kind in (ev.COMPLETED, ev.FAILED, ev.FIRED)]
        assert len(answers) == len(set(answers)), f"seed {seed}"
        assert [row.seq for row in world.rows] == list(range(1, len(world.rows) + 1)), f"seed {seed}"
        times = [row.at_ms for row in world.rows]
        assert times == sorted(times), f"seed {seed}"


@every_case
def test_replay_hands_over_the_values_that_the_workflow_saw_live(case: Case) -> None:
    for seed in SEEDS:
        live, again = Watching(), Watching()
        world = World(case, seed, codec=live)
        world.run()
        kernel_of(case, again).replay(world.rows)
        assert again.seen == live.seen, f"seed {seed}"


def test_a_change_guarded_by_patched_takes_over_runs_at_any_row() -> None:
    """Runs begun by the old code end under the new one, on the path where their history leaves the choice."""
    for seed in SEEDS:
        old = World(BEFORE, seed)
        old.run()
        for end in range(1, len(old.rows)):
            taken_over = World(AFTER, seed, rows=old.rows[:end])
            taken_over.run()
            assert taken_over.rows[:end] == old.rows[:end], f"seed {seed}, taken over after row {end}"
            again = kernel_of(AFTER)
            assert again.replay(taken_over.rows) == [], f"seed {seed}, taken over after row {end}"
            assert again.outcome == taken_over.kernel.outcome, f"seed {seed}, taken over after row {end}"


_REPLAY = """
import sys
import msgspec
from perdure.core.events import Event
from perdure.testing.sim import kernel_of
from tests.laws.test_laws import hash_cases
histories = msgspec.msgpack.decode(sys.stdin.buffer.read())
for case in hash_cases():
    assert kernel_of(case).replay([Event(*row) for row in histories[case.name]]) == [], case.name
print("replayed", len(histories))
"""


def hash_cases() -> list[Case]:
    return CASES + [program(seed) for seed in range(60)]


@pytest.mark.parametrize("hash_seed", ["0", "1", "77"])
def test_another_process_with_another_hash_seed_replays_the_same(hash_seed: str) -> None:
    """The order of sets of strings differs there, and so do the addresses that coroutines hash by."""
    histories = {}
    for case in hash_cases():
        world = World(case, seed=5)
        world.run()
        histories[case.name] = [msgspec.structs.astuple(row) for row in world.rows]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", _REPLAY],
        input=msgspec.msgpack.encode(histories),
        capture_output=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.stdout.decode() == f"replayed {len(histories)}\n", done.stderr.decode()
