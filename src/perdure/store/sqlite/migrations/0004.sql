-- Schema version 4: which Python executed a run.

ALTER TABLE run ADD COLUMN python TEXT;               -- the last one, "3.11"; NULL: none yet, or only before this version of the schema

DROP VIEW IF EXISTS perdure_runs;
CREATE VIEW perdure_runs AS
SELECT id, workflow, status,
       {{whole r.args of r.run}} AS args,
       {{whole r.result of r.run}} AS result,
       {{whole r.error of r.run}} AS error, reason, waiting AS waiting_for, tags, queue, priority, owner AS worker,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent, forked_from,
       (SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215) AS history_rows,
       strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%d %H:%M:%f', ended_ms / 1000.0, 'unixepoch') AS ended_at, python
FROM run AS r;
