"""Machines vanish with their disks, Litestream and the bucket are killed: what was confirmed is
there. The campaign has more seeds.
"""

from __future__ import annotations

from pathlib import Path

from campaigns.chaos import Chaos
from campaigns.s3_servers import BucketServer

LINES_MAX = 200  # the campaign lets an engine get on by 1,500 before something is destroyed


def test_machines_are_lost_and_nothing_that_was_acknowledged(
    tmp_path: Path, bucket: BucketServer
) -> None:
    story = Chaos(1, tmp_path, bucket.url("chaos"), bucket=bucket, lines_max=LINES_MAX).conduct(6)
    assert story.broken == []
    assert story.lost == 0
    assert story.rounds == 6
    assert min(story.started, story.results, story.begun) > 10


def test_a_folder_will_do(tmp_path: Path) -> None:
    story = Chaos(3, tmp_path, f"file://{tmp_path}/bucket", lines_max=LINES_MAX).conduct(3)
    assert (story.broken, story.lost) == ([], 0)


def test_the_campaign_finds_losses_where_answers_do_not_wait_for_the_bucket(tmp_path: Path) -> None:
    """With `disk` the same destruction takes what was acknowledged: so the check can fail."""
    story = Chaos(
        3, tmp_path, f"file://{tmp_path}/bucket", durability="disk", lines_max=LINES_MAX
    ).conduct(3)
    assert story.broken == []
    assert story.lost > 0
