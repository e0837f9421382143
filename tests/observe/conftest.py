"""A real bucket for the tests of the observer, and what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    folder = tmp_path_factory.mktemp("bucket")
    with BucketServer(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def wire(bucket: BucketServer) -> Iterator[Proxy]:
    """A wire to the bucket over which only reads and lists may go."""
    with Proxy(bucket.port) as proxy:
        proxy.set(deny=("write", "delete"))
        yield proxy
        assert not proxy.kinds["write"] and not proxy.kinds["delete"]
