"""Each law of a history, shown a history that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from campaigns import kernel_sim
from campaigns.corpus import CASES, Case
from campaigns.kernel_sim import World, kernel_of
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.testing import invariants
from perdure.testing.invariants import InvariantViolated

SEQUENTIAL = CASES[0]


def rows() -> list[Event]:
    world = World(SEQUENTIAL, seed=1)
    world.run()
    return world.rows


def test_a_good_history_passes() -> None:
    invariants.in_order(rows())
    invariants.recorded_once(rows())
    invariants.only_grown(rows()[:3], rows())
    invariants.replay_every_prefix(lambda: kernel_of(SEQUENTIAL), rows())


@pytest.mark.parametrize(
    ("law", "change", "says"),
    [
        (invariants.in_order, lambda rows: rows.pop(3), "numbered"),
        (invariants.in_order, lambda rows: rows.insert(3, rows[3]), "numbered"),
        (
            invariants.in_order,
            lambda rows: rows.__setitem__(2, replace(rows[2], at_ms=0)),
            "before row",
        ),
        (
            invariants.in_order,
            lambda rows: rows.append(replace(rows[2], seq=rows[-1].seq + 1, at_ms=rows[-1].at_ms)),
            "behind the end",
        ),
        (
            invariants.recorded_once,
            lambda rows: rows.append(replace(rows[2], seq=99)),
            "second answer to row 2",
        ),
        (
            invariants.recorded_once,
            lambda rows: rows.insert(1, Event(2, ev.COMPLETED, 0, 77)),
            "asks for nothing",
        ),
        (
            invariants.replied_once,
            lambda rows: rows.append(Event(99, ev.REPLY, 0, 1)),
            "replies to row 1, which is no request",
        ),
        (
            invariants.replied_once,
            lambda rows: rows.extend(
                Event(97 + n, kind, 0, ref)
                for n, (kind, ref) in enumerate(
                    [(ev.REQUEST, None), (ev.REPLY, 97), (ev.REFUSE, 97)]
                )
            ),
            "second reply to the request in 97",
        ),
        (
            lambda changed: invariants.only_grown(rows(), changed),
            lambda rows: rows.pop(),
            "are left",
        ),
        (
            lambda changed: invariants.only_grown(rows(), changed),
            lambda rows: rows.__setitem__(2, replace(rows[2], data=b"9")),
            "has become",
        ),
    ],
)
def test_a_bad_history_is_found(law: Any, change: Any, says: str) -> None:
    changed = rows()
    change(changed)
    with pytest.raises(InvariantViolated, match=says):
        law(changed)


def test_a_step_that_began_before_its_row_was_on_disk_is_found() -> None:
    invariants.commit_before_effect({(1, 2)}, {1: rows()})
    for begun, on_disk in [((1, 2), {1: rows()[:1]}), ((1, 3), {1: rows()}), ((7, 2), {1: rows()})]:
        with pytest.raises(InvariantViolated, match="was not on disk"):
            invariants.commit_before_effect({begun}, on_disk)


def test_a_recorded_row_that_is_not_on_disk_is_found() -> None:
    recorded = {(1, row.seq): row for row in rows()}
    invariants.recorded_stays(recorded, {1: rows()})
    for on_disk in ({}, {2: rows()}, {1: rows()[:-1]}, {1: rows()[1:]}):
        with pytest.raises(InvariantViolated, match="was recorded and is lost"):
            invariants.recorded_stays(recorded, on_disk)
    with pytest.raises(InvariantViolated, match="was recorded as step double and is step triple"):
        invariants.recorded_stays(
            recorded,
            {1: [replace(row, name="triple") if row.kind == ev.STEP else row for row in rows()]},
        )


def test_a_step_that_begins_again_after_its_outcome_was_recorded_is_found() -> None:
    invariants.not_begun_again({(1, 2)}, {1: rows()[:2], 2: rows()})
    with pytest.raises(InvariantViolated, match="begun again"):
        invariants.not_begun_again({(1, 2)}, {1: rows()[:3]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.__setitem__(3, replace(rows[3], name="triple")), "step triple"),
        (lambda rows: rows.__setitem__(3, replace(rows[3], data=b'{"n":5}')), '{"n":5}'),
        (lambda rows: rows.pop(3), "history has nothing more"),
        (lambda rows: rows.__setitem__(-1, replace(rows[-1], data=b"0")), "finish completed 0"),
        (
            lambda rows: rows.append(Event(rows[-1].seq + 1, ev.TAG, rows[-1].at_ms)),
            "asks for: nothing",
        ),
    ],
)
def test_a_history_that_the_code_does_not_ask_for_is_found(change: Any, says: str) -> None:
    changed = rows()
    change(changed)
    with pytest.raises(InvariantViolated, match=says):
        invariants.replay_every_prefix(lambda: kernel_of(SEQUENTIAL), changed)


def test_the_laws_of_the_simulator_find_a_workflow_that_is_wrong() -> None:
    from tests.testing import flows

    wrong = Case("wrong", flows.counts_in_a_global())
    found = 0
    for law in kernel_sim.INVARIANTS.values():
        with pytest.raises(Exception, match=r"row|saw|history"):
            law(wrong, 0)
        found += 1
    assert found == len(kernel_sim.INVARIANTS) == 5
