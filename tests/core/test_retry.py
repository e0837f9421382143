"""The retry policy is pure: same key, same waits."""

from __future__ import annotations

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


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"delay": -1}, {"factor": 0.5}, {"max_delay": -1}])
def test_a_policy_that_can_not_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError):
        Retry(**wrong)  # type: ignore[arg-type]
