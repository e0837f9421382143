-- Schema version 10: retention. Runs that ended long ago are deleted, piece by piece.

-- Runs whose row is gone already, while the rest of them is being deleted; see store/perdure_retention.py.
CREATE TABLE perdure_pruned_run (
    run           INTEGER PRIMARY KEY,
    chain         INTEGER                             -- of a chain whose last run it was: its keys go, too
) STRICT;

CREATE TABLE perdure_retention (
    only          INTEGER PRIMARY KEY CHECK (only = 1),
    runs          INTEGER NOT NULL DEFAULT 0,         -- pruned so far
    rows          INTEGER NOT NULL DEFAULT 0,         -- rows of history that were deleted with them
    at_ms         INTEGER,                            -- the last time that a run was pruned
    holder        TEXT,                               -- the process that prunes, until held_ms
    held_ms       INTEGER,
    archive       TEXT,                               -- where such runs go first
    archived_ms   INTEGER,                            -- the last file that was written there
    error         TEXT,                               -- why the archive can't be written, since error_ms
    error_ms      INTEGER
) STRICT;
INSERT INTO perdure_retention (only) VALUES (1);

CREATE INDEX perdure_run_ended ON run (status, ended_ms) WHERE ended_ms IS NOT NULL AND parent IS NULL;
CREATE INDEX perdure_inbox_taken ON inbox (run) WHERE taken > 0;
CREATE INDEX perdure_worker_ended ON worker (ended_ms) WHERE ended_ms IS NOT NULL;

ALTER TABLE replica ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;  -- how many of the rows have been deleted since
