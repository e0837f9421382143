"""The ratios as an SVG, without a plotting library: how many times as good Perdure is, on a scale
of tens.
"""

from __future__ import annotations

import math
from html import escape

from tables import OURS, Table, digits, median

ROW, LABEL, WIDTH, HEAD = 17, 330, 460, 62
COLOURS = {
    "DBOS": "#b3541e",
    "DBOS, file in WAL": "#e0a030",
    "DBOS, polls each 1 s": "#b3541e",
    "DBOS, polls each 0.01 s": "#e0a030",
    "Restate": "#4878a8",
    "raw apsw commit": "#888888",
}
TIMES = {
    "sequential": "sequential step",
    "latency": "start to result",
    "recovery": "recovery",
    "replay": "replay",
    "parked": "wake-up",
    "starts": "enqueue to start,",
    "admissions": "admissions/s",
}


def bars(tables: list[Table]) -> str:
    """One group a scenario and disk, one bar a system; the line at 1 is Perdure."""
    groups = [
        (label(table), ratios(table))
        for table in tables
        if table.scenario.partition(" ")[0] in (*TIMES, "crowd")
    ]
    groups = [(name, found) for name, found in groups if found]
    every = [value for _, found in groups for _, value in found] or [1.0]
    low, high = math.floor(math.log10(min(0.5, *every))), math.ceil(math.log10(max(10.0, *every)))
    names = list(dict.fromkeys(system for _, found in groups for system, _ in found))
    height = HEAD + sum(ROW * len(found) + 10 for _, found in groups) + 10

    def x(value: float) -> float:
        return LABEL + WIDTH * (math.log10(value) - low) / (high - low)

    lines = [
        (
            f'<text x="10" y="18" font-size="14">{OURS} is so many times as good as the others '
            f"(above 1 it is better)</text>"
        ),
    ]
    for place, name in enumerate(names):
        lines.append(
            f'<rect x="{10 + place * 150}" y="27" width="11" height="11" fill="{colour(name)}"/>'
        )
        lines.append(f'<text x="{26 + place * 150}" y="37">{escape(name)}</text>')
    for power in range(low, high + 1):
        lines.append(
            f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{HEAD - 6}" '
            f'y2="{height - 8}" stroke="#dddddd"/>'
        )
        lines.append(
            f'<text x="{x(10**power):.1f}" y="{HEAD - 9}" text-anchor="middle" '
            f'fill="#666666">{10.0**power:g} ×</text>'
        )
    lines.append(
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{HEAD - 6}" y2="{height - 8}" '
        f'stroke="#333333"/>'
    )
    y = HEAD
    for name, found in groups:
        lines.append(
            f'<text x="{LABEL - 12}" y="{y + ROW * len(found) / 2 + 5:.0f}" '
            f'text-anchor="end">{escape(name)}</text>'
        )
        for system, value in found:
            left, right = sorted((x(1), x(value)))
            lines.append(
                f'<rect x="{left:.1f}" y="{y + 2}" width="{max(1.0, right - left):.1f}" '
                f'height="{ROW - 4}" fill="{colour(system)}"/>'
            )
            lines.append(f'<text x="{right + 5:.1f}" y="{y + 13}">{digits(value)}</text>')
            y += ROW
        y += 10
    return svg(LABEL + WIDTH + 70, height, lines)


def svg(width: int, height: int, lines: list[str]) -> str:
    """A drawing on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12">'
    )
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="#ffffff"/>', *lines, "</svg>", ""]
    )


def label(table: Table) -> str:
    """What a group is called."""
    kind = table.scenario.partition(" ")[0]
    rest = table.scenario.partition(" ")[2]
    name = (
        f"steps/s, {rest.replace('x', 'runs ×')}"
        if kind == "crowd"
        else f"{TIMES[kind]} {rest}".strip()
    )
    return f"{name}, sync +{table.slow_ms} ms" if table.slow_ms else name


def ratios(table: Table) -> list[tuple[str, float]]:
    """Each other system with the median of its ratios, where there is one."""
    found = ((row.system, median(table.ratio(row))) for row in table.rows if row.system != OURS)
    return [(system, value) for system, value in found if value]


def colour(system: str) -> str:
    """One for each system."""
    return COLOURS.get(system, "#555555")
