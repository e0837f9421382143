"""Each fault of the proxy, as a real HTTP client before a real S3 server sees it. No time is
asserted: what is counted decides.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from campaigns import faulty_proxy as module
from campaigns.faulty_proxy import Fault, Proxy
from campaigns.s3_servers import CarelessBucketServer

CLIENTS = 8
LONG_MS = 60_000


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CarelessBucketServer]:
    with CarelessBucketServer(tmp_path_factory.mktemp("bucket")) as bucket:
        yield bucket


@pytest.fixture
def proxy(bucket: CarelessBucketServer) -> Iterator[Proxy]:
    with Proxy(bucket.port) as proxy:
        yield proxy


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


def put(bucket: CarelessBucketServer, proxy: Proxy, name: str, body: bytes = b"x") -> int:
    return bucket.request("PUT", name, body, port=proxy.port)[0]


def works(bucket: CarelessBucketServer, proxy: Proxy, name: str) -> bool:
    return (
        put(bucket, proxy, name) == 200 and bucket.request("GET", name, port=proxy.port)[2] == b"x"
    )


def was_reset(connection: http.client.HTTPConnection) -> bool:
    try:
        return connection.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_signed_requests_pass_in_both_sizes(bucket: CarelessBucketServer, proxy: Proxy) -> None:
    """The client signs the proxy's host and port, and the server takes it: it compares with the
    Host that it is sent.
    """
    for body in (b"", b"small", b"large" * 1_000_000):
        assert put(bucket, proxy, "size", body) == 200
        assert bucket.request("GET", "size", port=proxy.port)[2] == body
    assert (proxy.requests, proxy.passed_on) == (6, 6)


def test_one_connection_carries_many_requests(bucket: CarelessBucketServer, proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    for method in ("GET", "HEAD", "GET", "DELETE", "GET"):
        connection.request(method, f"/{bucket.bucket}/nothing")
        answer = connection.getresponse()
        answer.read()
        assert answer.status >= 400  # not signed
    assert (proxy.requests, len(proxy._open)) == (5, 1)
    connection.close()


def test_a_body_after_100_continue(bucket: CarelessBucketServer, proxy: Proxy) -> None:
    assert (
        bucket.request(
            "PUT", "expected", b"x" * 100_000, {"Expect": "100-continue"}, port=proxy.port
        )[0]
        == 200
    )
    assert bucket.request("GET", "expected", port=proxy.port)[2] == b"x" * 100_000


def test_delayed_requests_do_not_wait_for_each_other(
    bucket: CarelessBucketServer, proxy: Proxy, pool: ThreadPoolExecutor
) -> None:
    proxy.set(delay_ms=300)
    # The server may refuse some of so many writes at once with 500, which the proxy passes on.
    assert 200 in list(pool.map(lambda n: put(bucket, proxy, f"delayed/{n}"), range(CLIENTS)))
    assert proxy.waiting_max == CLIENTS


def test_what_is_delayed_is_not_passed_on_yet(
    bucket: CarelessBucketServer, proxy: Proxy, pool: ThreadPoolExecutor
) -> None:
    proxy.set(delay_ms=LONG_MS)
    waiting = pool.submit(put, bucket, proxy, "late")
    assert proxy.wait_for_requests(1)
    assert (waiting.done(), proxy.passed_on) == (False, 0)
    proxy.set("refuse")
    assert isinstance(waiting.exception(), OSError | http.client.HTTPException)


def test_dropped_requests_get_no_answer_and_go_with_the_fault(
    bucket: CarelessBucketServer, proxy: Proxy, pool: ThreadPoolExecutor
) -> None:
    proxy.set("drop")
    waiting: Future[Any] = pool.submit(put, bucket, proxy, "dropped")
    assert proxy.wait_for_requests(1)
    assert not waiting.done()
    proxy.set()
    assert isinstance(waiting.exception(), OSError | http.client.HTTPException)
    assert bucket.request("GET", "dropped")[0] == 404
    assert works(bucket, proxy, "dropped")


def test_cut_ends_connections_and_passes_nothing_on(
    bucket: CarelessBucketServer, proxy: Proxy
) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", proxy.port)
    kept.request("GET", "/")
    kept.getresponse().read()
    proxy.set("cut")
    assert was_reset(kept)
    kept.close()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        put(bucket, proxy, "cut")
    assert bucket.request("GET", "cut")[0] == 404
    proxy.set()
    assert works(bucket, proxy, "cut")


def test_a_cut_answer_hides_what_was_done(bucket: CarelessBucketServer, proxy: Proxy) -> None:
    proxy.set("cut-answers")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        put(bucket, proxy, "done")
    assert bucket.request("GET", "done")[2] == b"x"
    bucket.request("PUT", "long", b"long" * 100_000)
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        bucket.request("GET", "long", port=proxy.port)
    proxy.set()
    assert works(bucket, proxy, "done")


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("500", 500, b"InternalError"), ("503", 503, b"SlowDown")]
)
def test_an_error_is_answered_and_nothing_passed_on(
    bucket: CarelessBucketServer, proxy: Proxy, fault: Fault, status: int, code: bytes
) -> None:
    proxy.set(fault)
    answer, _, body = bucket.request("PUT", "failed", b"x" * 300_000, port=proxy.port)
    assert (answer, code in body, proxy.passed_on) == (status, True, 0)
    assert bucket.request("HEAD", "failed", port=proxy.port)[0] == status
    assert (
        bucket.request("PUT", "failed", b"x", {"Expect": "100-continue"}, port=proxy.port)[0]
        == status
    )
    proxy.set()
    assert works(bucket, proxy, "failed")


def test_nobody_listens(bucket: CarelessBucketServer, proxy: Proxy) -> None:
    proxy.set("refuse")
    with pytest.raises(ConnectionRefusedError):
        put(bucket, proxy, "refused")
    proxy.set("refuse")
    proxy.set()
    assert works(bucket, proxy, "refused")


def test_a_dead_server_is_a_cut_connection(tmp_path: Path) -> None:
    with CarelessBucketServer(tmp_path) as bucket, Proxy(bucket.port) as proxy:
        assert works(bucket, proxy, "a")
        bucket.kill()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            put(bucket, proxy, "b")
        bucket.start()
        assert works(bucket, proxy, "b")


def test_an_unknown_fault_is_refused(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="choose one of drop, cut"):
        proxy.set("rain")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "field"),
    [
        (b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"5"),
        (b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length:5\r\n\r\n", b"5"),
        (b"PUT / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", None),
    ],
)
def test_a_header_field_is_found_in_any_spelling(head: bytes, field: bytes | None) -> None:
    assert module._field(head, b"content-length") == field
