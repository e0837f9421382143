"""`assert_survives_every_crash` finds what is wrong, and lets pass what is right."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from campaigns.corpus import CASES, Case
from campaigns.main import survives
from perdure import DefinitionError, NotSerializable, step, workflow
from perdure.testing import InvariantViolated, NothingLeftToWaitFor, assert_survives_every_crash
from tests.testing import flows
from tests.testing.flows import DONE

HERE_ONLY: tuple[int, ...] = ()  # no other process: most tests are about crashes


@pytest.mark.parametrize(
    ("seed", "case"), list(enumerate(CASES)), ids=[case.name for case in CASES]
)
def test_the_corpus_survives_on_the_real_engine(case: Case, seed: int) -> None:
    """One seed each; more of them: `python -m campaigns --only engine`."""
    assert survives(case, seed) >= 6


# --- right workflows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (flows.doubles(3), {"seeds": range(3)}),
        (flows.patient(4), {}),
        (flows.approval(), {"messages": [("approval", True)]}),
        (flows.approval(), {"messages": [("approval", True, 24 * 3600)], "seeds": range(2)}),
        (flows.approval(), {}),
        (flows.approval(), {"cancel_after": 60}),
        (flows.approval(), {"timeout": 60}),
        (flows.booking(7), {}),
        (flows.paying_with_key(7), {"once": DONE}),
        (flows.counting(2), {}),
        (flows.failing("because"), {}),
        (flows.dies_of_a_cancel(), {"cancel_after": 5}),
    ],
    ids=lambda value: value.definition.name if hasattr(value, "definition") else None,
)
def test_a_right_workflow_survives(call: Any, options: dict[str, Any]) -> None:
    found = assert_survives_every_crash(call, hash_seeds=HERE_ONLY, **options)
    assert found.crashes >= 6 * found.seeds


def test_the_outcome_of_the_undisturbed_run_is_the_expected_one() -> None:
    """An error, a cancel and a time limit are outcomes as well; here is which."""
    seen: list[Any] = []

    def same(one: Any, other: Any) -> bool:
        seen.extend([one, other])
        return bool(one == other)

    assert_survives_every_crash(
        flows.approval(),
        messages=[("approval", False, 3 * 24 * 3600 - 1)],
        same=same,
        hash_seeds=HERE_ONLY,
    )
    assert set(seen) == {"no"}
    seen.clear()
    assert_survives_every_crash(flows.failing("because"), same=same, hash_seeds=HERE_ONLY)
    assert {"because" in text for text in seen} == {True}


def test_replay_in_other_processes_is_counted() -> None:
    assert assert_survives_every_crash(flows.doubles(2), only=("after", 2)).elsewhere == 2

    @workflow
    async def local() -> int:
        return await flows.double(1)

    assert (
        assert_survives_every_crash(local(), only=("after", 2)).elsewhere == 0
    )  # nobody else can import it


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"only": ("after", 999)}, "is no place of this run"),
        ({"only": ("during", 1)}, "is no place of this run"),
        ({"seeds": []}, "one or more whole numbers"),
        ({"seeds": "12"}, "one or more whole numbers"),
        ({"messages": [("approval",)]}, "messages are"),
        ({"messages": "a channel"}, "messages are"),
    ],
)
def test_what_would_try_nothing_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        assert_survives_every_crash(flows.doubles(2), **wrong)


def test_children_that_are_cancelled_while_they_clean_up() -> None:
    """The engine closes while they are at it, and time goes on meanwhile."""
    found = assert_survives_every_crash(
        flows.leaves_a_child(), cancel_after=0.2, hash_seeds=HERE_ONLY, seeds=range(2)
    )
    assert found.crashes >= 12


@pytest.mark.parametrize("to", ["child", flows.approval], ids=["id", "workflow"])
def test_a_message_may_be_for_a_child(to: Any) -> None:
    """It is sent as soon as there is one, which here is after an hour."""
    outcomes = set[str]()

    def same(one: Any, other: Any) -> bool:
        outcomes.update([one, other])
        return bool(one == other)

    assert_survives_every_crash(
        flows.asks_a_child(),
        messages=[("approval", True, 60, to), ("go", None)],
        same=same,
        hash_seeds=HERE_ONLY,
        seeds=range(2),
    )
    assert outcomes == {"child says yes"}


def test_a_message_for_a_run_that_never_comes_is_told() -> None:
    with pytest.raises(
        DefinitionError,
        match="Message 0 on channel 'approval' is for 'nobody', and there was no such run",
    ):
        assert_survives_every_crash(flows.doubles(1), messages=[("approval", True, 0, "nobody")])


def test_a_message_to_a_child_that_is_no_value_is_an_error() -> None:
    with pytest.raises(NotSerializable):
        assert_survives_every_crash(
            flows.asks_a_child(), messages=[("approval", object(), 0, "child"), ("go", None)]
        )


def test_keys_and_ids_of_children_count_as_what_they_stand_for() -> None:
    """A crash in an attempt adds a row, so those behind it have other numbers."""
    assert (
        assert_survives_every_crash(
            flows.doubles_and_pays_with_key(7), once=DONE, hash_seeds=HERE_ONLY
        ).crashes
        >= 10
    )


# --- wrong ones -----------------------------------------------------------------------------------


def broken(call: Any, **options: Any) -> str:
    options = {"hash_seeds": HERE_ONLY, **options}
    with pytest.raises(InvariantViolated) as found:
        assert_survives_every_crash(call, **options)
    return str(found.value)


@pytest.mark.parametrize(
    "call",
    [
        flows.reads_the_clock(),
        flows.throws_dice(),
        flows.counts_in_a_global(),
        flows.walks_a_set_of_objects(),
    ],
    ids=lambda call: call.definition.name,
)
def test_arguments_that_differ_on_replay_are_found(call: Any) -> None:
    text = broken(call)
    assert f"{call.definition.name}() can't be replayed, even without any crash" in text
    assert re.search(r"history, row \d+: step double .*\n +code now asks for: step double", text)


def test_a_result_that_differs_is_found() -> None:
    text = broken(flows.returns_the_clock())
    assert "finish completed" in text


def test_the_order_of_a_set_of_strings_is_found_in_another_process() -> None:
    broken_there = []
    for hash_seed in range(1, 4):  # by chance one of them may have the order that this process has
        try:
            assert_survives_every_crash(
                flows.walks_a_set("one two three four five"),
                hash_seeds=[hash_seed],
                only=("after", 1),
            )
        except InvariantViolated as error:
            broken_there.append(str(error))
    assert broken_there
    assert "can't be replayed in another process" in broken_there[0]
    assert broken_there[0].endswith("Does it walk a set of strings?")
    assert "PYTHONHASHSEED=" in broken_there[0]
    assert "code now asks for: step say" in broken_there[0]


def test_an_effect_that_is_repeated_is_found_and_told() -> None:
    text = broken(flows.pays(500), once=DONE)
    assert "pays(500) does not survive a crash before commit" in text
    assert "not done once: 500 (1 ×) too often, nothing too rarely" in text
    assert "1 start\n    2 step charge_later" in broken(flows.pays_later(500), once=DONE)


def test_an_effect_that_gets_lost_is_found() -> None:
    """A step that remembers its work as done before it does it, and whose process dies
    in between."""
    marks: list[str] = []

    @step(retry=None)
    async def marks_first(n: int) -> int:
        if "marked" not in marks:
            marks.append("marked")
            await asyncio.sleep(60)
            DONE.append(n)
        return n

    @workflow
    async def careless() -> int:
        work = asyncio.create_task(marks_first(1))
        await asyncio.sleep(1)
        await flows.double(1)  # its commits are places to die at
        return await work

    text = broken(careless(), once=DONE, before_each=marks.clear)
    assert "nothing too often, 1 (1 ×) too rarely" in text


def test_a_failure_says_how_to_repeat_it_and_that_does_it() -> None:
    text = broken(flows.pays(500), once=DONE, seeds=[4])
    place = re.search(r"seeds=\[4\], only=\('(before|after)', (\d+)\)", text)
    assert place is not None
    assert broken(flows.pays(500), once=DONE, seeds=[4], only=(place[1], int(place[2]))) == text


def test_a_result_that_a_crash_changes_is_found() -> None:
    attempts: list[int] = []

    @step
    async def tries() -> int:
        attempts.append(1)
        return len(attempts)

    @workflow
    async def counts_tries() -> int:
        return await tries()

    text = broken(counts_tries(), before_each=attempts.clear)
    assert "It is completed: 2\n  undisturbed it is completed: 1" in text


def test_a_run_that_is_blocked_without_a_crash_is_told() -> None:
    @workflow
    async def too_busy() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    text = broken(too_busy())
    assert "It is blocked" in text
    assert "callbacks without waiting" in text


def test_a_run_that_never_ends_is_told() -> None:
    with pytest.raises(NothingLeftToWaitFor, match="message that is never sent"):
        assert_survives_every_crash(flows.never_hears())


# --- how it is called -----------------------------------------------------------------------------


def test_in_an_async_test_it_says_what_to_do() -> None:
    async def main() -> int:
        with pytest.raises(DefinitionError, match=r"await asyncio\.to_thread"):
            assert_survives_every_crash(flows.doubles(2))
        found = await asyncio.to_thread(
            assert_survives_every_crash, flows.doubles(2), hash_seeds=HERE_ONLY
        )
        return found.crashes

    assert asyncio.run(main()) >= 6


@pytest.mark.parametrize("wrong", [flows.doubles, flows.double(1), 7])
def test_only_the_call_of_a_workflow_can_be_tried(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="takes the call of a workflow"):
        assert_survives_every_crash(wrong)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert_survives_every_crash(flows.doubles(2), hash_seeds=HERE_ONLY)
    assert list(tmp_path.iterdir()) == []
