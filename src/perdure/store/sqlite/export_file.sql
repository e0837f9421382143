-- The rows of a run in an export, as an import reads them: the columns of
-- `store.import_writes.TABLES`.

-- name: heads
SELECT run, id, workflow, status, seed, created_ms, ended_ms, parent, parent_seq,
       successor, origin, chain, root
FROM run ORDER BY run;

-- name: run
SELECT run, id, workflow, status, args, result, error, waiting, blocked_by, reason, due_ms, crashes,
       priority, queue, tags, forked_from, seed, timeout_ms, created_ms, started_ms, ended_ms,
       durability, unread, generation, python, key, weight, scheduled_ms, parent, parent_seq,
       successor, origin, chain, root
FROM run WHERE run = ?1;

-- name: event
SELECT key >> 24, key & 16777215, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 ORDER BY key;

-- name: request
SELECT request, run, key, channel, sender, digest, at_ms, state, replied_ms, by_run, seq
FROM perdure_request WHERE run = ?1
UNION ALL
SELECT request, run, key, channel, sender, digest, at_ms, state, replied_ms, by_run, seq
FROM perdure_request INDEXED BY perdure_request_key
WHERE run = (SELECT chain FROM run WHERE run = ?1) AND by_run = ?1
  AND run NOT IN (SELECT run FROM run)
ORDER BY request;

-- name: message
SELECT run, kind, name, ref, key, data, at_ms, taken, chain, sender FROM (
    SELECT * FROM inbox WHERE run = ?1 AND taken IS NULL
    UNION ALL SELECT * FROM inbox WHERE run = ?1 AND taken = 0
    UNION ALL SELECT * FROM inbox WHERE run = ?1 AND taken > 0)
ORDER BY id;

-- name: stream
SELECT run, name, seq, attempt, data, at_ms FROM stream WHERE run = ?1 ORDER BY id;

-- name: heartbeat
SELECT run, seq, attempt, data, at_ms FROM heartbeat WHERE run = ?1 ORDER BY seq;

-- name: exposed
SELECT run, name, seq FROM perdure_exposed_value WHERE run = ?1 ORDER BY name;

-- name: chunk
SELECT run, n, digest, body FROM chunk WHERE run = ?1 ORDER BY n;

-- name: secret
SELECT run, n, body FROM perdure_secret WHERE run = ?1 ORDER BY n;

-- name: faults_of_schema
-- What is in the place of a table and could be read for ever, and what runs when a table is changed.
SELECT name, 'is no table' FROM sqlite_schema
WHERE lower(name) IN (SELECT value FROM json_each(?1))
  AND (type <> 'table' OR sql LIKE 'CREATE VIRTUAL%')
UNION ALL
SELECT name, 'is a trigger' FROM sqlite_schema
WHERE type = 'trigger' AND lower(tbl_name) IN (SELECT value FROM json_each(?1));

-- name: computed_columns
-- All but those of `event`, which are not read.
SELECT s.name || '.' || x.name FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS x
WHERE s.type = 'table' AND lower(s.name) IN (SELECT value FROM json_each(?1)) AND x.hidden <> 0
  AND (lower(s.name), x.name) NOT IN (VALUES ('event', 'run'), ('event', 'seq'));

-- name: orphans
-- Rows of history of runs that are not there, in the place of a run.
SELECT count(*) FROM event WHERE key >> 24 NOT IN (SELECT run FROM run);

-- name: is_export
SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'perdure_export';
