"""Token buckets: bursts, waits, debts, and clocks."""

from __future__ import annotations

import random

import pytest

from perdure.store.buckets import LEVEL_NS_MAX, STEP_MS, Bucket, Rate

TWO_A_SECOND = Rate(2, 1_000, 2)


def test_a_full_bucket_has_its_burst_and_not_more() -> None:
    bucket = Bucket()
    for _ in range(2):
        assert bucket.wait_ms(TWO_A_SECOND, 1, 50) == 0
        bucket = bucket.after(TWO_A_SECOND, 1, 50)
    assert bucket.wait_ms(TWO_A_SECOND, 1, 50) == 500
    assert bucket.wait_ms(TWO_A_SECOND, 2, 50) == 1_000
    assert bucket.wait_ms(TWO_A_SECOND, 0, 50) == 0, "nothing is always there"
    assert bucket.ready_ms(TWO_A_SECOND, 1) == 550
    assert bucket.full_ms == 1_050


def test_more_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = Bucket().after(TWO_A_SECOND, 1, 0)
    assert bucket.wait_ms(TWO_A_SECOND, 5, 0) == 500
    debt = bucket.after(TWO_A_SECOND, 5, 500)
    assert debt.wait_ms(TWO_A_SECOND, 1, 500) == 2_000


def test_tokens_that_are_given_back_never_exceed_the_burst() -> None:
    bucket = Bucket().after(TWO_A_SECOND, 1, 0).after(TWO_A_SECOND, -9, 0)
    assert bucket == Bucket(0, 0)


@pytest.mark.parametrize("limit", [1, 3, 7, 10**9, 10**12])
@pytest.mark.parametrize("per_ms", [1, 1_000, 86_400_000 * 365])
def test_any_rate_gives_its_burst_at_once_and_fits_a_column(limit: int, per_ms: int) -> None:
    rate = Rate(limit, per_ms, 1_000)
    bucket = Bucket()
    for _ in range(10):
        assert bucket.wait_ms(rate, 100, 0) == 0
        bucket = bucket.after(rate, 100, 0)
    assert bucket.level_ns > 0
    for _ in range(3):
        bucket = bucket.after(rate, 10**15, 0)
    assert bucket.level_ns <= LEVEL_NS_MAX


def test_times_out_of_order_give_no_token_twice() -> None:
    """Processes read their clocks before they wait for the lock."""
    rng = random.Random(5)
    rate = Rate(100, 1_000, 5)
    bucket, latest, drawn = Bucket(), 0, 0
    for step in range(5_000):
        now_ms = max(0, step - rng.randrange(90))
        latest = max(latest, now_ms)
        if bucket.wait_ms(rate, 1, now_ms) == 0:
            bucket, drawn = bucket.after(rate, 1, now_ms), drawn + 1
    assert 0.9 * latest / 10 < drawn <= 5 + latest / 10


def test_a_clock_that_was_set_back_goes_on_from_there() -> None:
    bucket = Bucket().after(TWO_A_SECOND, 2, 10**9)
    back_ms = 10**9 - STEP_MS
    assert bucket.ahead_of(back_ms)
    assert not bucket.ahead_of(back_ms + 1)
    assert bucket.at(back_ms).wait_ms(TWO_A_SECOND, 1, back_ms) == 500
    assert bucket.wait_ms(TWO_A_SECOND, 1, back_ms + 1) == STEP_MS - 1 + 500


def test_another_rate_misses_as_many_tokens() -> None:
    hourly = Rate(1, 3_600_000, 4)
    bucket = Bucket().after(hourly, 3, 0)
    assert bucket.rescaled(hourly, TWO_A_SECOND) == Bucket(1_500_000_000, 0)
    assert bucket.rescaled(hourly, None) == bucket.rescaled(None, hourly) == Bucket()
