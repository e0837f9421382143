"""States of threads: one that computes runs, one that waits does not."""

from __future__ import annotations

import hashlib
import sys
import threading

import pytest

from perdure.store.sqlite.thread_states import ThreadStates

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says")


def test_a_thread_that_waits_does_not_run_and_one_that_computes_does() -> None:
    begin, begun, stop = threading.Event(), threading.Event(), threading.Event()

    def computes() -> None:
        begin.wait(60)
        begun.set()
        while not stop.is_set():
            hashlib.pbkdf2_hmac("sha256", b"p", b"s", 100_000)  # without the interpreter's lock

    thread = threading.Thread(target=computes, name="a) R (b")
    thread.start()
    states = ThreadStates()
    try:
        while states.others_run():  # of a test before this one
            pass
        begin.set()
        begun.wait(60)
        while not states.others_run():
            pass
    finally:
        begin.set()
        stop.set()
        thread.join()
    assert not states.others_run()
