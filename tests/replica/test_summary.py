"""The summary beside a replica: small, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import Engine, receive, workflow
from perdure.replica import summary
from perdure.replica.summary import Summary
from tests.replica.support import engine_of, proxy, two_effects
from tests.runtime.support import awaited, reached

__all__ = ["proxy"]  # a fixture


@workflow
async def parked(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
    await receive("never")


@workflow
async def nothing() -> None: ...


def empty() -> Summary:
    return Summary("a", 0, "", 0, 0, 0, 0, 0, "replicating")


@awaited
async def test_counts_are_lower_bounds_beyond_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "a.db"
    async with Engine(store, workflows=[parked, nothing]) as engine:
        for n in range(3):
            await engine.run(nothing(), id=f"done-{n}")
            run = await engine.start(parked(3_600 * n), id=f"parked-{n}")
            await reached(run, "waiting")
    few, many = empty(), empty()
    summary.fill(str(store), few)
    assert few.counts == {"waiting": 3, "completed": 3} and few.more == []
    assert few.due_ms is not None
    monkeypatch.setattr(summary, "COUNT_MAX", 2)
    summary.fill(str(store), many)
    assert many.counts == {"waiting": 2, "completed": 2}
    assert sorted(many.more) == ["completed", "waiting"]
    assert summary.decode(summary.encode(many)) == many


def test_it_never_has_more_than_two_kilobytes() -> None:
    long = empty()
    long.blocked = [("é" * 120, "\u2603" * 120)] * 5
    long.counts = dict.fromkeys(("pending", "running", "waiting", "blocked", "failed"), 10_000)
    data = summary.encode(long)
    assert len(data) <= summary.BYTES_MAX
    assert summary.decode(data).counts == long.counts
    for wrong in (b"", b"{}", b"[1]", data.replace(b'"name"', b'"format":2,"name"')):
        with pytest.raises(ValueError, match=r"."):
            summary.decode(wrong)


@awaited
async def test_where_it_is_refused_the_engine_goes_on(
    bucket: BucketServer,
    proxy: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summary, "FIRST_S", 0.0)
    monkeypatch.setattr(summary, "EVERY_S", 0.05)
    proxy.set(deny=("write",), deny_in="summar")
    with caplog.at_level(logging.WARNING, "perdure"):
        async with engine_of(tmp_path / "a.db", bucket.url("refused", port=proxy.port)) as engine:
            for n in range(5):
                assert await engine.run(two_effects(f"x{n}")) == f"x{n}-1x{n}-2"
                await asyncio.sleep(0)
    said = [one for one in caplog.messages if "summary for observers" in one]
    assert len(said) == 1 and "does not let us write" in said[0]
    for name in (".summaries/refused.json", "refused/summary.json"):
        assert bucket.request("GET", name)[0] == 404


@awaited
async def test_none_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    for wanted in (True, False):
        place = tmp_path / str(wanted)
        async with engine_of(tmp_path / f"{wanted}.db", f"file://{place}", summary=wanted):
            pass
        assert (place / summary.NAME).exists() == wanted
