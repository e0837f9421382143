"""Addresses of a list, and the columns that it has."""

from __future__ import annotations

import pytest

from perdure.http import columns
from perdure.http.addresses import Address


def test_an_address_has_one_filter_more_or_less() -> None:
    here = Address("/p/", [("q", "a b"), ("status", "failed"), ("after", "c"), ("step", "7")])
    assert str(here) == "/p/?status=failed&q=a+b"
    assert here.toggled("status", "waiting") == "/p/?status=failed&status=waiting&q=a+b"
    assert here.toggled("status", "failed") == "/p/?q=a+b"
    assert here.only("q", "c") == "/p/?status=failed&q=c"
    assert here.without("q") == "/p/?status=failed"
    assert here.behind("next") == "/p/?status=failed&q=a+b&after=next"
    assert str(Address("/p/", [])) == "/p/"


def test_columns_come_back_as_they_were_chosen() -> None:
    cookie = columns.cookie_of(["took", "workflow", "nonsense"], "tenant, a.b=c , ,prio")
    chosen = columns.chosen(cookie)
    assert [one.title for one in chosen] == ["Workflow", "Took", "tenant", "a.b=c", "prio"]
    assert columns.tags_of(chosen) == "tenant, a.b=c, prio"
    assert all(one.isalnum() or one in ".-" for one in cookie)


@pytest.mark.parametrize(
    "cookie", ["", "tag-", "tag-zz", "tag-ff", "..", "<b>", "tag-" + "61" * 99]
)
def test_a_cookie_of_somebody_else_harms_nothing(cookie: str) -> None:
    assert columns.chosen(cookie) == []
    assert next(one.name for one in columns.chosen(None)) == "workflow"
