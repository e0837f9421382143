"""Families as text."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.views.tree import Family, Relation, Relative, lines

AT = datetime(2026, 1, 1, tzinfo=UTC)


def one(id: str, depth: int, relation: Relation = "child", of: str | None = None) -> Relative:
    return Relative(id, "w", "running", relation, of, depth, AT, None, more=id == "e")


def test_branches_lead_to_each_run() -> None:
    family = Family(
        [
            one("a", 0, "root"), one("b", 1), one("c", 2), one("d", 2), one("e", 1),
            one("f", 1, "fork", "a"),
        ],
        more=True,
    )  # fmt: skip
    assert lines(family) == [
        "a  running  w",
        "├ b  running  w",
        "│ ├ c  running  w",
        "│ └ d  running  w",
        "├ e  running  w  …",
        "└ f  running  w  fork of a",
        "…",
    ]
