"""Random damage to the files of a store; the answer is a `StoreError` that names the file, or true.

Rules: a seed chooses place and kind of the damage: noise that is neither UTF-8 nor zeros, or lost
bytes, because SQLite keeps no checksums and a digit that became another one can't be found. A file
that is refused stays as it is. After damage was found, nothing more is written. For SQLite a WAL
ends at its first bad frame, as after a power cut: then the store is whole, as at an earlier commit.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from campaigns.main import Count
from perdure import receive, step, workflow
from perdure.errors import StoreCorrupt
from perdure.runtime.engine import Engine

PATIENCE_S = 90.0
LEASE_S = 1.0  # so that the next engine soon takes over from the one that was killed
RUNS, ROWS, PAGE_BYTES = 12, 10, 4096
ENDS = ("", "-wal")
_HEADER_BYTES = 100  # of the database; those of the WAL are 32
WAITS = "waits"

Files = dict[str, bytes]


@step
async def text_of(n: int) -> str:
    """A text that is long enough to be stored in chunks, and differs from all others."""
    return f"{n} " * 3_000


@workflow
async def texts(n: int) -> list[str]:
    return [await text_of(100 * n + i) for i in range(4)]


@workflow
async def asks() -> str:
    before = await text_of(1)
    return before + await receive("answer", str)


def truth(n: int) -> list[str]:
    return [f"{100 * n + i} " * 3_000 for i in range(4)]


# --- a store with a history -----------------------------------------------------------------------


async def _fill(path: Path, last: int) -> None:
    async with Engine(path, workflows=[texts, asks], lease_ttl=LEASE_S) as engine:
        for n in range(last):
            await engine.run(texts(n), id=f"r{n}")


async def _files(folder: Path) -> Files:
    """A store whose engine was killed: half of it is in the file, half in the WAL."""
    path = folder / "perdure.db"
    await _fill(path, RUNS // 2)
    async with Engine(path, workflows=[texts, asks], lease_ttl=LEASE_S) as engine:
        for n in range(RUNS // 2, RUNS):
            await engine.run(texts(n), id=f"r{n}")
        run = await engine.start(asks(), id=WAITS)
        while await run.status() != "waiting":  # a status has no event  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        return {end: (folder / f"perdure.db{end}").read_bytes() for end in ENDS}


# --- damage ---------------------------------------------------------------------------------------


def _noise(dice: random.Random, size: int) -> bytes:
    return bytes(dice.randrange(0x80, 0x100) for _ in range(size))


def _strewn(dice: random.Random, raw: bytes, first: int, last: int) -> bytes:
    """Noise over a part of it."""
    size = min(dice.choice([16, 64, 512, 4096]), last - first)
    at = dice.randrange(first, last - size + 1)
    return raw[:at] + _noise(dice, size) + raw[at + size :]


def _page(dice: random.Random, raw: bytes) -> bytes:
    """One page is gone: noise, or another page in its place, as after a write that went astray."""
    pages = len(raw) // PAGE_BYTES
    at, other = (PAGE_BYTES * dice.randrange(1, pages) for _ in range(2))
    page = raw[other : other + PAGE_BYTES] if dice.random() < 0.3 else _noise(dice, PAGE_BYTES)
    return raw[:at] + page + raw[at + PAGE_BYTES :]


KINDS: dict[str, tuple[str, Callable[[random.Random, bytes], bytes]]] = {
    "header": ("", lambda dice, raw: _strewn(dice, raw, 0, _HEADER_BYTES)),
    "schema": ("", lambda dice, raw: _strewn(dice, raw, _HEADER_BYTES, PAGE_BYTES)),
    "page": ("", _page),
    "part of a page": ("", lambda dice, raw: _strewn(dice, raw, PAGE_BYTES, len(raw))),
    "tail": ("", lambda dice, raw: _strewn(dice, raw, len(raw) - 2 * PAGE_BYTES, len(raw))),
    "truncated": (
        "",
        lambda dice, raw: raw[
            : dice.choice([0, 1, 99, 100, 512, 4095, 4096, dice.randrange(len(raw))])
        ],
    ),
    "end of the WAL": (
        "-wal",
        lambda dice, raw: raw[: dice.choice([0, 16, 32, 33, dice.randrange(len(raw))])],
    ),
    "header of the WAL": ("-wal", lambda dice, raw: _strewn(dice, raw, 0, 32)),
    "frame of the WAL": ("-wal", lambda dice, raw: _strewn(dice, raw, 32, len(raw))),
}


# --- what must then hold --------------------------------------------------------------------------


class Found(Exception):
    """A invariant was broken."""


async def _use(engine: Engine, lost_tail: bool) -> int:
    """Everything that an engine can be asked for; gives the number of answers that were true."""
    true = 0
    known = {info.id for info in await engine.runs(limit=100)}
    if not lost_tail and known != {WAITS, *(f"r{n}" for n in range(RUNS))}:
        raise Found(f"runs are missing without an error: only {sorted(known)} are left")
    for n in range(RUNS):
        if f"r{n}" in known:
            if await (await engine.get(f"r{n}")).result() != truth(n):
                raise Found(f"the result of r{n} is wrong")
            if not lost_tail and len(await engine.history(f"r{n}")) != ROWS:
                raise Found(f"a part of the history of r{n} is missing without an error")
            true += 2
    if not lost_tail:
        await engine.send(WAITS, "yes", channel="answer")
        if await (await engine.get(WAITS)).result() != "1 " * 3_000 + "yes":
            raise Found("the run that waited has a wrong result")
    if await engine.run(texts(50), id="new") != truth(50):
        raise Found("the new run has a wrong result")
    integrity = (await engine.doctor())["integrity"]
    if integrity != "ok" and lost_tail:
        raise Found(f"a lost end of the WAL damages the file: {integrity}")
    return true + 2


async def _judge(path: Path, lost_tail: bool) -> int:
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            Engine(path, workflows=[texts, asks], create=False, lease_ttl=LEASE_S) as engine,
        ):
            try:
                return await _use(engine, lost_tail)
            except StoreCorrupt:
                await _ends(engine, path)
                raise
    except TimeoutError:
        raise Found("it hung") from None
    except StoreCorrupt as error:
        if repr(str(path)) not in str(error):
            raise Found(f"the message does not name the file: {error}") from error
        return 1


async def _ends(engine: Engine, path: Path) -> None:
    """Once damage was found, the engine says that it is lost, takes nothing more and writes nothing
    more.
    """
    before = _bytes(path)
    await engine.store_lost()
    for ask in (
        engine.start(texts(60), id="late"),
        engine.send(WAITS, "no", channel="answer"),
        engine.runs(),
        engine.doctor(),
    ):
        try:
            await ask
        except StoreCorrupt:
            continue
        raise Found("an engine went on with a file that it knew to be damaged")
    if _bytes(path) != before:
        raise Found("an engine wrote on in a file that it knew to be damaged")


def _bytes(path: Path) -> Files:
    places = {end: Path(f"{path}{end}") for end in ENDS}
    return {end: place.read_bytes() for end, place in places.items() if place.exists()}


async def _stays_refused(path: Path) -> None:
    """A file that can't be opened is the same after the attempt."""
    before = _bytes(path)
    try:
        async with Engine(path, create=False, execute=False):
            return
    except StoreCorrupt:
        if _bytes(path) != before:
            raise Found("a file was changed, although it was refused") from None


def damage(seeds: range) -> Iterator[Count]:
    """A store with a history, damaged at random places: never a raw error, a hang, a wrong answer,
    or a touched refused file.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = asyncio.run(_files(Path(folder)))
        for seed in seeds:
            for kind in KINDS:
                yield _trial(Path(folder), whole, kind, seed)


def _trial(folder: Path, whole: Files, kind: str, seed: int) -> Count:
    found = Count(f"damaged {kind}, seed {seed}")
    end, break_it = KINDS[kind]
    place = folder / f"{kind}-{seed}".replace(" ", "-")
    place.mkdir()
    path = place / "perdure.db"
    for name, raw in {**whole, end: break_it(random.Random(f"{kind} {seed}"), whole[end])}.items():
        Path(f"{path}{name}").write_bytes(raw)
    try:
        asyncio.run(_stays_refused(path))
        found.checks = asyncio.run(_judge(path, end == "-wal"))
    except Exception as error:
        found.broken = f"{type(error).__name__}: {error}"
    shutil.rmtree(place)
    return found
