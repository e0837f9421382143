"""Filters of runs as the query of an address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure.errors import DefinitionError
from perdure.http.run_query import filters, run_query, spelled_out
from perdure.reader.values import PLACES, RunQuery

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_a_query_is_a_filter() -> None:
    asked = run_query(
        [
            ("status", "failed"), ("status", "retrying"), ("status", "failed"), ("tag", "n=7"),
            ("tag", "who=acme=x"), ("since", "36h"), ("until", "2026-11-29T11:00:00+00:00"),
            ("q", "timeout"), ("in", "tags"), ("in", "error"), ("workflow", ""), ("limit", "7"),
            ("step", "of another page"),
        ],
        NOW,
    )  # fmt: skip
    assert asked == RunQuery(
        status=("failed", "retrying"),
        tags={"n": 7, "who": "acme=x"},
        since=NOW - timedelta(hours=36),
        until=NOW - timedelta(hours=1),
        text="timeout",
        in_=("tags", "error"),
        limit=7,
    )
    assert run_query([], NOW) == RunQuery(in_=PLACES)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("status", "done", "Choose from: pending, running"),
        ("in", "history", "Choose from: id"),
        ("tag", "acme", "NAME=VALUE"),
        ("tag", "=acme", "NAME=VALUE"),
        ("since", "yesterday", "an age such as 24h"),
        ("until", "9999999999999d", "an age such as 24h"),
        ("limit", "0", "from 1 to 500"),
        ("limit", "٣", "from 1 to 500"),
        ("limit", "5" * 5000, "from 1 to 500"),
    ],
)
def test_a_filter_that_cannot_be_says_what_can(name: str, text: str, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        run_query([(name, text)], NOW)


def test_ages_before_the_first_year_are_refused() -> None:
    with pytest.raises(DefinitionError, match="an age such as"):
        run_query([("since", "999999w")], NOW)


def test_what_is_typed_is_spelled_out() -> None:
    assert spelled_out('status:failed in:error "it said: no" 503') == [
        ("status", "failed"),
        ("in", "error"),
        ("q", "it said: no 503"),
    ]
    assert spelled_out('http://x "open') == [("q", 'http://x "open')]
    assert spelled_out("  ") == []


def test_filters_have_one_order() -> None:
    pairs = [("q", "x"), ("after", "c"), ("tag", "a=1"), ("status", "failed"), ("q", "x")]
    assert filters(pairs) == [("status", "failed"), ("tag", "a=1"), ("q", "x")]
