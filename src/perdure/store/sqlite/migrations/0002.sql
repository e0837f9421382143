-- Schema version 2: replicas. A file with a row in `replica` is copied by Litestream, which then is the only one to checkpoint it.

CREATE TABLE replica (
    only          INTEGER PRIMARY KEY CHECK (only = 1),
    store_id      TEXT NOT NULL,                      -- of this database, whatever its file is called
    address       TEXT NOT NULL,                      -- where its copies are
    epoch         INTEGER NOT NULL,                   -- the last one that this file was written under
    rows          INTEGER NOT NULL,                   -- rows of history, counted in the transaction that writes them
    commits       INTEGER NOT NULL DEFAULT 0,         -- transactions so far, but for mere signs of life
    digest        INTEGER NOT NULL                    -- the sum of their hashes: a copy with holes does not give it
) STRICT;

ALTER TABLE run ADD COLUMN durability TEXT;           -- disk or replica, where it differs from the engine's
