"""A table of measurements as an SVG bar chart, without a plotting library."""

from __future__ import annotations

from html import escape

ROW, LABEL, WIDTH = 26, 290, 420


def bars(rows: list[tuple[str, float, str]]) -> str:
    """One bar a row, scaled within its unit."""
    longest = {unit: max(value for _, value, u in rows if u == unit) or 1 for _, _, unit in rows}
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 150}" height="{ROW * len(rows) + 16}" '
            'font-family="sans-serif" font-size="13">'
        )
    ]
    for number, (label, value, unit) in enumerate(rows):
        y = 8 + number * ROW
        width = max(1.0, WIDTH * value / longest[unit])
        lines.append(f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        lines.append(f'<rect x="{LABEL}" y="{y + 2}" width="{width:.1f}" height="18" fill="#4878a8"/>')
        lines.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 15}">{value:,.2f} {escape(unit)}</text>')
    return "\n".join([*lines, "</svg>", ""])
