"""The suite is shared out by modules, and the list of the long ones is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sharing

ROOT = Path(__file__).resolve().parent.parent


def test_the_long_modules_exist_and_are_named_once() -> None:
    named = [*sharing.ONE_BY_ONE, *sharing.TOGETHER]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert len(named) == len(set(named))


def test_what_takes_long_begins_first_and_modules_keep_their_order(
    request: pytest.FixtureRequest,
) -> None:
    before = list(request.session.items)
    after = list(before)
    sharing.longest_first(after)
    ranks = [sharing.RANK.get(module, len(sharing.RANK)) for module in map(module_of, after)]
    assert ranks == sorted(ranks)
    for module in set(map(module_of, before)):
        assert those_of(module, after) == those_of(module, before)


def module_of(item: pytest.Item) -> str:
    return sharing.module_of(item.nodeid)


def those_of(module: str, items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if module_of(item) == module]
