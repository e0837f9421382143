"""Chains: which of Litestream's files make the newest state of a database.

Rules: a whole copy comes first, and each further file begins where the one before it ends or
earlier; a merged file (a higher level) is taken instead of those that it was made of; names are
enough, and levels above 0 hold whole files of the level below, so each is listed from where the
level above it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from perdure.observe.objects import Objects

SNAPSHOTS = 9
"""The level of whole copies."""
_LEVEL = re.compile(r"[0-9a-f]{1,4}")
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx$")


class File(msgspec.Struct, frozen=True):
    """A file of transactions `first` to `last`; `name` is its object's."""

    name: str
    level: int
    first: int
    last: int
    size: int


def choose(files: Iterable[File], upto: int | None = None) -> list[File]:
    """The files to read, the oldest first; only those that end at transaction `upto` or before.

    Empty where no whole copy is there.

    >>> def file(level: int, first: int, last: int) -> File:
    ...     return File("", level, first, last, 0)
    >>> found = [file(0, 4, 4), file(0, 5, 5), file(1, 2, 4), file(9, 1, 3), file(0, 7, 7)]
    >>> [(one.level, one.first, one.last) for one in choose(found)]
    [(9, 1, 3), (1, 2, 4), (0, 5, 5)]
    """
    there = [one for one in files if upto is None or one.last <= upto]
    there.sort(key=lambda one: one.first)
    chain: list[File] = []
    reached = at = 0
    best: File | None = None
    while True:
        while at < len(there) and there[at].first <= reached + 1:
            if best is None or (there[at].last, there[at].level) > (best.last, best.level):
                best = there[at]
            at += 1
        if best is None or best.last <= reached:
            return chain
        if best.first == 1:
            chain.clear()  # a whole copy
        chain.append(best)
        reached = best.last


def reach(chain: list[File]) -> int:
    """The last transaction of a chain; 0 for an empty one."""
    return chain[-1].last if chain else 0


def last_of(files: list[File]) -> int:
    """The last transaction that any of them has; 0 for none."""
    return max((one.last for one in files), default=0)


def levels_below(objects: Objects, folder: str) -> dict[int, str]:
    """The folders of the levels of an epoch's copy: `0000` in a bucket, `ltx/0` in a folder."""
    folders = objects.level(folder)[0]
    if "ltx" in folders:
        folder = f"{folder}/ltx"
        folders = objects.level(folder)[0]
    return {int(one, 16): f"{folder}/{one}" for one in folders if _LEVEL.fullmatch(one)}


def files_below(objects: Objects, levels: dict[int, str]) -> list[File]:
    """The files that a chain may need."""
    highest, *lower = sorted(levels.keys() - {SNAPSHOTS}, reverse=True) or [0]
    with ThreadPoolExecutor(2, "perdure-observe") as threads:
        whole, merged = threads.map(partial(files_of, objects, levels), (SNAPSHOTS, highest))
    found, reached = whole + merged, last_of(merged)
    for level in lower:
        here = files_of(objects, levels, level, reached)
        found, reached = found + here, max(reached, last_of(here))
    if reach(choose(found)) < last_of(found):  # not made as we expect: look at all
        found = [one for level in levels for one in files_of(objects, levels, level)]
    return found


def files_of(objects: Objects, levels: dict[int, str], level: int, behind: int = 0) -> list[File]:
    """The files of one level whose first transaction is behind that one."""
    after = f"{behind + 1:016x}" if behind else ""
    found = objects.names(levels[level], after) if level in levels else []
    named = ((one, _NAME.search(one.name)) for one in found)
    return [
        File(one.name, level, int(name[1], 16), int(name[2], 16), one.size_bytes)
        for one, name in named
        if name
    ]
