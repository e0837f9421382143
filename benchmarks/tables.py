"""What was measured, as rows; and the text, JSON and ratios made of them."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

OURS = "Perdure"


@dataclass
class Row:
    """One system in one scenario. `values` has one figure a round; `cpu_us` is per step, `more`
    what else is to be said.
    """

    system: str
    size: str
    values: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    failed: str = ""


@dataclass
class Table:
    """One scenario on one disk. `disk_us` are 4 KB writes with fdatasync, taken before
    every round.
    """

    scenario: str
    title: str
    unit: str
    rows: list[Row]
    more_is_better: bool = False
    slow_ms: int = 0
    disk_us: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ratio(self, row: Row) -> list[float]:
        """How many times as good ours is, round by round; below 1 the other one is better."""
        ours = next((one.values for one in self.rows if one.system == OURS), [])
        pairs = [
            (mine, other)
            for mine, other in zip(ours, row.values, strict=False)
            if mine > 0 and other > 0
        ]
        return [mine / other if self.more_is_better else other / mine for mine, other in pairs]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with every single figure."""
        rows = [
            {
                **asdict(row),
                "median": median(row.values),
                "ours_is_times_better": median(self.ratio(row)),
            }
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows}


def median(values: list[float]) -> float | None:
    """The middle one, or nothing."""
    return statistics.median(values) if values else None


def spread(values: list[float], unit: str = "") -> str:
    """The median with the least and the greatest in brackets."""
    if not values:
        return "-"
    middle = f"{digits(statistics.median(values))}{unit}"
    return (
        middle if len(values) == 1 else f"{middle} ({digits(min(values))} to {digits(max(values))})"
    )


def digits(value: float) -> str:
    """As many digits as mean something."""
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
    )


def text(table: Table) -> str:
    """The table for a terminal."""
    extra = list(dict.fromkeys(key for row in table.rows for key in row.more))
    cpu = any(row.cpu_us for row in table.rows)
    head = [
        "",
        "size",
        table.unit,
        f"{OURS} is × as good",
        *(["CPU µs/step"] if cpu else []),
        *extra,
    ]
    lines = [head]
    for row in table.rows:
        ratios = "" if row.system == OURS else spread(table.ratio(row))
        cells = [row.system, row.size, row.failed or spread(row.values), ratios]
        lines.append(
            [
                *cells,
                *([spread(row.cpu_us)] if cpu else []),
                *(row.more.get(key, "") for key in extra),
            ]
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    body = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    slow = f", each sync made {table.slow_ms} ms slower" if table.slow_ms else ""
    rounds = max((len(row.values) for row in table.rows), default=0)
    disk = (
        f"the disk's own 4 KB write and fdatasync: {spread(table.disk_us)} µs"
        if table.disk_us
        else ""
    )
    caption = "; ".join(
        part
        for part in (f"median (least to greatest) of {rounds} rounds" if rounds > 1 else "", disk)
        if part
    )
    return "\n".join(
        [f"## {table.title}{slow}", *([caption] if caption else []), "", *body, *table.notes, ""]
    )
