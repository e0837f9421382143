"""Places in queues: the options that give a run one, and where runs stand.

Rules: a run that waits in no queue costs no read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.common import F, with_options
from perdure.runtime.engine import Engine
from perdure.views.waiting import NO_PLACES, Places, in_queue

_OPTIONS = (
    click.option("--queue", metavar="NAME", help="The queue that a new run waits in."),
    click.option("--key", metavar="TEXT", help="Whom it is for: keys of a queue take turns."),
    click.option(
        "--priority",
        type=click.IntRange(-(2**63), 2**63 - 1),
        default=0,
        metavar="N",
        help="Of those that are due or wait, higher ones begin first. Default: 0.",
    ),
    click.option(
        "--weight",
        type=click.IntRange(0),
        metavar="N",
        help="How much of its queue's rate it takes. Default: 1.",
    ),
)


def place_options(command: F) -> F:
    """The options of commands that start a run."""
    return with_options(command, _OPTIONS)


async def places_of(engine: Engine, run_id: str, waiting_for: Sequence[dict[str, Any]]) -> Places:
    """Where a run and its steps stand in queues, as of now."""
    if not in_queue(waiting_for):
        return NO_PLACES
    return Places(await engine.standing(run_id), datetime.now(UTC))
