"""Tools for tests of workflows: crashes, virtual time, recorded runs, invariants."""

from perdure.testing.crash import Crashed, CrashHarness
from perdure.testing.invariants import InvariantViolated
from perdure.testing.recording import export_run, replay_file, replay_recorded
from perdure.testing.survive import Survived, assert_survives_every_crash
from perdure.testing.virtual_time import NothingLeftToWaitFor, VirtualLoop

__all__ = [
    "CrashHarness",
    "Crashed",
    "InvariantViolated",
    "NothingLeftToWaitFor",
    "Survived",
    "VirtualLoop",
    "assert_survives_every_crash",
    "export_run",
    "replay_file",
    "replay_recorded",
]
