"""The runtime: engines, the writer with group commit, active runs, attempts of steps, leases."""
