"""What Perdure proves itself with, for your own workflows. Names only; see the modules for what they are."""

from perdure.testing.lives import Crashed, Lives
from perdure.testing.virtual import NothingLeftToWaitFor, VirtualLoop

__all__ = ["Crashed", "Lives", "NothingLeftToWaitFor", "VirtualLoop"]
