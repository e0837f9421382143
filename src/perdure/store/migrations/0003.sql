-- Schema version 3: claims that stay cheap with many due runs.

CREATE INDEX run_ready ON run (workflow, priority DESC, due_ms) WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused';

DROP INDEX run_owned;
CREATE INDEX run_owned ON run (owner, status) WHERE owner IS NOT NULL;
