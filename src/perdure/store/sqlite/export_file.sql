-- The rows of an export, as an import reads them: the columns of `store.import_writes.TABLES`.

-- name: run
SELECT run, id, workflow, status, args, result, error, waiting, blocked_by, reason, due_ms, crashes,
       priority, queue, tags, forked_from, seed, timeout_ms, created_ms, started_ms, ended_ms,
       durability, unread, generation, python, key, weight, scheduled_ms, parent, parent_seq,
       successor, origin, chain, root
FROM run ORDER BY run;

-- name: event
SELECT run, seq, kind, at_ms, ref, name, data, took_ms, edited FROM event ORDER BY key;

-- name: request
SELECT request, run, key, channel, sender, digest, at_ms, state, replied_ms, by_run, seq
FROM perdure_request ORDER BY request;

-- name: message
SELECT run, kind, name, ref, key, data, at_ms, taken, chain, sender FROM inbox ORDER BY id;

-- name: stream
SELECT run, name, seq, attempt, data, at_ms FROM stream ORDER BY id;

-- name: heartbeat
SELECT run, seq, attempt, data, at_ms FROM heartbeat ORDER BY run, seq;

-- name: exposed
SELECT run, name, seq FROM perdure_exposed_value ORDER BY run, name;

-- name: chunk
SELECT run, n, digest, body FROM chunk ORDER BY run, n;

-- name: secret
SELECT run, n, body FROM perdure_secret ORDER BY run, n;

-- name: without_secrets
SELECT DISTINCT run FROM (
    SELECT run, args AS payload FROM run UNION ALL SELECT run, result FROM run
    UNION ALL SELECT run, data FROM event UNION ALL SELECT run, data FROM inbox
    UNION ALL SELECT run, data FROM heartbeat)
WHERE payload LIKE '@%,""]' AND run NOT IN (SELECT run FROM perdure_secret);

-- name: without_children
SELECT p.id FROM run AS p JOIN event AS c ON c.run = p.run AND c.kind = 'child'
WHERE p.status NOT IN ('completed', 'failed', 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM event AS a WHERE a.run = p.run AND a.ref = c.seq AND a.kind IN ('completed', 'failed', 'abandon'))
  AND NOT EXISTS (SELECT 1 FROM run AS r WHERE r.parent = p.run AND r.parent_seq = c.seq)
ORDER BY p.run;

-- name: no_tables
SELECT name FROM sqlite_schema
WHERE lower(name) IN ('run', 'event', 'perdure_request', 'inbox', 'stream', 'heartbeat', 'perdure_exposed_value', 'chunk', 'perdure_secret')
  AND (type <> 'table' OR sql LIKE 'CREATE VIRTUAL%');
