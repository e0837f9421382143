"""Small pictures as SVG: bars side by side.

Rules: positions are attributes, never styles; a picture has a sentence that says what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

STEP, BAR = 4, 3


def bars(
    columns: Sequence[Sequence[float]], classes: Sequence[str], label: str, height: int = 28
) -> Markup:
    """Columns of a chart, each with its parts, the lowest first; `classes` colour the parts. A part
    that is there is at least two units high.
    """
    most = max([1, *(sum(column) for column in columns)])
    width = max(len(columns), 1) * STEP
    head = (
        f'<svg class="spark" role="img" aria-label="{Markup.escape(label)}" viewBox="0 0 {width} '
        f'{height}" width="{width * 3 // 4}" height="{height}" preserveAspectRatio="none">'
        f'<path class="base" d="M0 {height - 0.5}H{width}"/>'
    )
    drawn = [head]
    for at, column in enumerate(columns):
        y = float(height)
        for part, kind in zip(column, classes, strict=True):
            if part:
                tall = max(part / most * (height - 2), 2)
                y -= tall
                drawn.append(
                    f'<rect class="{kind}" x="{at * STEP}" y="{y:.1f}" width="{BAR}" '
                    f'height="{tall:.1f}"/>'
                )
    return Markup("".join(drawn) + "</svg>")
