-- Queries for the summary of a store. Each looks at a bounded number of rows, by indexes.

-- name: open_counts
SELECT status.name, (SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY run_open
                                           WHERE run.status = status.name AND run.status <> 'completed' LIMIT ?1))
FROM (SELECT 'pending' AS name UNION ALL SELECT 'running' UNION ALL SELECT 'waiting' UNION ALL SELECT 'paused'
      UNION ALL SELECT 'blocked' UNION ALL SELECT 'failed' UNION ALL SELECT 'cancelled') AS status;

-- name: all_runs
SELECT count(*) FROM (SELECT id FROM run LIMIT ?);

-- name: completed
-- Without children: their index has none.
SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY perdure_run_ended
                      WHERE status = 'completed' AND ended_ms IS NOT NULL AND parent IS NULL LIMIT ?);

-- name: blocked_runs
SELECT substr(id, 1, ?), substr(reason, 1, ?) FROM run INDEXED BY run_open
WHERE status = 'blocked' AND status <> 'completed' ORDER BY run DESC LIMIT 5;

-- name: next_due
-- The first one of each workflow, of some workflows.
WITH RECURSIVE first (workflow) AS (
    SELECT min(workflow) FROM run INDEXED BY run_due WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT (SELECT min(run.workflow) FROM run INDEXED BY run_due
            WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused' AND run.workflow > first.workflow)
    FROM first WHERE first.workflow IS NOT NULL LIMIT 50)
SELECT min((SELECT min(due_ms) FROM run INDEXED BY run_due
            WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused' AND run.workflow = first.workflow))
FROM first WHERE workflow IS NOT NULL;
