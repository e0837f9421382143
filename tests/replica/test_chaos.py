"""Machines vanish with their disks, Litestream and the bucket are killed: what was confirmed is there. The campaign has more seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.replica.support import bucket

from perdure.testing.chaos import Chaos
from perdure.testing.servers import BucketServer

__all__ = ["bucket"]  # a fixture


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_machines_are_lost_and_nothing_that_was_told(seed: int, tmp_path: Path, bucket: BucketServer) -> None:
    story = Chaos(seed, tmp_path, bucket.url(f"chaos{seed}"), bucket=bucket).conduct(10)
    assert story.broken == []
    assert story.lost == 0
    assert story.rounds == 10
    assert min(story.started, story.results, story.begun, story.wal_restarts) > 10


def test_a_folder_will_do(tmp_path: Path) -> None:
    story = Chaos(3, tmp_path, f"file://{tmp_path}/bucket").conduct(4)
    assert (story.broken, story.lost) == ([], 0)


def test_the_campaign_sees_what_is_lost_where_nobody_waits_for_the_bucket(tmp_path: Path) -> None:
    """With `disk` the same destruction takes what was told: so the laws can fail."""
    story = Chaos(4, tmp_path, f"file://{tmp_path}/bucket", durability="disk").conduct(5)
    assert story.broken == []
    assert story.lost > 0
