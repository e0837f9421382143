"""Starts that are put off: which runs get other arguments, until when, and which stay."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.api.secret import MARK
from perdure.core.events import STEP, Event
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.errors import RunExists
from perdure.store.base import Store
from perdure.store.rows import Started
from perdure.store.writes import Append, ControlRun, Deliver, StartRun
from tests.store.conformance.support import claim, join, one, start

SECRET = f"{MARK}hidden".encode()
LARGE = b'["' + b"x" * INLINE_BYTES_MAX + b'"]'
LARGER = b'["' + b"y" * 2 * INLINE_BYTES_MAX + b'"]'


def put_off(store: Store, at_ms: int, args: bytes = b"{}", **more: Any) -> Any:
    """A start that is put off by 10 ms, and the first one to 25 ms at most."""
    given: dict[str, Any] = {
        "workflow": "flow", "args": args, "seed": 1, "at_ms": at_ms, "due_ms": at_ms + 10,
        "debounce_ms": 10, "debounce_until_ms": at_ms + 25,
    } | more  # fmt: skip
    return one(store, StartRun("r", **given))


def test_each_start_puts_the_run_off_and_the_last_arguments_win(store: Store, other: Store) -> None:
    first = put_off(store, 0, b"[1]")
    assert (first.created, first.owned) == (True, False)
    for again, at_ms, due_ms in ((other, 5, 15), (store, 14, 24), (other, 20, 25), (store, 40, 25)):
        assert put_off(again, at_ms, b"[%d]" % at_ms) == Started(first.run, "r", False)
        got = store.run_row(first.run)
        assert (got.args, got.due_ms, got.status) == (b"[%d]" % at_ms, due_ms, "pending")


def test_arguments_of_any_size_follow_each_other(store: Store, other: Store) -> None:
    run = put_off(store, 0, LARGE).run
    for again, args in ((store, LARGER), (other, LARGE), (store, b"{}"), (store, LARGER)):
        put_off(again, 0, args)
        assert store.arguments(run) == other.arguments(run) == args


def test_a_run_that_has_begun_is_not_put_off(store: Store) -> None:
    run = put_off(store, 0, b"[1]").run
    assert claim(store, join(store), now_ms=10) == [run]
    assert put_off(store, 11, b"[1]") == Started(run, "r", False)
    assert isinstance(put_off(store, 11, b"[2]"), RunExists)
    assert store.arguments(run) == b"[1]"


@pytest.mark.parametrize("first", [{"due_ms": 50}, {"due_ms": 0}], ids=["later", "at once"])
def test_a_run_that_was_not_put_off_stays_as_it_is(store: Store, first: dict[str, Any]) -> None:
    run = start(store, args=b"[1]", **first).run
    assert isinstance(put_off(store, 5, b"[2]"), RunExists)
    assert (store.run_row(run).args, store.run_row(run).due_ms) == (b"[1]", first["due_ms"])


def test_another_workflow_and_a_start_without_a_pause_are_refused(store: Store) -> None:
    run = put_off(store, 0, b"[1]").run
    assert isinstance(put_off(store, 1, b"[2]", workflow="other"), RunExists)
    assert isinstance(put_off(store, 1, b"[2]", debounce_ms=None), RunExists)
    assert (store.run_row(run).args, store.run_row(run).due_ms) == (b"[1]", 10)


def test_a_paused_run_that_has_not_begun_is_put_off(store: Store) -> None:
    run = put_off(store, 0, b"[1]").run
    one(store, ControlRun("r", "pause", 1))
    put_off(store, 5, b"[2]")
    one(store, ControlRun("r", "resume", 6))
    got = store.run_row(run)
    assert (got.status, got.args, got.due_ms) == ("pending", b"[2]", 15)


def test_a_cancelled_run_is_not_put_off(store: Store) -> None:
    put_off(store, 0, b"[1]")
    one(store, Deliver("r", "cancel", 1))
    assert isinstance(put_off(store, 5, b"[2]"), RunExists)


def test_pieces_of_arguments_that_another_process_replaced_are_not_referred_to(
    store: Store, other: Store
) -> None:
    """The run's pieces are numbered from 1 again: what a process knew of them holds no more."""
    run = put_off(store, 0, LARGE).run
    put_off(other, 0, LARGER)
    worker = join(store)
    assert claim(store, worker, now_ms=25) == [run]
    one(store, Append(run, worker, [Event(2, STEP, 25, name="s", data=LARGE)]))
    (event,) = store.history_page(run, 1, None)
    assert event.data == LARGE
    assert store.arguments(run) == LARGER


@pytest.mark.parametrize("args", [b"{}", LARGE, b'{"key": "%s"}' % SECRET], ids=len)
def test_a_message_with_a_secret_stays_whole_when_the_arguments_are_replaced(
    store: Store, other: Store, args: bytes
) -> None:
    run = put_off(store, 0, LARGER).run
    secret = b'{"token": "%s"}' % SECRET
    for sender in (other, store):
        one(sender, Deliver("r", "message", 1, "c", None, None, secret))
        put_off(other, 2, args)
        one(sender, Deliver("r", "message", 3, "c", None, None, secret))
    assert [row.data for row in store.inbox(run, 0)] == 4 * [secret]
    assert store.arguments(run, true=True) == args
