"""Process host: what all engines of one process share.

Rules: one thread watches the files of all engines, and one renews all their leases, however many
there are; neither exists before it is needed, nor in a child that was forked.
"""

from __future__ import annotations

from perdure.process.file_watcher import FileWatcher
from perdure.process.renewals import Renewals

files = FileWatcher()
leases = Renewals()
