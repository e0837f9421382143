-- Schema version 5: families, so that an engine can execute one run and what that has started, and nothing else.

ALTER TABLE run ADD COLUMN root INTEGER;              -- the run that started this one, or that one's root; kept by retry and continue_as
CREATE INDEX run_family ON run (root, workflow, due_ms)
    WHERE root IS NOT NULL AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused';

ALTER TABLE worker ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;  -- 1: it executes what it is asked for only, so others leave it no share

UPDATE run SET root = (
    WITH RECURSIVE above (run, parent) AS (
        SELECT r.run, r.parent FROM run AS r WHERE r.run = run.parent
        UNION SELECT r.run, r.parent FROM above JOIN run AS r ON r.run = above.parent)
    SELECT min(run) FROM above WHERE parent IS NULL)
WHERE run IN (SELECT o.run FROM run AS o INDEXED BY run_open
              WHERE o.status <> 'completed' AND o.status NOT IN ('failed', 'cancelled')) AND parent IS NOT NULL;
