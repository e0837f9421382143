"""One verb for many runs: what it would do to each, by the life cycle, and doing it.

Rules: a plan is bounded and says whether more runs match; it is made from a read, so a run may have
moved on when its turn comes, and what refuses it then is reported for that run alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from perdure.core import lifecycle
from perdure.errors import DefinitionError, PerdureError, RunNotFound
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.runtime.info import RunSummary
from perdure.views.waiting import is_retrying

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine

VERBS = ("cancel", "pause", "resume", "retry")
RUNS_MAX = 1_000
"""How many runs one plan takes."""

AT_ONCE = 50
PAGE_RUNS = 200


class Planned(msgspec.Struct, frozen=True):
    """A run, and what the verb makes of it: `refused` says why nothing; None where it acts."""

    id: str
    workflow: str
    status: str
    refused: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """What a verb would do. `more`: more runs match than the plan has; those of a filter begin
    behind `next`.
    """

    verb: str
    runs: list[Planned]
    more: bool = False
    next: str | None = None

    @property
    def acts(self) -> list[Planned]:
        """The runs that the verb does something to."""
        return [run for run in self.runs if run.refused is None]

    @property
    def leaves(self) -> list[Planned]:
        """The runs that it leaves as they are."""
        return [run for run in self.runs if run.refused is not None]


class Done(msgspec.Struct, frozen=True):
    """What became of one run: `error` says why nothing was done."""

    id: str
    error: str | None = None


async def plan_of_ids(reader: StoreReader, verb: str, ids: Sequence[str]) -> Plan:
    """What a verb would do to the runs with these ids, up to 1,000. Raises `DefinitionError`."""
    _checked(verb)
    wanted = list(dict.fromkeys(ids))
    some = wanted[:RUNS_MAX]
    found = [await _planned(reader, verb, id) for id in some]
    return Plan(verb, found, len(wanted) > len(some))


async def plan_of_query(reader: StoreReader, verb: str, asked: RunQuery) -> Plan:
    """What a verb would do to the runs that match a filter, the newest 1,000 of them, or
    the 1,000 behind its `after`: what was asked to end may match until it has.

    Raises `DefinitionError`.
    """
    _checked(verb)
    found: list[Planned] = []
    after = asked.after
    while len(found) < RUNS_MAX:
        asked = msgspec.structs.replace(asked, after=after, limit=PAGE_RUNS)
        page = await reader.runs(asked)
        found += [_plan_for(verb, run) for run in page.runs]
        after = page.next
        if after is None or page.searched is not None:
            break
    return Plan(verb, found[:RUNS_MAX], after is not None, after)


def _plan_for(verb: str, run: RunSummary) -> Planned:
    refused = refusal(verb, run.status)
    if verb == "retry" and is_retrying(run):
        refused = None  # its step begins the next attempt
    return Planned(run.id, run.workflow, run.status, refused)


def refusal(verb: str, status: str) -> str | None:
    """Why a verb does nothing to a run of this status; None where it does something.

    >>> refusal("cancel", "waiting"), refusal("cancel", "failed"), refusal("resume", "running")
    (None, 'it has ended', 'it is not paused')
    """
    outcome = lifecycle.outcome(verb, status)
    if not isinstance(outcome, str) or (verb == "cancel" and status in lifecycle.FINAL):
        return "it has ended" if status in lifecycle.FINAL else f"it is {status}"
    if outcome == status and verb != "cancel":
        return {
            "pause": "it is paused already",
            "resume": "it is not paused",
            "retry": "nothing of it has failed",
        }[verb]
    return None


async def carry_out(
    engine: Engine, verb: str, ids: Sequence[str], sender: str | None = None
) -> AsyncIterator[Done]:
    """Do it, and say of each run what became of it, in the order of the ids."""
    act: dict[str, Callable[[str], Awaitable[object]]] = {
        "cancel": engine.cancel,
        "pause": engine.pause,
        "resume": engine.resume,
        "retry": partial(engine.retry, sender=sender),
    }
    do = act[_checked(verb)]

    async def one(id: str) -> Done:
        try:
            await do(id)
        except PerdureError as error:
            return Done(id, str(error))
        return Done(id)

    for at in range(0, len(ids), AT_ONCE):
        for done in await asyncio.gather(*map(one, ids[at : at + AT_ONCE])):
            yield done


async def _planned(reader: StoreReader, verb: str, id: str) -> Planned:
    try:
        run = await reader.summary(id)
    except RunNotFound:
        return Planned(id, "", "", "there is no such run")
    return _plan_for(verb, run)


def _checked(verb: str) -> str:
    if verb not in VERBS:
        raise DefinitionError(
            f"{verb!r} is no verb for many runs. Choose from: {', '.join(VERBS)}."
        )
    return verb
