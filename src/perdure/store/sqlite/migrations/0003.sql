-- Schema version 3: claims that stay cheap with many due runs; inboxes that count what was not received; keys for a whole chain of runs.

CREATE INDEX run_ready ON run (workflow, priority DESC, due_ms) WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused';

DROP INDEX run_owned;
CREATE INDEX run_owned ON run (owner, status) WHERE owner IS NOT NULL;

ALTER TABLE run ADD COLUMN unread INTEGER NOT NULL DEFAULT 0;  -- messages that are in the history, but not received
CREATE INDEX run_unread ON run (workflow) WHERE unread > 0 AND status = 'waiting' AND owner IS NULL;
ALTER TABLE run ADD COLUMN generation INTEGER;        -- how many runs went before it under its id; NULL: count them
ALTER TABLE run ADD COLUMN chain INTEGER;             -- the first of the runs that went on under one id; NULL: this one

-- A key arrives once in a whole chain, so its row stays where it was first used, and is looked up by the chain.
ALTER TABLE inbox ADD COLUMN chain INTEGER;           -- of a message with a key: its run's; NULL: the run itself
DROP INDEX inbox_key;
CREATE UNIQUE INDEX inbox_key ON inbox (coalesce(chain, run), key) WHERE key IS NOT NULL;
CREATE INDEX inbox_left ON inbox (run) WHERE taken = 0;  -- what a run that ended has left
