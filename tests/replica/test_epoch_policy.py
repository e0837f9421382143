"""The policy of epochs: when a copy is given up for a new one, and when the WAL is folded."""

from __future__ import annotations

import itertools
from typing import Any

from perdure.replica.epoch_policy import PATIENCE_S_MAX, EpochPolicy, Facts, Fold, NewEpoch


def facts(now_s: float, **changed: Any) -> Facts:
    return Facts(
        **{
            "now_s": now_s,
            "bucket_well": True,
            "trouble": False,
            "refusals": 0,
            "broken": "",
            "resting": False,
            "share": 0.0,
            "copying": False,
            **changed,
        }
    )


def test_trouble_is_given_time_and_a_bucket_that_is_away_is_not_blamed_on_the_copy() -> None:
    policy = EpochPolicy()
    assert policy.decide(facts(0, trouble=True, refusals=9)) is None
    assert policy.decide(facts(2, trouble=True, refusals=9, bucket_well=False)) is None
    assert policy.decide(facts(20, trouble=True, refusals=9)) is None  # well only just now
    assert isinstance(policy.decide(facts(24, trouble=True, refusals=9)), NewEpoch)


def test_one_that_only_does_not_stay_up_is_given_more_time() -> None:
    policy = EpochPolicy()
    assert policy.decide(facts(0, trouble=True)) is None
    assert policy.decide(facts(29, trouble=True)) is None
    assert isinstance(policy.decide(facts(31, trouble=True)), NewEpoch)


def test_a_whole_copy_that_takes_long_is_not_begun_again_and_again() -> None:
    policy = EpochPolicy()
    policy.begun(0)
    for now_s in range(1, 3_600):  # the last epoch's trouble is there until this one's copy is
        assert policy.decide(facts(now_s, trouble=True, copying=True)) is None
    assert isinstance(
        policy.decide(facts(3_600, trouble=True, copying=True, broken="a hole")), NewEpoch
    )
    assert isinstance(policy.decide(facts(3_600, trouble=True)), NewEpoch)


def test_each_new_copy_doubles_the_patience_with_the_next_one() -> None:
    policy, now_s, begun = EpochPolicy(), 0.0, []
    while now_s < 5_000:
        if isinstance(policy.decide(facts(now_s, trouble=True, refusals=9)), NewEpoch):
            policy.begun(now_s)
            begun.append(now_s)
        now_s += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= PATIENCE_S_MAX
    assert len(begun) < 16


def test_room_is_made_at_once_and_a_new_copy_follows_where_the_bucket_is_well() -> None:
    policy = EpochPolicy()
    assert policy.decide(facts(0, share=0.7)) is None
    assert policy.decide(facts(1, share=0.8, bucket_well=False)) is None
    assert isinstance(policy.decide(facts(2, share=1.0, bucket_well=False)), Fold)
    assert policy.decide(facts(3, resting=True, bucket_well=False)) is None
    assert isinstance(policy.decide(facts(4, resting=True, share=0.3, bucket_well=False)), Fold)
    assert isinstance(policy.decide(facts(5, resting=True)), NewEpoch)
    policy.begun(5)
    assert policy.decide(facts(6, resting=True)) is None
    assert policy.decide(facts(100, share=0.8)) is None  # not again and again
    assert isinstance(policy.decide(facts(606, share=0.8)), Fold)


def test_a_reader_that_holds_the_wal_does_not_keep_a_new_copy_from_beginning() -> None:
    policy = EpochPolicy()
    assert isinstance(policy.decide(facts(0, share=0.8)), Fold)
    assert isinstance(policy.decide(facts(1, resting=True, share=0.8)), NewEpoch)
    policy.begun(1)
    assert policy.decide(facts(2, share=0.8)) is None
    assert isinstance(policy.decide(facts(3, share=1.0)), Fold)
    assert isinstance(
        policy.decide(facts(900, resting=True, share=1.0)), Fold
    )  # a copy needs room, too


def test_a_copy_that_can_not_be_restored_is_given_up() -> None:
    assert EpochPolicy().decide(facts(0, broken="a hole")) == NewEpoch("a hole")
