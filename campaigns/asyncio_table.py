"""CPython's tests of asyncio that do not pass in a workflow, each with the reason.

Rules: a row is as narrow as it can be; what is "refused" must show the refusal in its traceback;
what "differs" is a difference that code may notice and that is meant; "not applicable" is a test of
something that a workflow's loop does not have.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Kind(StrEnum):
    """What becomes of a test."""

    PASSED = "passed"
    REFUSED = "refused"
    DIFFERS = "differs by design"
    NOT_APPLICABLE = "not applicable"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class Row:
    """Tests by patterns of their names, with spaces between: "module.Class.test", or "module.test"
    for all classes of the module.

    Those that would disturb the process are not `run`; a row may be for interpreters `before` a
    version.
    """

    kind: Kind
    reason: str
    patterns: str
    run: bool = True
    before: tuple[int, int] | None = None

    def matches(self, name: str) -> bool:
        """Whether a test is one of these."""
        return any(fits(name, pattern) for pattern in self.applicable())

    def applicable(self) -> list[str]:
        """Its patterns, if it is for this interpreter."""
        return (
            self.patterns.split() if self.before is None or sys.version_info < self.before else []
        )


def fits(name: str, pattern: str) -> bool:
    """Whether a test has a name that fits a pattern."""
    module, _, test = name.split(".")
    return fnmatchcase(name if pattern.count(".") == 2 else f"{module}.{test}", pattern)


MODULES = (
    "test_tasks",
    "test_futures",
    "test_futures2",
    "test_taskgroups",
    "test_timeouts",
    "test_waitfor",
    "test_locks",
    "test_queues",
    "test_eager_task_factory",
    "test_staggered",
    "test_context",
    "test_pep492",
    "test_streams",
    "test_threads",
    "test_runners",
    "test_base_events",
)

TABLE = (
    Row(
        Kind.REFUSED,
        "Threads and pools of them: what they do could not be replayed. A step may use them.",
        """
        test_threads.* test_tasks.test_run_coroutine_threadsafe* test_futures.test_wrap_future*
        test_base_events.test_check_thread
        test_base_events.test_set_default_executor*
        test_base_events.test_shutdown_default_executor_timeout
        test_base_events.test_asyncgen_finalization_by_gc_in_other_thread
        """,
    ),
    Row(
        Kind.REFUSED,
        "Sockets, pipes and name look-ups: a step reads and writes.",
        """
        test_streams.test_*open*_connection* test_streams.test_start_* test_streams.test_unhandled_*
        test_streams.test_drain_raises test_streams.test_async_writer_api*
        test_streams.test_eof_feed_when_closing_writer
        test_streams.test_*resource_warnings test_streams.test_read_all_from_pipe_reader
        test_streams.test_wait_closed_on_close*
        test_base_events.test_create_connection* test_base_events.test_create_datagram_endpoint*
        test_base_events.test_create_server* test_base_events.test_getnameinfo
        """,
    ),
    Row(
        Kind.REFUSED,
        "Files: a step opens them.",
        """
        test_base_events.BaseLoopSockSendfileTests.*
        """,
    ),
    Row(
        Kind.REFUSED,
        "Subprocesses: a step starts them.",
        """
        test_*.test_env_var_debug test_eager_task_factory.test_issue105987
        """,
    ),
    Row(
        Kind.REFUSED,
        "`time.sleep` stops every run of the process: `asyncio.sleep`, or a step.",
        """
        test_timeouts.test_nested_timeouts_concurrent test_timeouts.test_nested_timeouts_loop_busy
        """,
    ),
    Row(
        Kind.DIFFERS,
        (
            "`wait_for` and `gather` are those of Python 3.12 and later under every Python, so "
            "that a run goes on under another one."
        ),
        (
            "test_waitfor.test_wait_for_self_cancellation "
            "test_futures2.FutureReprTests.test_recursive_repr_for_pending_tasks"
        ),
        before=(3, 12),
    ),
    Row(
        Kind.DIFFERS,
        (
            "Delays that come from random numbers or from the machine's clock are others on "
            "replay: it stops there and says so."
        ),
        """
        test_tasks.test_context_3 test_waitfor.test_asyncio_wait_for_cancelled
        test_waitfor.test_asyncio_wait_for_timeout
        """,
    ),
    Row(
        Kind.DIFFERS,
        (
            "A set of plain coroutines has no order: `as_completed` over one is found on "
            "replay. A list has an order, and so have tasks."
        ),
        """
        test_tasks.test_as_completed_reverse_wait
        """,
    ),
    Row(
        Kind.DIFFERS,
        (
            "Time stands still within a turn, and each timer that is due is an input of its "
            "own: two of one moment fire one after the other."
        ),
        """
        test_timeouts.test_nested_timeouts test_base_events.test_call_later_negative_delays
        """,
    ),
    Row(
        Kind.DIFFERS,
        (
            "A run keeps its tasks and async generators: none is destroyed or closed because "
            "nothing else refers to it."
        ),
        """
        test_tasks.test_log_destroyed_pending_task test_base_events.test_asyncgen_finalization_by_gc
        """,
    ),
    Row(
        Kind.DIFFERS,
        ("The error of a forgotten task is logged when the run ends, not when the task is freed."),
        """
        test_futures2.CFutureTests.test_task_exc_handler_correct_context
        test_base_events.test_default_exc_handler_coro
        """,
    ),
    Row(
        Kind.DIFFERS,
        (
            "What `call_soon` and `call_later` give has the methods of `asyncio.Handle` and "
            "`TimerHandle` and is of another class."
        ),
        """
        test_base_events.test_call_soon test_base_events.test_call_later
        """,
    ),
    Row(
        Kind.NOT_APPLICABLE,
        "Debug mode: a run does the same with it and without.",
        """
        test_tasks.test_task_source_traceback test_futures.test_future_repr
        test_futures.test_future_source_traceback
        test_pep492.test_debug_mode_manages_coroutine_origin_tracking
        test_runners.test_asyncio_run_debug test_runners.test_debug
        test_base_events.test_set_debug test_base_events.test_set_exc_handler_custom
        test_base_events.test_call_soon_non_callable
        test_base_events.test_call_coroutine test_base_events.test_log_slow_callbacks
        """,
    ),
    Row(
        Kind.NOT_APPLICABLE,
        "Two loops at once: a run has one.",
        """
        test_tasks.test_ensure_future_error_msg test_tasks.test_ensure_future_future
        test_tasks.test_ensure_future_task
        test_tasks.test_other_loop_future test_tasks.test_constructor_heterogenous_futures
        test_base_events.test_run_until_complete_loop
        test_base_events.test_running_loop_within_a_loop
        """,
    ),
    Row(
        Kind.NOT_APPLICABLE,
        "Ctrl-C and signals, which belong to the process and its main thread. Not run.",
        """
        test_runners.test_interrupt_* test_runners.test_signal_install_not_supported_ok
        test_runners.test_asyncio_run_without_uncancel
        """,
        run=False,
    ),
    Row(
        Kind.NOT_APPLICABLE,
        (
            "The inner parts of asyncio's own loop: its selector, its queues, classes derived "
            "from it, the clock of its tests."
        ),
        """
        test_base_events.test__add_callback* test_base_events.test__run_once*
        test_base_events.test_not_implemented
        test_base_events.test_custom_run_forever_integration
        test_base_events.test_default_exc_handler_broken
        test_base_events.test_run_forever_pre_stopped
        test_base_events.test_single_selecter_event_callback_after_stopping
        test_base_events.test_accept_connection_* test_tasks.test_stop_while_run_in_complete
        """,
    ),
)
