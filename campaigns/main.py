"""The command `python -m campaigns`: campaigns by name, and their counts as data.

Rules: a campaign is a generator of `Count`, so that progress is shown while it runs. A violated
invariant is printed with its seed. A campaign is added by a line in `CAMPAIGNS`, as
"module:function", and imported only when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import msgspec

from campaigns import kernel_sim
from campaigns.corpus import CASES, Case
from campaigns.random_workflows import program
from perdure.errors import PerdureError
from perdure.testing.survive import assert_survives_every_crash

SAY_EVERY_S = 5.0


@dataclass(slots=True)
class Count:
    """One thing that was tried: `checks` says how much was looked at, `broken` what went wrong,
    with the seed in it.

    `note` is a line that is printed behind the summary; such a count has no trials.
    """

    what: str
    checks: int = 0
    crashes: int = 0
    broken: str | None = None
    trials: int = 1
    note: str | None = None


@dataclass(slots=True)
class Summary:
    """All of one campaign."""

    campaign: str
    seeds: int
    trials: int
    checks: int
    crashes: int
    broken: list[str]
    took_s: float
    notes: list[str] = field(default_factory=list)


class CannotBegin(PerdureError):
    """A campaign lacks something that this machine does not have; the message says what."""


Campaign = Callable[[range], Iterator[Count]]


def kernel(seeds: range) -> Iterator[Count]:
    """Every workflow of the corpus under many schedules: replay, crashes after every
    row, values.
    """
    for seed in seeds:
        for case in CASES:
            yield from _laws(case, seed)


def programs(seeds: range) -> Iterator[Count]:
    """Random workflows, one from each seed, under the same invariants."""
    for seed in seeds:
        yield from _laws(program(seed), seed)


def _laws(case: Case, seed: int) -> Iterator[Count]:
    for name, invariant in kernel_sim.INVARIANTS.items():
        found = Count(f"{name} of {case.name}, seed {seed}")
        try:
            found.checks = invariant(case, seed)
        except (
            Exception
        ) as error:  # also an error of the kernel itself: the others are still to be tried
            found.broken = f"{type(error).__name__}: {error}"
        found.crashes = found.checks if name.startswith("crashes") else 0
        yield found


def engine(seeds: range) -> Iterator[Count]:
    """The corpus on the real engine and a real file, in virtual time: a crash before and after
    every commit.
    """
    for seed in seeds:
        for case in CASES:
            found = Count(f"engine with {case.name}, seed {seed}")
            try:
                found.crashes = found.checks = survives(case, seed)
            except Exception as error:
                found.broken = f"{type(error).__name__}: {error}"
            yield found


def survives(case: Case, seed: int) -> int:
    """One case of the corpus on the real engine; gives the number of crashes."""
    return assert_survives_every_crash(
        case.call,
        messages=[(channel, msgspec.json.decode(data)) for channel, data in case.messages],
        requests=[(channel, msgspec.json.decode(data)) for channel, data in case.requests],
        seeds=[seed],
        hash_seeds=(),
        cancel_after=0.03 if case.cancelled else None,
        timeout=None if case.timeout_ms is None else case.timeout_ms / 1000,
    ).crashes


CAMPAIGNS = {
    "asks": "campaigns.asks:asks",
    "asyncio": "campaigns.asyncio_suite:asyncio_tests",
    "chaos": "campaigns.chaos:chaos",
    "chaos-folder": "campaigns.chaos:chaos_folder",
    "damage": "campaigns.damage:damage",
    "kernel": "campaigns.main:kernel",
    "programs": "campaigns.main:programs",
    "pythons": "campaigns.pythons:pythons",
    "forks": "campaigns.forks:forks",
    "engine": "campaigns.main:engine",
    "power": "campaigns.power:power",
    "kill": "campaigns.kill:kill",
    "prunes": "campaigns.prunes:prunes",
    "queues": "campaigns.queues:queues",
    "ticks": "campaigns.ticks:ticks",
}


def load(name: str) -> Campaign:
    """The function of a campaign."""
    module, _, function = CAMPAIGNS[name].partition(":")
    found: Campaign = getattr(importlib.import_module(module), function)
    return found


def conduct(name: str, seeds: range, say: Callable[[str], None]) -> Summary:
    """Run one campaign to its end, whatever breaks on the way."""
    began = said = time.monotonic()
    done = Summary(name, len(seeds), 0, 0, 0, [], 0.0)
    for one in load(name)(seeds):
        done.trials, done.checks, done.crashes = (
            done.trials + one.trials,
            done.checks + one.checks,
            done.crashes + one.crashes,
        )
        if one.note is not None:
            done.notes.append(one.note)
        if one.broken is not None:
            done.broken.append(f"{one.what}: {one.broken}")
            say(f"BROKEN  {done.broken[-1]}")
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            say(
                f"{name}: {one.what}; {done.trials:,} trials, {done.crashes:,} crashes, "
                f"{len(done.broken)} broken"
            )
    done.took_s = round(time.monotonic() - began, 1)
    return done


def main(words: list[str] | None = None) -> int:
    """The command; gives its exit code."""
    options = _parser().parse_args(words)
    seeds = range(options.first_seed, options.first_seed + options.seeds)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    done = []
    for name in options.only or CAMPAIGNS:
        try:
            done.append(conduct(name, seeds, say))
        except CannotBegin as error:
            say(f"{name}: {error}")
            if options.only:
                return 2
    if options.json:
        text = msgspec.json.format(msgspec.json.encode([asdict(one) for one in done])).decode()
    else:
        text = "\n".join(_table(done))
    sys.stdout.write(text + "\n")
    return int(any(one.broken for one in done))


def _parser() -> argparse.ArgumentParser:
    told = "\n".join(
        f"  {name:10} {(load(name).__doc__ or '').splitlines()[0]}" for name in CAMPAIGNS
    )
    parser = argparse.ArgumentParser(
        prog="python -m campaigns",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Tries to break Perdure's invariants, and counts. Exit code 1: one is broken.",
        epilog=f"campaigns:\n{told}",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=20,
        metavar="N",
        help="how many seeds each campaign gets (default 20)",
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=0,
        metavar="N",
        help="the first of them (default 0): repeats a failure alone",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(CAMPAIGNS),
        help="this campaign; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    return parser


def _table(done: Sequence[Summary]) -> Iterator[str]:
    row = "{:12} {:>8} {:>10} {:>12} {:>12} {:>8} {:>8}"
    yield row.format("campaign", "seeds", "trials", "checks", "crashes", "broken", "seconds")
    for one in done:
        figures = [
            f"{n:,}" for n in (one.seeds, one.trials, one.checks, one.crashes, len(one.broken))
        ]
        yield row.format(one.campaign, *figures, f"{one.took_s:.1f}")
    for one in done:
        yield from one.notes
