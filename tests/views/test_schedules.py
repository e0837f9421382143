"""Cron lines in words, and only where they are right."""

from __future__ import annotations

import pytest

from perdure.views.schedules import when_text


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ("30 2 * * *", "every day at 02:30"),
        ("0 7 * * mon-fri", "Monday to Friday at 07:00"),
        ("0 7 * * 1,5", "every Monday, Friday at 07:00"),
        ("5 4 1 * *", "on day 1 of every month at 04:05"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/1 * * * *", "every minute"),
        ("*/7 * * * *", None),
        ("*/0 * * * *", None),
        ("7 * * * *", "every hour at :07"),
        ("@daily", "every day at 00:00"),
        ("@every 90s", "every 90 seconds"),
        ("@every 1h/5m", "every hour, 5m after"),
        ("0 0 1 1 *", None),
        ("0 7 1 * mon", None),
        ("0 7 * * mon#1", None),
        ("0-5 7 * * *", None),
        ("1 2 3", None),
        ("*/10 * * * * *", None),
    ],
)
def test_words_for_what_is_common_only(when: str, text: str | None) -> None:
    assert when_text(when) == text
