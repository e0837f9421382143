"""Streams in pages: items of all runs that went on under one id, one run after another.

Rules: nothing here waits; what a retry has taken back is left out; the id of an earlier generation
stands for its own items.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.core import lifecycle
from perdure.core.lifecycle import FINAL
from perdure.errors import BadPosition
from perdure.store.base import Store
from perdure.store.rows import StreamItem

ITEMS_AT_ONCE = 500


class StreamPage(NamedTuple):
    """Items of a stream. `over`: their run has ended; `later` is the run that goes on after it."""

    over: bool
    later: int | None
    items: list[StreamItem]


def page(store: Store, run: int, run_id: str, name: str, after: int) -> StreamPage:
    """The next items of a stream, of one run of those that went on under its id."""
    status = store.statuses([run])[run][0]
    over = status in FINAL
    later = store.generation_after(run) if over and "~" not in run_id else None
    if later is not None and status != lifecycle.COMPLETED:
        return StreamPage(over, later, [])  # it was retried: what is kept of it went on with that
    return StreamPage(over, later, store.stream(run, name, after, ITEMS_AT_ONCE))


def first_run(store: Store, run_id: str, name: str, after: int) -> int:
    """The run whose items come first behind a position: the run of the item at that position, or
    the first one under this id. Raises `BadPosition`.
    """
    run, chain = store.run_key(run_id), run_id.partition("~")[0]
    if not after:
        return run if "~" in run_id else store.first_generation(run)
    place = store.stream_place(after)
    if place is None:
        raise BadPosition(run_id, name, after, "no item has it")
    holder, holder_id, stream = place
    if stream != name or holder_id.partition("~")[0] != chain:
        raise BadPosition(
            run_id, name, after, f"it is one of stream {stream!r} of run {holder_id!r}"
        )
    return run if "~" in run_id else holder
