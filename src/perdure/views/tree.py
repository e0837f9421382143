"""The relatives of a run as a tree: parents, children, earlier and later generations, forks.

Rules: bounded; a run appears once; the order is that of their starts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Relation = Literal["root", "child", "fork", "earlier"]


class Relative(msgspec.Struct, frozen=True):
    """A run in a family, `depth` levels below the first one. `of` is the id of the run that it is a
    child, a fork, or an earlier generation of; `more` where further children or forks of it are
    not in the list.
    """

    id: str
    workflow: str
    status: str
    relation: Relation
    of: str | None
    depth: int
    at: datetime
    ended_at: datetime | None
    itself: bool = False
    """Whether it is the run that was asked about."""
    more: bool = False


class Family(msgspec.Struct, frozen=True):
    """The relatives of a run in the order of a tree that is drawn from its top; `more` where some
    were left out.
    """

    relatives: list[Relative]
    more: bool
