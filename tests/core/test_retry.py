"""The retry policy is pure: same key, same waits."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from perdure import DefinitionError, Retry


def test_waits_grow_to_their_limit() -> None:
    retry = Retry(attempts=9, delay=0.5, factor=3, max_delay=10, jitter=False)
    assert [retry.wait_ms(n, "key") for n in range(1, 6)] == [500, 1500, 4500, 10_000, 10_000]


def test_jitter_takes_off_up_to_half_and_depends_on_the_key_alone() -> None:
    retry = Retry(delay=10)
    waits = {retry.wait_ms(1, f"run/{n}") for n in range(200)}
    assert len(waits) > 150
    assert all(5_000 <= wait <= 10_000 for wait in waits)
    assert retry.wait_ms(2, "same") == retry.wait_ms(2, "same")


def test_what_is_tried_again() -> None:
    retry = Retry(attempts=3, on=(OSError,), never_on=(FileNotFoundError,))
    assert retry.again(2, OSError())
    assert not retry.again(3, OSError())
    assert not retry.again(1, ValueError())
    assert not retry.again(1, FileNotFoundError())


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 2.0},
        {"attempts": None},
        {"attempts": "3"},
        {"attempts": 10**5000},
        {"delay": -1},
        {"delay": math.nan},
        {"delay": math.inf},
        {"delay": None},
        {"delay": "1"},
        {"delay": True},
        {"delay": 1e300},
        {"delay": timedelta(seconds=1)},
        {"factor": 0.5},
        {"factor": math.nan},
        {"factor": math.inf},
        {"factor": 1e200},
        {"factor": None},
        {"max_delay": -1},
        {"max_delay": math.nan},
        {"max_delay": math.inf},
        {"jitter": 0.5},
        {"jitter": None},
        {"on": None},
        {"on": "ConnectionError"},
        {"on": (ConnectionError, "KeyError")},
        {"on": (int,)},
        {"on": [None]},
        {"delay": 61},
        {"delay": 2, "max_delay": 1},
        {"on": ((KeyError,),)},
        {"on": ConnectionError("not a class")},
        {"never_on": None},
        {"never_on": {"KeyError"}},
        {"never_on": 3},
    ],
    ids=lambda wrong: (
        f"{next(iter(wrong))}-{next(iter(wrong.values()))!r:.20}"
        if wrong != {"attempts": 10**5000}
        else "huge"
    ),
)
def test_a_policy_that_can_not_work_is_refused_where_it_is_given(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Retry: {next(iter(wrong))} "):
        Retry(**wrong)


@pytest.mark.parametrize(
    "given", [KeyError, (KeyError,), [KeyError], {KeyError}, frozenset({KeyError})]
)
def test_one_class_and_any_collection_of_classes_will_do(given: Any) -> None:
    retry = Retry(on=given, never_on=given)
    assert retry == Retry(on=(KeyError,), never_on=(KeyError,))
    assert not retry.again(1, KeyError())


@pytest.mark.parametrize(
    "retry",
    [
        Retry(attempts=2**53, delay=0, factor=1000),
        Retry(attempts=10**9, delay=1e8, factor=1000, max_delay=3e8),
    ],
)
def test_the_largest_numbers_give_a_wait(retry: Retry) -> None:
    for attempt in (1, 2, 65, 10**6, 2**53):
        assert 0 <= retry.wait_ms(attempt, "key") <= 3e11
