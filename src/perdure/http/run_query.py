"""Filters of runs as the query of an address, the same for the list, its API and its events.

Rules: `status`, `tag`, `in` may be given several times, all others once; what is not known is left
alone, because pages have parameters of their own; a filter that can't be is a `DefinitionError`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from perdure.core.lifecycle import STATUSES
from perdure.errors import DefinitionError
from perdure.reader.values import PLACES, RETRYING, Place, RunQuery
from perdure.views import times, typed

Pairs = Sequence[tuple[str, str]]
"""The parts of a query, in their order."""

NAMES = ("status", "workflow", "tag", "since", "until", "q", "in", "parent", "queue")
"""The parameters that choose runs; `after` and `limit` say which page of them."""

LIMIT_MAX = 500

_WORDS = {"status", "workflow", "tag", "since", "until", "parent", "queue", "in"}


def run_query(pairs: Iterable[tuple[str, str]], now: datetime) -> RunQuery:
    """The filter that a query says. Ages such as `24h` are counted from `now` (aware).

    Raises `DefinitionError`.
    """
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        if text:
            given.setdefault(name, []).append(text)
    one = {name: texts[-1] for name, texts in given.items()}
    return RunQuery(
        status=_statuses(given.get("status", ())),
        workflow=one.get("workflow"),
        tags=_tags(given.get("tag", ())),
        since=_time(one.get("since"), now),
        until=_time(one.get("until"), now),
        text=one.get("q"),
        in_=_places(given.get("in", PLACES)),
        parent=one.get("parent"),
        queue=one.get("queue"),
        after=one.get("after"),
        limit=_limit(one.get("limit")),
    )


def filters(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of a query that choose runs, in the order of `NAMES`."""
    found = [(name, text) for name, text in pairs if name in NAMES and text]
    return sorted(dict.fromkeys(found), key=lambda pair: NAMES.index(pair[0]))


def spelled_out(text: str) -> list[tuple[str, str]]:
    """What is typed into the filter of the list, as parameters: `workflow:agent "two words"`.

    >>> spelled_out('timeout workflow:agent tag:tenant=acme "no answer"')
    [('workflow', 'agent'), ('tag', 'tenant=acme'), ('q', 'timeout no answer')]
    """
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation mark that is not closed
        words = text.split()
    found, rest = [], []
    for word in words:
        name, colon, thing = word.partition(":")
        if colon and thing and name in _WORDS:
            found.append((name, thing))
        else:
            rest.append(word)
    return [*found, ("q", " ".join(rest))] if rest else found


def _statuses(given: Sequence[str]) -> tuple[str, ...]:
    known = (*STATUSES, RETRYING)
    for status in given:
        if status not in known:
            raise DefinitionError(f"status: {status!r} is none. Choose from: {', '.join(known)}.")
    return tuple(dict.fromkeys(given))


def _places(given: Sequence[str]) -> tuple[Place, ...]:
    for place in given:
        if place not in PLACES:
            raise DefinitionError(f"in: {place!r} is none. Choose from: {', '.join(PLACES)}.")
    return tuple(place for place in PLACES if place in given)


def _tags(given: Sequence[str]) -> dict[str, Any]:
    try:
        return typed.tags(given)
    except ValueError as error:
        raise DefinitionError(f"tag: {error}") from None


def _time(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        return times.since(text, now)
    except ValueError:
        raise DefinitionError(
            f"{text!r} is no time. Write an age such as 24h or 7d, or 2026-11-29T08:00."
        ) from None


def _limit(text: str | None) -> int:
    if text is None:
        return 50
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LIMIT_MAX:
        raise DefinitionError(f"limit: {text!r} is not a number from 1 to {LIMIT_MAX}.")
    return int(text)
