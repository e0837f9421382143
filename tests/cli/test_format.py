"""Tables and cut lines on a terminal."""

from __future__ import annotations

from perdure.cli import format
from perdure.cli.output import plain


def test_columns_line_up_with_and_without_colour() -> None:
    table = format.columns(("ID", "STATUS"), [("a-long-id", format.status("failed")), ("b", "x")])
    assert [plain(line) for line in table] == [
        "ID         STATUS",
        "a-long-id  failed",
        "b          x",
    ]


def test_text_is_cut_by_the_columns_that_it_needs() -> None:
    assert format.cut("日本語", 6) == "日本語"
    assert format.cut("日本語", 5) == "日本…"
    assert format.cut("x" * 10**6, 5) == "xxxx…"
    assert format.fitting(90, None, 36) == 90
    assert (format.fitting(90, 80, 36), format.fitting(90, 30, 36)) == (44, 20)
