"""What waiting for a bucket costs: steps with `disk` and with `replica`, on a folder and on S3
behind 0, 10 and 50 ms, each with the lease read before each confirmation (the default) and with
`fencing="clock"`.

One run, alternating: in each round every arm does every scenario once; the table gives medians, and
ratios to `disk`. Real Litestream, a real S3 server (SeaweedFS) behind a proxy that adds to each
request. Usage: `python benchmarks/replica.py --help`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from plot import svg

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import Engine, Replica, step, workflow

EFFECTS, LOOKUPS, LOOKUP_S = 30, 100, 0.020
CROWD, CROWD_STEPS = 100, 8
DELAYS_MS = (0, 10, 50)
WHAT = ("round_trip_ms", "effect_ms", "lookups_s", "crowd_steps_per_s", "effect_mean_ms")


begun_s: list[float] = []
"""When each effect began."""


@step
async def effect(n: int) -> int:
    begun_s.append(time.perf_counter())
    return n


@step(readonly=True)
async def lookup(n: int) -> int:
    await asyncio.sleep(LOOKUP_S)
    return n


@workflow
async def effects(number: int) -> None:
    for n in range(number):
        await effect(n)


@workflow
async def lookups(number: int) -> None:
    for n in range(number):
        await lookup(n)


async def measure(engine: Engine) -> dict[str, float]:
    """One round of one arm: milliseconds per effect step in a row, seconds of a chain of lookups,
    effect steps per second of a crowd.
    """
    await engine.run(effects(2))
    begin_s = time.perf_counter()
    await engine.run(effects(EFFECTS))
    effect_s = time.perf_counter()
    alone = begun_s[-EFFECTS:]
    await engine.run(lookups(LOOKUPS))
    lookup_s = time.perf_counter()
    await asyncio.gather(*(engine.run(effects(CROWD_STEPS)) for _ in range(CROWD)))
    end_s = time.perf_counter()
    return {
        "round_trip_ms": await round_trip_ms(engine),
        "effect_ms": statistics.median(later - sooner for sooner, later in pairwise(alone)) * 1000,
        "effect_mean_ms": (effect_s - begin_s)
        / (EFFECTS + 1)
        * 1000,  # the answer at the end waits as an effect does
        "lookups_s": lookup_s - effect_s,
        "crowd_steps_per_s": CROWD * CROWD_STEPS / (end_s - lookup_s),
    }


async def round_trip_ms(engine: Engine) -> float:
    """One sync of one small commit by Litestream itself, which is what a shared round
    trip is here.
    """
    if engine.replica is None:
        return 0.0
    took = []
    for _ in range(9):
        await engine.start(effects(0), durability="disk")
        begin_s = time.perf_counter()
        await engine.replica.copier.sync()
        took.append((time.perf_counter() - begin_s) * 1000)
    return statistics.median(took)


async def conduct(rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Every arm, `rounds` times, in turn."""
    found: dict[str, dict[str, list[float]]] = {}
    with BucketServer(folder / "bucket") as bucket, Proxy(bucket.port) as proxy:
        os.environ.update(bucket.environment())
        arms: list[tuple[str, float, dict[str, Any]]] = [("disk", 0.0, {})]
        proofs: list[tuple[Any, str]] = [(True, ""), ("clock", ", clock")]
        for proof, mark in proofs:
            places = [("folder", 0.0, f"file://{folder}/replica{mark[2:]}")]
            places += [
                (f"S3 + {ms} ms", ms, bucket.url(f"after-{ms}{mark[2:]}", port=proxy.port))
                for ms in DELAYS_MS
            ]
            for where, delay_ms, place in places:
                replica = Replica(place, fencing=proof)
                options: dict[str, Any] = {"durability": "replica", "replica": replica}
                arms.append((f"replica, {where}{mark}", delay_ms, options))
        for number in range(rounds):
            for arm, (name, delay_ms, options) in enumerate(arms):
                store = folder / f"{arm}.db"
                proxy.set(delay_ms=delay_ms)
                async with Engine(store, workflows=[effects, lookups], **options) as engine:
                    for what, value in (await measure(engine)).items():
                        found.setdefault(name, {}).setdefault(what, []).append(value)
                sys.stderr.write(f"round {number + 1} of {rounds}: {name}\n")
    return found


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Rows of Markdown, with ratios to the first arm."""
    head = (
        "| | round trip, ms | effect step, ms | the same, mean | chain of lookups, s | against "
        "disk | effect steps/s, 100 runs |"
    )
    rows = [head, "|---|---|---|---|---|---|---|"]
    base = statistics.median(found["disk"]["lookups_s"])
    for name, values in found.items():
        trip_ms, effect_ms, lookups_s, crowd, mean_ms = (
            statistics.median(values[what]) for what in WHAT
        )
        against = f"{100 * (lookups_s / base - 1):+.1f} %"
        rows.append(
            f"| {name} | {trip_ms:.1f} | {effect_ms:.2f} | {mean_ms:.2f} | {lookups_s:.3f} "
            f"| {against} | {crowd:,.0f} |"
        )
    return rows


def drawing(found: dict[str, dict[str, list[float]]]) -> str:
    """Two ratios of each arm as bars, with a line at 1: an effect step to its round trip, a chain
    of lookups to the same on disk.
    """
    middle = {
        name: {what: statistics.median(values) for what, values in arm.items()}
        for name, arm in found.items()
    }
    bars: list[tuple[str, float, str]] = []
    for name, arm in middle.items():
        if arm["round_trip_ms"]:
            bars.append(
                (
                    f"{name}: effect step / round trip of {arm['round_trip_ms']:.1f} ms",
                    arm["effect_ms"] / arm["round_trip_ms"],
                    "#4878a8",
                )
            )
            bars.append(
                (
                    f"{name}: lookups of 20 ms / the same on disk",
                    arm["lookups_s"] / middle["disk"]["lookups_s"],
                    "#e0a030",
                )
            )
    rows = []
    for number, (text, ratio, colour) in enumerate(bars):
        y = 40 + 22 * number
        rows.append(f'<text x="400" y="{y + 12}" text-anchor="end">{text}</text>')
        rows.append(
            f'<rect x="410" y="{y}" width="{200 * ratio:.1f}" height="15" fill="{colour}"/>'
        )
        rows.append(f'<text x="{416 + 200 * ratio:.1f}" y="{y + 12}">{ratio:.2f} ×</text>')
    height = 50 + 22 * len(bars)
    rows.append(
        f'<line x1="610" y1="30" x2="610" y2="{height - 8}" stroke="#333333"/><text '
        f'x="610" y="24" text-anchor="middle">1 ×</text>'
    )
    return svg(800, height, rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=7, help="how often each arm is measured (default 7)"
    )
    parser.add_argument("--json", metavar="FILE", help="write every value to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios as SVG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-replica-") as folder:
        found = asyncio.run(conduct(options.rounds, Path(folder)))
    sys.stdout.write("\n".join(table(found)) + "\n")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    if options.plot:
        Path(options.plot).write_text(drawing(found))


if __name__ == "__main__":
    main()
