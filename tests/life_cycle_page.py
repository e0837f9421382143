"""The diagram and the table of docs/explain/life-cycle.md, made from `perdure.core.lifecycle`.

Run `python -m tests.life_cycle_page` after a change of the table.
"""

from __future__ import annotations

from pathlib import Path

from perdure.core import lifecycle
from perdure.core.lifecycle import FINAL, NEW, OPEN, RUNNING, STATUSES, VERBS, WAITING, Move

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explain" / "life-cycle.md"
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"


def diagram() -> str:
    """The moves between statuses, for Mermaid; an owner's are drawn from running only."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for move in filter(_is_drawn, lifecycle.moves()):
        verbs = arrows.setdefault((move.status, str(move.outcome)), [])
        if move.verb not in verbs:
            verbs.append(move.verb)
    lines = [
        f"    {'[*]' if before == NEW else before} --> {after}: {', '.join(verbs)}"
        for (before, after), verbs in arrows.items()
    ]
    ends = [f"    {status} --> [*]" for status in STATUSES if status in FINAL]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, *ends, "```"])


def _is_drawn(move: Move) -> bool:
    by_owner = VERBS[move.verb].by == lifecycle.OWNER
    from_drawn = move.status == RUNNING or (move.verb, move.status) == ("work", WAITING)
    return (
        isinstance(move.outcome, str)
        and move.outcome != move.status
        and (from_drawn or not by_owner)
    )


def table() -> str:
    """What each verb does, in a row."""
    rows = ["| verb | by | meaning | moves | refused |", "|---|---|---|---|---|"]
    for name, verb in VERBS.items():
        cells = [move for move in lifecycle.moves() if move.verb == name]
        moved = _grouped([m for m in cells if isinstance(m.outcome, str) and m.outcome != m.status])
        refused = _grouped([m for m in cells if not isinstance(m.outcome, str)])
        rows.append(f"| {name} | {verb.by} | {verb.meaning} | {moved} | {refused} |")
    return "\n".join(rows)


def _grouped(moves: list[Move]) -> str:
    """Moves with the same end in one line: `pending, waiting → running (it is due)`."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for move in moves:
        to = move.outcome if isinstance(move.outcome, str) else f"`{move.outcome.__name__}`"
        groups.setdefault((to, move.facts), []).append(move.status)
    return "<br>".join(
        f"{_names(before)} → {to}" + (f" ({' and '.join(facts)})" if facts else "")
        for (to, facts), before in groups.items()
    )


def _names(statuses: list[str]) -> str:
    """Statuses in a few words."""
    found = set(statuses)
    for name, whole in (("any", frozenset(STATUSES)), ("open", OPEN), ("ended", FINAL)):
        if whole <= found:
            rest = [status for status in statuses if status not in whole]
            return ", ".join([*rest, name])
    return ", ".join(statuses)


def renewed(page: str) -> str:
    """The page with what stands between its marks made anew."""
    for name, made in (("diagram", diagram()), ("table", table())):
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END)
        page = f"{before}{begin}\n{made}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
