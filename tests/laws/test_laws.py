"""The laws of the kernel, over the corpus and many seeded schedules. A failure names its seed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.corpus import CASES, Case
from tests.laws.simulator import World, kernel_of

from perdure.core import events as ev
from perdure.core.events import Event

SEEDS = range(12)
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def facts(rows: list[Event]) -> list[tuple[object, ...]]:
    """Rows as they compare; a recorded error's traceback is left out."""
    return [(row.seq, row.kind, row.at_ms, row.ref, row.name, None if row.kind == ev.FINISH else row.data) for row in rows]


@every_case
def test_replay_of_every_prefix_asks_for_what_the_history_has_next(case: Case) -> None:
    for seed in SEEDS:
        world = World(case, seed)
        world.run()
        rows = world.rows
        for end in range(1, len(rows) + 1):
            kernel = kernel_of(case)
            asked = kernel.replay(rows[:end])
            group = []
            for row in rows[end:]:
                if row.kind not in ev.COMMANDS:
                    break
                group.append(row)
            found = [(command.seq, command.kind, command.name, command.ref) for command in asked]
            assert found == [(row.seq, row.kind, row.name, row.ref) for row in group], f"seed {seed}, prefix of {end} rows"
            kernel.discard()


@every_case
def test_a_crash_after_any_row_changes_nothing(case: Case) -> None:
    for seed in SEEDS:
        calm = World(case, seed)
        outcome = calm.run().outcome
        for end in range(1, len(calm.rows)):
            crashed = World(case, seed)
            assert type(crashed.run(crash_after=end).outcome) is type(outcome), f"seed {seed}, crash after row {end}"
            assert facts(crashed.rows) == facts(calm.rows), f"seed {seed}, crash after row {end}"


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


_REPLAY = """
import sys
import msgspec
from perdure.core.events import Event
from tests.corpus import CASES
from tests.laws.simulator import kernel_of
histories = msgspec.msgpack.decode(sys.stdin.buffer.read())
for case in CASES:
    kernel_of(case).replay([Event(*row) for row in histories[case.name]])
print("replayed", len(histories))
"""


@pytest.mark.parametrize("hash_seed", ["0", "1", "77"])
def test_another_process_with_another_hash_seed_replays_the_same(hash_seed: str) -> None:
    """The order of sets of strings differs there, and so do the addresses that coroutines hash by."""
    histories = {}
    for case in CASES:
        world = World(case, seed=5)
        world.run()
        histories[case.name] = [dataclasses.astuple(row) for row in world.rows]
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
    assert done.stdout.decode() == f"replayed {len(CASES)}\n", done.stderr.decode()
