"""What Perdure proves itself with, for your own workflows. Names only; see the modules for what they are."""

from perdure.testing.laws import LawBroken
from perdure.testing.lives import Crashed, Lives
from perdure.testing.recorded import export_run, replay_file, replay_recorded
from perdure.testing.survive import Survived, assert_survives_every_crash
from perdure.testing.virtual import NothingLeftToWaitFor, VirtualLoop

__all__ = [
    "Crashed", "LawBroken", "Lives", "NothingLeftToWaitFor", "Survived", "VirtualLoop", "assert_survives_every_crash", "export_run",
    "replay_file", "replay_recorded",
]  # fmt: skip
