"""Renewals: one thread for all leases, in which none holds up another."""

from __future__ import annotations

import logging
import threading

import pytest

from perdure.process.renewals import Renewals


class Lease:
    """Renewed a number of times, `wait_s` apart; a fault where `fails`."""

    def __init__(self, times: int, wait_s: float = 0.0, *, fails: bool = False) -> None:
        self.times, self.wait_s, self.fails = times, wait_s, fails
        self.threads: set[int] = set()
        self.over = threading.Event()

    def renew(self) -> float | None:
        self.threads.add(threading.get_ident())
        if self.fails:
            raise RuntimeError("a fault of ours")
        self.times -= 1
        return self.wait_s if self.times else None

    def ended(self) -> None:
        self.over.set()


def test_all_leases_share_a_thread_that_ends_with_the_last_one() -> None:
    renewals, leases = Renewals(), [Lease(5) for _ in range(20)]
    for lease in leases:
        renewals.add(lease, 0.01)
    thread = renewals._thread
    assert thread is not None
    for lease in leases:
        assert lease.over.wait(60)
    thread.join(60)
    assert renewals._thread is None
    assert len({one for lease in leases for one in lease.threads}) == 1


def test_a_fault_ends_one_renewal_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    renewals, broken, whole = Renewals(), Lease(1, fails=True), Lease(3)
    with caplog.at_level(logging.ERROR):
        renewals.add(broken, 0.0)
        renewals.add(whole, 0.0)
        assert broken.over.wait(60)
        assert whole.over.wait(60)
    assert [record.message for record in caplog.records] == [
        "a lease could not be renewed; that is begun anew"
    ]


def test_one_that_is_called_does_not_wait_for_its_time() -> None:
    renewals, lease = Renewals(), Lease(2, wait_s=3_600.0)
    renewals.add(lease, 3_600.0)
    for times in (1, 0):
        renewals.soon(lease)
        while lease.times > times:
            pass
    assert lease.over.wait(60)
