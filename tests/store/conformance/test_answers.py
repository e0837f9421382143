"""Answers: one for each wait, links that are used once and expire, and who sent what."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.core.events import MESSAGE, Event
from perdure.errors import (
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    NotAwaited,
    RunFinished,
    RunNotFound,
    TooManyLinks,
)
from perdure.store.answer_writes import AnswerByLink, DeclareWorkflows, MakeLink
from perdure.store.answers import LINKS_MAX
from perdure.store.base import Store
from perdure.store.rows import Woken
from perdure.store.writes import Deliver, Turn
from tests.store.conformance.support import finish, one, owned, suspend

SECRET = "d" * 64


def waits(store: Store, *items: dict[str, Any], run: int, worker: int) -> None:
    one(store, suspend(run, worker, "waiting", waiting=msgspec.json.encode(list(items))))


def waiting(store: Store, *seqs: int) -> tuple[int, int]:
    """A run that waits on channel "yes" at these rows."""
    run, worker = owned(store)
    items = [{"message": "yes", "type": "bool", "seq": seq} for seq in seqs]
    waits(store, *items, run=run, worker=worker)
    return run, worker


def answer(wait: int = 1, sender: str | None = "ada", **more: Any) -> Deliver:
    return Deliver("r", "message", 5, "yes", data=b"true", sender=sender, wait=wait, **more)


def link(wait: int = 1, digest: str = SECRET, run_id: str = "r") -> MakeLink:
    return MakeLink(run_id, "yes", wait, digest, "ada", 2, 100)


def used(at_ms: int = 3, digest: str = SECRET) -> AnswerByLink:
    return AnswerByLink(digest, b"true", at_ms)


def test_a_wait_gets_one_answer_and_the_second_one_hears_of_the_first(store: Store) -> None:
    run, worker = waiting(store, 1)
    assert one(store, answer()) == Woken(run)
    again = one(store, answer(sender="bob"))
    assert isinstance(again, NotAwaited)
    assert (again.by, again.at.timestamp() if again.at else 0) == ("ada", 0.005)
    (row,) = store.inbox(run, 0)
    one(
        store, Turn(run, worker, [Event(2, MESSAGE, 6, name="yes", data=b"true")], 6, [(row.id, 2)])
    )
    waits(store, run=run, worker=worker)
    assert (store.senders(run, 1, 5), store.senders(run, 3, 5)) == ({2: "ada"}, {})
    assert "ada answered at 1970" in str(one(store, answer(sender="bob")))
    assert isinstance(one(store, answer(wait=2)), NotAwaited)


def test_as_many_answers_as_there_are_receivers(store: Store) -> None:
    run, _ = waiting(store, 1, 1)
    assert [one(store, answer()) for _ in range(2)] == [Woken(run)] * 2
    assert isinstance(one(store, answer()), NotAwaited)


def test_an_answer_with_a_key_that_arrived_is_no_second_one(store: Store) -> None:
    run, _ = waiting(store, 1)
    assert [one(store, answer(key="k")) for _ in range(2)] == [Woken(run)] * 2
    assert len(store.inbox(run, 0)) == 1


def test_a_link_is_used_once(store: Store, other: Store) -> None:
    run, _ = waiting(store, 1)
    assert one(store, link()) is None
    found = other.link(SECRET)
    assert found is not None
    assert (found.run_id, found.channel, found.wait, found.used_ms) == ("r", "yes", 1, None)
    assert one(other, used()) == Woken(run)
    assert isinstance(one(store, used()), LinkUsed)
    (row,) = store.answers(1 << 62, 10)
    assert (row.sender, row.channel, row.data, row.at_ms, row.seq) == ("ada", "yes", b"true", 3, 0)
    assert [one.used_ms for one in store.links_of(run, 10)] == [3]


def test_a_link_that_expired_is_unknown_or_whose_wait_is_over_sends_nothing(store: Store) -> None:
    run, worker = waiting(store, 1)
    one(store, link())
    assert isinstance(one(store, used(at_ms=100)), LinkExpired)
    assert isinstance(one(store, used(digest="e" * 64)), LinkUnknown)
    waits(store, {"message": "yes", "type": "bool", "seq": 4}, run=run, worker=worker)
    assert isinstance(one(store, used()), NotAwaited)
    assert store.inbox(run, 0) == []
    waits(store, {"message": "yes", "type": "bool", "seq": 1}, run=run, worker=worker)
    assert one(store, used()) == Woken(run)  # it was not used up


@pytest.mark.parametrize(
    ("made", "error"),
    [(link(wait=2), NotAwaited), (link(run_id="none"), RunNotFound)],
)
def test_a_link_is_made_for_what_is_awaited(
    store: Store, made: MakeLink, error: type[Exception]
) -> None:
    waiting(store, 1)
    assert isinstance(one(store, made), error)


def test_a_run_has_a_bounded_number_of_links_and_none_when_it_has_ended(store: Store) -> None:
    run, worker = waiting(store, 1)
    store.write([link(digest=str(n)) for n in range(LINKS_MAX)], True)
    assert isinstance(one(store, link()), TooManyLinks)
    one(store, finish(run, worker, "completed", result=b"1"))
    assert isinstance(one(store, link()), RunFinished)
    assert isinstance(one(store, used(digest="7")), RunFinished)


def test_what_is_declared_of_workflows_is_written_once(store: Store, other: Store) -> None:
    one(store, DeclareWorkflows([("a", "First.", b"{}"), ("b", "", b"{}")], 1))
    one(other, DeclareWorkflows([("a", "First.", b"{}"), ("b", "Now.", b'{"type":"object"}')], 2))
    assert other.declared_workflows(10) == [
        ("a", "First.", "{}"), ("b", "Now.", '{"type":"object"}'),
    ]  # fmt: skip
    assert store.declared_workflows(1) == [("a", "First.", "{}")]
