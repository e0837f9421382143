"""Looking at databases in a bucket: the list of many, and one that is opened, behind a slow wire.

    python benchmarks/observe.py --rounds 5

A bucket (SeaweedFS) on this machine stands behind a proxy, in a process of its own, that delays
each request. It holds one real replica and the summaries of many more. What is opened is compared
with a restore by Litestream over the same wire, and with the official VFS where `litestream-vfs`
is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import Engine, receive, step, workflow
from perdure.observe import vfs
from perdure.observe.blocks import Blocks
from perdure.observe.databases import Databases
from perdure.observe.objects import open_objects
from perdure.observe.pages import Pages
from perdure.reader.values import RunQuery
from perdure.replica import litestream_binary, summary
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket

DELAY_MS = 30.0


@step(readonly=True)
async def said(n: int, size: int) -> str:
    """A text that can't be compressed, as pages of a real store can't."""
    return f"{os.urandom(size // 2).hex()} {n}"


@workflow
async def talk(n: int, size: int) -> int:
    for i in range(n):
        await said(i, size)
    return n


@workflow
async def waits() -> None:
    await receive("go")


def proxy_process(to_port: int, delay_ms: float, pipe: Connection) -> None:
    """A proxy until the pipe is closed."""
    with Proxy(to_port) as proxy:
        proxy.set(delay_ms=delay_ms)
        pipe.send(proxy.port)
        pipe.poll(None)


@contextmanager
def slow_wire(to_port: int, delay_ms: float) -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=proxy_process, args=(to_port, delay_ms, theirs), daemon=True)
    process.start()
    yield ours.recv()
    ours.close()
    process.terminate()
    process.join()


async def fill(bucket: BucketServer, folder: Path, runs: int, databases: int) -> None:
    """One replica with runs in it, and summaries of others."""
    place = bucket.url("fleet/big")
    async with Engine(folder / "big.db", workflows=[talk, waits], replica=place) as engine:
        for first in range(0, runs, 100):
            await asyncio.gather(
                *[engine.run(talk(12, 400), id=f"run-{n}") for n in range(first, first + 100)]
            )
        for n in range(20):
            await engine.start(waits(), id=f"waiting-{n}")
        await asyncio.sleep(35)  # Litestream merges files every 30 s
    fleet = open_bucket(parse(bucket.url("fleet")))
    now_ms = time.time_ns() // 1_000_000

    async def one(n: int) -> None:
        name = f"tenant-{n:04}"
        made = summary.Summary(
            name, now_ms, "vm", 1, 1, 9, 99, 1_000_000, "replicating", counts={"completed": n}
        )
        await fleet.put(f"{summary.FOLDER}/{name}.json", summary.encode(made))
        await fleet.put(f"{name}/lease.json", b"{}")

    for first in range(0, databases, 50):
        await asyncio.gather(*[one(n) for n in range(first, min(first + 50, databases))])


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = await work()
    return time.perf_counter() - began, result


async def look(address: str) -> dict[str, float]:
    """Databases from the start: list, list again, open, one run, a whole scan."""
    found: dict[str, float] = {}
    async with Databases([address]) as databases:
        found["first list, s"], entries = await timed(databases.entries)
        found["databases"] = len(entries)
        databases._listed_s = None
        found["second list, s"], _ = await timed(databases.entries)
        before = dict(databases.requests)

        async def opened() -> Any:
            one = await databases.open("big")
            await one.reader.runs(RunQuery())
            return one

        found["open, with a page of runs, s"], one = await timed(opened)
        found["its requests"] = sum(databases.requests.values()) - sum(before.values())
        found["counts by status, s"], _ = await timed(one.reader.counts)
        found["history of a run, s"], _ = await timed(lambda: one.reader.history("run-7"))
        found["its requests in all"] = sum(databases.requests.values()) - sum(before.values())
    return found


def restore(address: str, folder: Path) -> float:
    """Seconds that Litestream takes to restore the whole database."""
    to = folder / "restored.db"
    to.unlink(missing_ok=True)
    config = folder / "restore.yml"
    config.write_bytes(litestream_binary.restore_settings(to, parse(address)))
    began = time.perf_counter()
    options = ["-no-expand-env", "-config", str(config), "-o", str(to)]
    command = [litestream_binary.find(), "restore", *options, str(to)]
    subprocess.run(command, check=True, capture_output=True, env=litestream_binary.environment())
    return time.perf_counter() - began


def same_as_restored(address: str, folder: Path) -> int:
    """Compare every page with the restored file. Returns how many there are."""
    objects = open_objects(parse(address))
    pages = Pages(objects, "", Blocks(objects))
    db = vfs.connect(pages)
    assert db.pragma("integrity_check") == "ok"
    version = pages.current()
    whole = b"".join(pages.page(version, n + 1) for n in range(version.newest.pages))
    assert whole == (folder / "restored.db").read_bytes(), "a page differs from the restore"
    return version.newest.pages


_OFFICIAL = """
import sys, time, apsw, litestream_vfs
loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
began = time.perf_counter()
loader.load_extension(litestream_vfs.loadable_path())
flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
db = apsw.Connection("file:big?vfs=litestream", flags=flags)
db.execute("SELECT id FROM run ORDER BY run DESC LIMIT 50").fetchall()
print(time.perf_counter() - began)
"""


def official(address: str) -> float | None:
    """Seconds that the official VFS takes to show 50 runs; None where it is not installed."""
    place = parse(address)
    environment = {
        **litestream_binary.environment(),
        "LITESTREAM_REPLICA_URL": f"s3://{place.bucket}/{place.prefix}?endpoint={place.endpoint}"
        "&region=us-east-1&force-path-style=true",
        "LITESTREAM_LOG_LEVEL": "ERROR",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _OFFICIAL],
            env=environment, timeout=60, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print("the official VFS:", (error.stderr or str(error)).strip().splitlines()[-1:])
        return None
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--databases", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=2_000, help="in the one that is opened")
    parser.add_argument("--delay", type=float, default=DELAY_MS, help="ms for each request")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, BucketServer(Path(name) / "bucket") as bucket:
        folder = Path(name)
        os.environ.update(bucket.environment())
        asyncio.run(fill(bucket, folder, options.runs, options.databases - 1))
        with slow_wire(bucket.port, options.delay) as port:
            fleet = bucket.url("fleet", port=port)
            epoch = bucket.url("fleet/big/000001", port=port)
            rounds = []
            for _ in range(options.rounds):
                found = asyncio.run(look(fleet))
                found["restore by litestream, s"] = restore(epoch, folder)
                if (took := official(epoch)) is not None:
                    found["official VFS, 50 runs, s"] = took
                rounds.append(found)
        size = (folder / "restored.db").stat().st_size
        pages = same_as_restored(bucket.url("fleet/big"), folder)
    figures: dict[str, float] = {"file, MB": size / 1e6, "pages, each equal": pages}
    for name in rounds[0]:
        figures[name] = statistics.median(one[name] for one in rounds if name in one)
    for name, value in figures.items():
        print(f"{name:32} {value:10,.3f}".rstrip("0").rstrip("."))
    if options.json:
        options.json.write_bytes(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
