"""The invariants of retry and fork over random programs and the corpus. A failure names its seed.

Rules: the longer form is `python -m campaigns --only forks`.
"""

from __future__ import annotations

import pytest

from campaigns import forks
from campaigns.corpus import CASES, Case

SEEDS = {
    "retries": 40,
    "retries with crashes": 12,
    "retries by a client": 12,
    "forks of trees": 12,
    "forks of programs": 20,
}


@pytest.mark.parametrize("invariant", SEEDS)
def test_every_law_of_retry_and_fork_holds_for_random_programs(invariant: str) -> None:
    assert set(SEEDS) == set(forks.INVARIANTS)
    for seed in range(SEEDS[invariant]):
        try:
            forks.INVARIANTS[invariant](seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_workflow_of_the_corpus_can_be_forked_at_every_row(case: Case) -> None:
    assert forks.forks_of_case(case, seed=3) > 1
