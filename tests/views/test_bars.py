"""Waterfalls as text: the axis without idle stretches, folded neighbours, attempts."""

from __future__ import annotations

import pytest

from perdure.store.rows import BarRow
from perdure.views import bars
from perdure.views.waterfall import Bars, Waterfall, waterfall


def made(*rows: tuple[object, ...]) -> Waterfall:
    """Rows as (number, kind, time, row that it answers, name, took, fault, began)."""
    found = []
    for row in rows:
        seq, kind, at_ms, ref, name, took_ms, fault, began_ms = (*row, *[None] * 8)[:8]
        found.append(BarRow(seq, kind, at_ms, ref, name, took_ms, None, fault, began_ms))  # type: ignore[arg-type]
    return waterfall(Bars(0, found, {}, len(found)))


def test_bars_stand_where_their_time_is() -> None:
    found = made(
        (1, "step", 0, None, "one"),
        (2, "completed", 500, 1),
        (3, "step", 500, None, "two"),
        (4, "failed", 1_000, 3),
        (5, "step", 1_000, None, "three"),
    )
    head, (one, two, three) = bars.lines(found, 2_000, 20)
    assert head == "│0          │1.2 s"
    assert (one.cells, one.took, one.state) == ("█████", "500 ms", "completed")
    assert (two.cells, two.state) == ("     █████✕", "failed")
    assert (three.cells, three.took, three.state) == ("          ░░░░░░░░░░", "", "open")


def test_idle_stretches_take_a_few_cells() -> None:
    day = 86_400_000
    found = made(
        (1, "step", 0, None, "one"),
        (2, "completed", 100, 1),
        (3, "timer", 100),
        (4, "fired", day, 3),
        (5, "step", day, None, "two"),
        (6, "completed", day + 100, 5),
    )
    head, (one, timer, two) = bars.lines(found, day + 100, 23)
    assert "⟨1 d idle⟩" in head
    assert (one.cells, one.took) == ("██████████⋯⋯⋯", "100 ms")
    assert timer.cells == "          ╌╌╌"
    assert two.cells == "          ⋯⋯⋯██████████"


@pytest.mark.parametrize(("many", "lines"), [(5, 5), (6, 1), (400, 1)])
def test_equal_neighbours_share_a_line(many: int, lines: int) -> None:
    rows: list[tuple[object, ...]] = [(n, "step", n, None, "same") for n in range(1, many + 1)]
    rows += [(many + n, "completed", 1_000 + n, n) for n in range(1, many + 1)]
    _, found = bars.lines(made(*rows), 2_000, 40)
    assert len(found) == lines
    if lines == 1:
        assert (found[0].name, found[0].took) == (f"same ×{many}", "≤ 1.0 s")


def test_attempts_are_drawn_and_never_folded() -> None:
    rows: list[tuple[object, ...]] = [(n, "step", 0, None, "same") for n in range(1, 9)]
    rows += [(20, "attempt", 400, 4, None, 200, "f", 200)]
    found = made(*rows, *((n + 30, "completed", 500, n) for n in range(1, 9) if n != 4))
    _, lines = bars.lines(found, 1_000, 20)
    assert [line.name for line in lines] == ["same"] * 8
    assert (lines[3].state, lines[3].cells) == ("retrying", "╌╌╌╌▒▒▒✕╌╌╌╌╌╌╌╌╌╌╌╌")


def test_a_part_of_the_rows_is_drawn_over_its_own_time() -> None:
    found = made(
        (7, "step", 5_000, None, "one"),
        (8, "completed", 6_000, 7),
        (9, "step", 6_000, None, "two"),
        (10, "timer", 6_500),
        (11, "attempt", 7_000, 9, None, 500, "f", 6_500),
    )
    head, (one, two, timer) = bars.lines(found, 900_000, 20, after=True, more=True)
    assert head == "│5.0 s      │6.2 s"
    assert (one.cells, one.took) == ("██████████", "1.0 s")
    assert (two.cells, two.state, two.took) == ("          ⋮    ▒▒▒▒✕", "later", "")
    assert (timer.cells, timer.state) == ("               ⋮", "later")


def test_nothing_at_all_is_drawn() -> None:
    assert bars.lines(made(), 0, 1) == ("│0", [])
