"""The bucket that all tests of replicas share: a real server takes a second to start and two to
stop.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from campaigns.s3_servers import BucketServer


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """A test that kills it has to start it again."""
    with BucketServer(tmp_path_factory.mktemp("bucket")) as server:
        yield server
