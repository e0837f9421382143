"""Payloads: whole JSON byte for byte, however large, and compared without being read."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from perdure.core.events import COMPLETED, STEP, Event
from perdure.core.limits import CHUNK_BYTES_MIN, INLINE_BYTES_MAX, WHOLE_BYTES_MAX
from perdure.errors import RunExists
from perdure.store.base import Store
from perdure.store.writes import Append, BatchRolledBack, StartRun
from tests.store.conformance.support import claim, finish, join, one, owned, start, suspend

SIZES = [0, CHUNK_BYTES_MIN, INLINE_BYTES_MAX, WHOLE_BYTES_MAX, 100_000]
AWKWARD = [
    b'{"a": 1,\n "b":  [ ]}' + b" " * 2_000,
    b'"@' + b"0" * 2_000 + b'"',
    b'["' + "ü😀".encode() * 1_000 + b'"]',
    b"[" + b",".join([b'{"k":"same"}'] * 500) + b"]",
    b"[" * 300 + b'"' + b"x" * 3_000 + b'"' + b"]" * 300,
    b"1" * 2_000,
]


def payloads() -> list[bytes]:
    around = [size + more for size in SIZES for more in (-1, 0, 1) if size + more >= 2]
    return [b'"' + b"x" * (size - 2) + b'"' for size in around] + AWKWARD


@pytest.mark.parametrize("data", payloads(), ids=lambda data: f"{len(data)}-{data[:3]!r}")
def test_a_payload_comes_back_byte_for_byte(store: Store, other: Store, data: bytes) -> None:
    run, worker = owned(store, args=data)
    rows = [Event(2, STEP, 0, name="s", data=data), Event(3, COMPLETED, 0, ref=2, data=data)]
    one(store, Append(run, worker, list(rows)))
    one(store, finish(run, worker, "failed", result=data, error=data))
    for reader in (store, other):
        got = reader.run_row(run)
        assert got.args == got.result == got.error == data
        assert reader.arguments(run) == data
        assert reader.outcome(run).result == reader.outcome(run).error == data
        assert reader.run_head("r").error == data
        assert [event.data for event in reader.history_page(run, 1, None)] == [data, data]
        assert [event.data for event in reader.rows_about(run, 2)] == [data, data]


def test_arguments_in_a_history_are_compared_and_read_on_use(store: Store) -> None:
    large = b'{"text":"' + b"x" * 5_000 + b'"}'
    run, worker = owned(store)
    one(store, Append(run, worker, [Event(2, STEP, 0, name="s", data=large)]))
    (event,) = store.history(run, 1)
    data: Any = event.data
    assert data.same_as(large)
    assert not data.same_as(large.replace(b"x", b"y", 1))
    assert data.read() == large


def test_lists_that_grow_are_whole_at_every_step(store: Store, other: Store) -> None:
    """Their elements are stored once; what is read is what was written."""
    run, worker = owned(store)
    rng = random.Random(1)
    messages: list[Any] = []
    written = []
    for seq in range(2, 60):
        messages.append({"role": "user", "content": "x" * rng.randrange(1, 4_000), "n": seq})
        written.append(msgspec.json.encode({"messages": messages}))
        one(store, Append(run, worker, [Event(seq, STEP, 0, name="s", data=written[-1])]))
    got = other.history(run, 1)
    assert [_read(event) for event in got] == written
    assert [event.data for event in other.history_page(run, 1, None)] == written


def test_a_run_that_comes_back_from_another_process(store: Store, other: Store) -> None:
    """Its new owner has added pieces: the numbers of those that come now do not collide."""
    run, worker = owned(store)
    of_other = join(other)
    parts = [b'{"text":"' + bytes([65 + n]) * 3_000 + b'"}' for n in range(8)]
    written = []
    for seq in range(2, 9):
        writer, owner = (other, of_other) if seq % 2 else (store, worker)
        written.append(b"[" + b",".join(parts[:seq]) + b"]")
        if seq > 2:
            assert claim(writer, owner) == [run]
        assert one(writer, Append(run, owner, [Event(seq, COMPLETED, 0, data=written[-1])])) is None
        one(writer, suspend(run, owner, "waiting", due_ms=0, release=True))
    for reader in (store, other):
        assert [_read(event) for event in reader.history(run, 1)] == written


def test_a_batch_that_is_rolled_back_leaves_no_pieces_behind(store: Store) -> None:
    run, worker = owned(store)
    large = b'{"text":"' + b"x" * 5_000 + b'"}'
    with pytest.raises(BatchRolledBack):
        store.write([Append(run, worker, [Event(1, COMPLETED, 0, data=large)])], True)
    one(store, Append(run, worker, [Event(2, COMPLETED, 0, data=large)]))
    assert [_read(event) for event in store.history(run, 1)] == [large]


def test_starts_with_large_arguments_are_told_apart(store: Store) -> None:
    large = b'["' + b"x" * 5_000 + b'"]'
    run = start(store, args=large).run
    assert start(store, args=large).run == run
    other = StartRun("r", "flow", large.replace(b"x", b"y", 1), 1, 0, 0)
    assert isinstance(one(store, other), RunExists)


def _read(event: Event) -> bytes | None:
    data: Any = event.data
    return data if data is None or isinstance(data, bytes) else data.read()
