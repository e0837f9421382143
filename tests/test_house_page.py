"""The page for people who change Perdure is not stale: picture, tree, and the files it names."""

from __future__ import annotations

import re

import pytest

from tests import house_page

TEXT = house_page.PAGE.read_text()


def test_the_picture_and_the_tree_are_those_of_the_source() -> None:
    assert house_page.page() == TEXT, "write it again: python -m tests.house_page"


def test_packages_import_each_other_in_no_circle() -> None:
    graph = house_page.imports()
    for name in graph:
        assert name not in house_page.above(name, graph)


def test_a_circle_of_packages_is_found() -> None:
    with pytest.raises(ValueError, match="store is in a circle"):
        house_page.above("store", {"store": {"runtime"}, "runtime": {"store"}})


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:src|tests|campaigns|docs|benchmarks)/[\w./-]+)`", TEXT))
    named |= set(re.findall(r"`((?:\w+/)+\w+\.(?:py|sql))`", TEXT))
    places = (house_page.ROOT, house_page.PACKAGE)
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_it_answers_ten_questions_with_a_file() -> None:
    [_, questions] = TEXT.split("## Where is …?")
    rows = [line for line in questions.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 10
    assert all(re.search(r"`[\w/]+\.(py|sql)`", row) for row in rows)
