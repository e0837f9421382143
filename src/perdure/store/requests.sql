-- Requests, their replies, and exposed values. Queries that every database takes, by name; see shared.sql.

-- name: receiver_of_request
SELECT run, status, workflow, coalesce(chain, run) FROM run WHERE id = ?1 {{lock}};

-- name: workflow_of_id
SELECT workflow FROM run WHERE id = ?1;

-- name: request_of_key
-- The row of its reply is gone where the run that gave it has been pruned.
SELECT q.request, q.channel, q.digest,
       q.state = 'open' OR EXISTS (SELECT 1 FROM event AS e WHERE e.key = q.by_run << 24 | q.seq)
FROM perdure_request AS q WHERE q.run = ?1 AND q.key = ?2;

-- name: insert_request
INSERT INTO perdure_request (run, key, channel, sender, digest, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
RETURNING request;

-- name: request_at
-- The request that a row of history has; none where a fork has the row.
SELECT ref FROM inbox WHERE run = ?1 AND kind = 'request' AND taken = ?2;

-- name: copy_requests
-- A run that is retried has its requests in the same rows.
INSERT INTO inbox (run, kind, name, ref, at_ms, taken)
SELECT ?1, kind, name, ref, at_ms, taken FROM inbox
WHERE run = ?2 AND kind = 'request' AND taken > 0 AND taken < ?3 ORDER BY id;

-- name: reply
UPDATE perdure_request SET state = ?3, replied_ms = ?4, by_run = ?1, seq = ?5
WHERE request = (SELECT i.ref FROM inbox AS i
                 WHERE i.run = ?1 AND i.kind = 'request' AND i.taken = ?2)
  AND state = 'open'
RETURNING request;

-- name: expose
INSERT INTO perdure_exposed_value (run, name, seq) VALUES (?1, ?2, ?3)
ON CONFLICT (run, name) DO UPDATE SET seq = excluded.seq;

-- name: copy_exposed
-- The values of a history that was copied: of each name the newest row.
INSERT INTO perdure_exposed_value (run, name, seq)
SELECT ?1, e.name, max(e.key & 16777215) FROM event AS e
WHERE e.key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 AND e.kind = 'expose' GROUP BY e.name;

-- name: exposed
SELECT x.name, e.data, x.seq, e.at_ms FROM perdure_exposed_value AS x JOIN event AS e ON e.key = x.run << 24 | x.seq
WHERE x.run = ?1 ORDER BY x.seq, x.name;

-- name: exposed_value
SELECT e.data FROM perdure_exposed_value AS x JOIN event AS e ON e.key = x.run << 24 | x.seq
WHERE x.run = ?1 AND x.name = ?2;

-- name: reply_of
SELECT q.state, q.by_run, e.data FROM perdure_request AS q
LEFT JOIN event AS e ON e.key = q.by_run << 24 | q.seq WHERE q.request = ?1;

-- name: request_state
SELECT state FROM perdure_request WHERE request = ?1;

-- name: open_requests
SELECT q.request, q.channel, q.key, q.sender, q.at_ms
FROM perdure_request AS q JOIN run AS r ON q.run = coalesce(r.chain, r.run)
WHERE r.run = ?1 AND q.state = 'open' ORDER BY q.request LIMIT ?2;

-- name: unanswered
-- Of runs that have not ended. The newest inbox row of a request is that of the run that has it.
SELECT r.id, q.channel, q.key, q.sender, q.at_ms
FROM (SELECT request, channel, key, sender, at_ms FROM perdure_request {{index perdure_request_open}}
      WHERE state = 'open' AND at_ms < ?1 LIMIT ?3) AS q
JOIN inbox AS i ON i.id = (SELECT max(l.id) FROM inbox AS l {{index perdure_inbox_request}}
                           WHERE l.kind = 'request' AND l.ref = q.request)
JOIN run AS r ON r.run = i.run
WHERE r.status NOT IN ('completed', 'failed', 'cancelled') ORDER BY q.at_ms, q.request LIMIT ?2;
