-- Queues: places in line, admission, limits. Queries that every database takes, by name; see shared.sql.

-- Starts that are put off -----------------------------------------------------------------------

-- name: set_debounce
UPDATE run SET debounce_until_ms = ?1 WHERE run = ?2;

-- name: put_off
-- A run that was put off and has not begun; one in line keeps its place.
UPDATE run SET due_ms = CASE WHEN status = 'waiting' THEN due_ms
                             WHEN debounce_until_ms < ?1 THEN debounce_until_ms ELSE ?1 END
WHERE id = ?2 AND workflow = ?3 AND debounce_until_ms IS NOT NULL AND started_ms IS NULL
  AND owner IS NULL AND status IN ('pending', 'waiting', 'paused')
RETURNING run;

-- name: drop_chunks
DELETE FROM chunk WHERE run = ?1;

-- Reads -----------------------------------------------------------------------------------------

-- name: queue_names
SELECT queue, name FROM queue ORDER BY name;

-- name: queue_rows
SELECT name, concurrency, per_worker, rate_limit, rate_per_ms, rate_burst, key_concurrency,
       key_rate_limit, key_rate_per_ms, key_rate_burst, waiting_max, paused, declared, held_ms,
       next_ms, waiting,
       (SELECT count(*) FROM (SELECT 1 FROM place AS p
                              WHERE p.queue = q.queue AND p.admitted_ms IS NOT NULL
                              LIMIT ?1) AS admitted)
FROM queue AS q ORDER BY name;

-- name: queue_keys
-- Of the keys with places among the first of each kind.
SELECT key, sum(running), sum(waiting),
       (SELECT k.full_ms FROM queue_key AS k WHERE k.queue = ?1 AND k.key = counted.key)
FROM (SELECT key, count(*) AS running, 0 AS waiting
      FROM (SELECT key FROM place WHERE queue = ?1 AND admitted_ms IS NOT NULL LIMIT ?3) AS a
      GROUP BY key
      UNION ALL
      SELECT key, 0, count(*)
      FROM (SELECT l.key FROM line AS l JOIN place AS p ON p.line = l.line
            WHERE l.queue = ?1 LIMIT ?3) AS b
      GROUP BY key) AS counted
GROUP BY key ORDER BY sum(running) + sum(waiting) DESC, key LIMIT ?2;

-- name: admitted_places
SELECT r.id, r.status, nullif(p.seq, 0),
       (SELECT e.name FROM event AS e WHERE e.key = p.run << 24 | p.seq AND p.seq > 0),
       nullif(p.key, ''), p.priority, p.weight, p.asked_ms, p.admitted_ms,
       coalesce(p.worker, r.owner)
FROM (SELECT place FROM place WHERE queue = ?1 AND admitted_ms IS NOT NULL
      ORDER BY place LIMIT ?2) AS first
JOIN place AS p ON p.place = first.place JOIN run AS r ON r.run = p.run
ORDER BY p.place;

-- name: waiting_places
SELECT r.id, r.status, nullif(p.seq, 0),
       (SELECT e.name FROM event AS e WHERE e.key = p.run << 24 | p.seq AND p.seq > 0),
       nullif(p.key, ''), p.priority, p.weight, p.asked_ms, NULL, NULL
FROM line AS l JOIN place AS p ON p.line = l.line JOIN run AS r ON r.run = p.run
WHERE l.queue = ?1
ORDER BY l.priority DESC, l.served, p.place LIMIT ?2;

-- name: admitted_steps
SELECT run, seq, place FROM place WHERE worker = ?1;
