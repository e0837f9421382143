-- Schema version 11: lists for pages. A start writes two more index entries at the right edge; nothing else does.

CREATE INDEX perdure_run_workflow ON run (workflow);
CREATE INDEX perdure_run_created ON run (created_ms);
CREATE INDEX perdure_run_forked ON run (forked_from) WHERE forked_from IS NOT NULL;
