"""The relatives of a run as a tree: parents, children, earlier generations, forks.

Rules: a value without colours; a run appears once; what is left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

Relation = Literal["root", "child", "fork", "earlier"]


class Relative(msgspec.Struct, frozen=True):
    """A run in a family, `depth` levels below the first one. `of` is the id of the run that it is a
    child, a fork, or an earlier generation of; `more` where further relatives below it are not in
    the list.
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


def lines(family: Family) -> list[str]:
    """The tree as text: each run behind the lines that lead to it.

    >>> at = datetime(2026, 1, 1)
    >>> one = Relative("a", "w", "running", "root", None, 0, at, None)
    >>> two = Relative("a.2", "w", "failed", "child", "a", 1, at, None, itself=True)
    >>> print("\\n".join(lines(Family([one, two], False))))
    a  running  w
    └ a.2  failed  w  (this run)
    """
    found = [_line(family.relatives, place) for place in range(len(family.relatives))]
    return [*found, "…"] if family.more else found


def _line(relatives: Sequence[Relative], place: int) -> str:
    one = relatives[place]
    text = f"{_lead(relatives, place)}{one.id}  {one.status}  {one.workflow}"
    if one.relation in ("fork", "earlier"):
        text += f"  {'fork' if one.relation == 'fork' else 'before it'} of {one.of}"
    return text + ("  (this run)" if one.itself else "") + ("  …" if one.more else "")


def _lead(relatives: Sequence[Relative], place: int) -> str:
    """The lines of a tree in front of a run."""
    depth = relatives[place].depth
    if not depth:
        return ""
    bars = ["│ " if _goes_on(relatives, place, level) else "  " for level in range(1, depth)]
    return "".join(bars) + ("├ " if _goes_on(relatives, place, depth) else "└ ")


def _goes_on(relatives: Sequence[Relative], place: int, depth: int) -> bool:
    """Whether another run follows on this level, below the same one."""
    for one in relatives[place + 1 :]:
        if one.depth <= depth:
            return one.depth == depth
    return False
