"""What RetryAfter takes: all that a retry-after header may hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from perdure import DefinitionError, RetryAfter


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(20, 20.0), (0, 0.0), (0.5, 0.5), ("20", 20.0), (" 1.5 ", 1.5), (timedelta(minutes=1), 60.0)],
)
def test_seconds_are_taken_as_they_are(given: Any, seconds: float) -> None:
    assert RetryAfter(given).seconds == seconds


@pytest.mark.parametrize("as_text", [False, True])
def test_a_date_is_waited_for(as_text: bool) -> None:
    date = datetime.now(UTC) + timedelta(hours=2)
    given: Any = format_datetime(date, usegmt=True) if as_text else date
    assert 7_100 < RetryAfter(given).seconds <= 7_200


def test_a_date_that_has_passed_means_now() -> None:
    assert RetryAfter("Wed, 21 Oct 2015 07:28:00 GMT").seconds == 0


@pytest.mark.parametrize(
    "given",
    [-1, True, None, "", "soon", "-5", "inf", float("nan"), 1e12, [], datetime(2030, 1, 1),
     "Wed, 21 Oct 9999 07:28:00 GMT"],
)  # fmt: skip
def test_what_is_no_time_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match="the text of a retry-after header"):
        RetryAfter(given)
