"""Queries of pages: the indexes that are theirs alone, and what they do not scan."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw
import pytest

from perdure import Limits
from perdure.store import sql
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import PACKAGE, Q

PAGES = sql.load("pages.sql", PACKAGE)
OF_PAGES = ("perdure_run_workflow", "perdure_run_created", "perdure_run_forked")
COUNTS_ALL = {"status_counts"}
"""It scans the smallest index that has every run."""

LOOKS_AT_KEYS = {"matching", "with_text", "waits_for_a_person", "rows_numbered"}
"""They begin with a list of keys, which has a bound."""

OF_ONE_RUN = {"child_runs"}


@pytest.fixture(scope="module")
def db() -> Iterator[apsw.Connection]:
    store = SqliteStore(":memory:", limits=Limits())
    yield store._db
    store.close()


def plan(db: apsw.Connection, query: str) -> list[str]:
    numbered = [int(number) for number in re.findall(r"\?(\d+)", query)]
    given = (None,) * max(numbered, default=query.count("?"))
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", given)]


@pytest.mark.parametrize("name", sorted(set(Q) - set(PAGES) - {"lock", "returning", "index"}))
def test_the_engine_takes_no_index_of_pages(db: apsw.Connection, name: str) -> None:
    if name in {"each", "whole"} | COUNTS_ALL:
        return
    steps = plan(db, Q[name])
    assert [step for step in steps if any(index in step for index in OF_PAGES)] == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_query_of_pages_sorts_or_scans_runs(db: apsw.Connection, name: str) -> None:
    steps = [step for step in plan(db, PAGES[name]) if "json_each" not in step]
    sorts = [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step]
    scans = [step for step in steps if re.match(r"SCAN (run|r|event|e|chunk|c)\b", step)]
    bounded = "LIMIT" in PAGES[name]
    assert sorts == [] or name in LOOKS_AT_KEYS | OF_ONE_RUN
    assert scans == [] or bounded
