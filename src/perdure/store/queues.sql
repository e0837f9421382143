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

-- name: was_put_off
SELECT 1 FROM run WHERE run = ?1 AND debounce_until_ms IS NOT NULL;

-- name: drop_chunks
DELETE FROM chunk WHERE run = ?1;
-- State -----------------------------------------------------------------------------------------

-- name: any_queue
SELECT 1 FROM perdure_queue LIMIT 1;

-- name: queue_by_name
SELECT queue, name, concurrency, per_worker, rate_limit, rate_per_ms, rate_burst, key_concurrency,
       key_rate_limit, key_rate_per_ms, key_rate_burst, waiting_max, paused, declared, held_ms,
       held_at_ms, level_ns, level_ms, turn, waiting, next_ms
FROM perdure_queue WHERE name = ?1 {{lock}};

-- name: queue_by_key
SELECT queue, name, concurrency, per_worker, rate_limit, rate_per_ms, rate_burst, key_concurrency,
       key_rate_limit, key_rate_per_ms, key_rate_burst, waiting_max, paused, declared, held_ms,
       held_at_ms, level_ns, level_ms, turn, waiting, next_ms
FROM perdure_queue WHERE queue = ?1 {{lock}};

-- name: due_queues
SELECT queue FROM perdure_queue WHERE next_ms <= ?1 ORDER BY next_ms, queue;

-- name: set_queue_state
UPDATE perdure_queue SET held_ms = ?1, held_at_ms = ?2, level_ns = ?3, level_ms = ?4, turn = ?5,
    waiting = ?6, next_ms = ?7
WHERE queue = ?8;

-- name: insert_queue
INSERT INTO perdure_queue (name) VALUES (?1) ON CONFLICT (name) DO NOTHING;

-- name: set_queue
UPDATE perdure_queue SET concurrency = ?1, per_worker = ?2, rate_limit = ?3, rate_per_ms = ?4,
    rate_burst = ?5, key_concurrency = ?6, key_rate_limit = ?7, key_rate_per_ms = ?8,
    key_rate_burst = ?9, waiting_max = ?10, paused = ?11, declared = ?12
WHERE queue = ?13;

-- name: count_admitted
SELECT count(*) FROM perdure_place WHERE queue = ?1 AND admitted_ms IS NOT NULL;

-- name: count_key
SELECT count(*) FROM perdure_place WHERE queue = ?1 AND key = ?2 AND admitted_ms IS NOT NULL;

-- name: count_runs_of
SELECT count(*) FROM run {{index run_owned}} WHERE owner = ?1 AND owner IS NOT NULL AND queue = ?2;

-- name: count_steps_of
SELECT count(*) FROM perdure_place WHERE worker = ?1 AND queue = ?2;

-- name: key_bucket
SELECT level_ns, level_ms FROM perdure_queue_key WHERE queue = ?1 AND key = ?2;

-- name: set_key_bucket
INSERT INTO perdure_queue_key (queue, key, level_ns, level_ms, full_ms) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (queue, key) DO UPDATE SET level_ns = excluded.level_ns, level_ms = excluded.level_ms,
    full_ms = excluded.full_ms;

-- name: drop_full_keys
DELETE FROM perdure_queue_key
WHERE queue = ?1 AND key IN (SELECT key FROM perdure_queue_key WHERE queue = ?1 AND full_ms <= ?2 LIMIT ?3);

-- name: prepaid
SELECT prepaid FROM perdure_place WHERE place = ?1 AND queue = ?2;

-- name: use_prepaid
UPDATE perdure_place SET prepaid = 0 WHERE place = ?1;

-- name: queues_later_than
SELECT name FROM perdure_queue WHERE next_ms > ?1 OR level_ms > ?1 OR held_at_ms > ?1;

-- name: key_buckets_from
UPDATE perdure_queue_key SET full_ms = full_ms - level_ms + ?1, level_ms = ?1 WHERE level_ms >= ?2;

-- name: key_buckets
SELECT key, level_ns, level_ms FROM perdure_queue_key WHERE queue = ?1;

-- Places ----------------------------------------------------------------------------------------

-- name: place_of
SELECT place, queue, key, priority, weight, prepaid, line, admitted_ms, worker FROM perdure_place
WHERE run = ?1 AND seq = ?2;

-- name: insert_admitted
-- The root is looked up when it waits.
INSERT INTO perdure_place (queue, key, run, seq, root, priority, weight, prepaid, asked_ms, admitted_ms,
                   worker)
VALUES (?1, ?2, ?3, ?4, ?3, ?5, ?6, ?7, ?8, ?8, ?9)
ON CONFLICT (run, seq) DO NOTHING {{returning place}};

-- name: hand_on
UPDATE perdure_place SET run = ?5, seq = ?6, priority = ?7, weight = ?8, prepaid = ?8, asked_ms = ?9,
    admitted_ms = ?9
WHERE place = ?1 AND worker = ?2 AND queue = ?3 AND key = ?4 AND admitted_ms IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM perdure_place AS o WHERE o.run = ?5 AND o.seq = ?6 AND o.place <> ?1);

-- name: insert_waiting
INSERT INTO perdure_place (queue, key, run, seq, root, priority, weight, asked_ms)
VALUES (?1, ?2, ?3, ?4, ?3, ?5, ?6, ?7) {{returning place}};

-- name: set_place_worker
UPDATE perdure_place SET worker = ?1 WHERE place = ?2;

-- name: set_line
UPDATE perdure_place SET line = ?1,
    root = (SELECT coalesce(r.root, r.run) FROM run AS r WHERE r.run = perdure_place.run)
WHERE place = ?2;

-- name: set_aside
UPDATE perdure_place SET line = NULL, admitted_ms = NULL WHERE place = ?1;

-- name: admit_place
UPDATE perdure_place SET line = NULL, admitted_ms = ?1, prepaid = ?2, worker = ?3 WHERE place = ?4;

-- name: hand_on_place
UPDATE perdure_place SET run = ?1 WHERE run = ?2 AND seq = 0;

-- name: place_of_worker
-- What waits is the owner's; what is admitted is the worker's who executes it.
SELECT place, key, queue, line, admitted_ms FROM perdure_place
WHERE place = ?1 AND seq <> 0
  AND (worker = ?2 OR (worker IS NULL
                       AND (SELECT r.owner FROM run AS r WHERE r.run = perdure_place.run) = ?2))
{{lock}};

-- name: set_apart
-- Its row has a number below zero from here on, from which that of the step can be read.
UPDATE perdure_place SET seq = -(place << 24 | seq) WHERE place = ?1 AND worker = ?2 AND seq > 0;

-- name: drop_place
DELETE FROM perdure_place WHERE place = ?1;

-- name: places_of_run
SELECT place, key, queue, line, admitted_ms FROM perdure_place
WHERE run = ?1 AND (seq = 0 OR worker IS NULL) {{lock}};

-- name: step_places_in_line
SELECT place, key, queue, line, admitted_ms FROM perdure_place
WHERE run = ?1 AND seq > 0 AND admitted_ms IS NULL {{lock}};

-- name: places_of_worker
SELECT place, key, queue, line, admitted_ms, run FROM perdure_place WHERE worker = ?1 {{lock}};

-- name: step_places
SELECT place, queue, key, priority, line, admitted_ms FROM perdure_place
WHERE run = ?1 AND seq > 0 ORDER BY place;

-- name: asks_of_run
SELECT queue, workflow, key, priority, weight FROM run WHERE run = ?1;

-- name: workflow_of
SELECT workflow FROM run WHERE run = ?1;

-- name: owner_and_queue
SELECT queue, owner FROM run WHERE run = ?1;

-- name: wait_in_line
UPDATE run SET status = 'waiting', waiting = ?1, due_ms = NULL WHERE run = ?2 AND owner IS NULL;

-- name: admit_run
UPDATE run SET owner = ?1, status = 'running', started_ms = coalesce(started_ms, ?2), waiting = NULL
WHERE run = ?3 AND owner IS NULL AND status IN ('waiting', 'pending');

-- name: due_for_step
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND status = 'waiting' AND (due_ms IS NULL OR due_ms > ?1);

-- name: paused_in_queues
SELECT r.run FROM run AS r WHERE r.owner = ?1 AND r.status = 'paused';

-- name: runs_in_line
SELECT DISTINCT p.run FROM perdure_line AS l JOIN perdure_place AS p ON p.line = l.line WHERE l.taker = ?1;

-- name: family_places
-- In the order of admission; (queue, priority, served, place, …) as of a place that waits.
SELECT p.queue, p.priority, l.served, p.place, p.line, p.key, p.run, p.seq, p.weight, p.prepaid,
       l.taker
FROM perdure_place AS p JOIN perdure_line AS l ON l.line = p.line
WHERE p.root = ?1 AND p.line IS NOT NULL AND (p.run = ?2 OR p.run <> ?1)
ORDER BY p.priority DESC, l.served, p.place;

-- Lines -----------------------------------------------------------------------------------------

-- name: next_taker
SELECT min(taker) FROM perdure_line {{index perdure_line_ready}} WHERE queue = ?1 AND ready_ms = 0 AND taker > ?2;

-- name: first_in_line
SELECT l.priority, l.served, l.head, l.line, l.key, p.run, p.seq, p.weight, p.prepaid
FROM perdure_line AS l {{index perdure_line_ready}} JOIN perdure_place AS p ON p.place = l.head
WHERE l.queue = ?1 AND l.taker = ?2 AND l.ready_ms = 0
ORDER BY l.priority DESC, l.served, l.head LIMIT 1;

-- name: any_ready
SELECT 1 FROM perdure_line {{index perdure_line_ready}} WHERE queue = ?1 AND ready_ms = 0 LIMIT 1;

-- name: find_line
SELECT line, head FROM perdure_line WHERE queue = ?1 AND key = ?2 AND priority = ?3 AND taker = ?4;

-- name: line_taker
SELECT taker, ready_ms FROM perdure_line WHERE line = ?1;

-- name: line_head
SELECT key, head, ready_ms FROM perdure_line WHERE line = ?1;

-- name: next_head
SELECT min(place) FROM perdure_place WHERE line = ?1;

-- name: set_head
UPDATE perdure_line SET head = ?1 WHERE line = ?2;

-- name: insert_line
INSERT INTO perdure_line (queue, key, priority, taker, served, head, ready_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) {{returning line}};

-- name: delete_line
DELETE FROM perdure_line WHERE line = ?1;

-- name: served_of_key
SELECT max(served) FROM perdure_line WHERE queue = ?1 AND key = ?2 AND priority = ?3;

-- name: least_served
SELECT served FROM perdure_line {{index perdure_line_ready}}
WHERE queue = ?1 AND taker = ?2 AND priority = ?3 AND ready_ms = 0 ORDER BY served LIMIT 1;

-- name: set_head_and_turns
UPDATE perdure_line SET head = ?1, served = ?2 WHERE line = ?3;

-- name: set_served
UPDATE perdure_line SET served = ?1 WHERE queue = ?2 AND key = ?3 AND priority = ?4;

-- name: close_lines
UPDATE perdure_line SET ready_ms = ?1 WHERE queue = ?2 AND key = ?3;

-- name: close_line
UPDATE perdure_line SET ready_ms = ?1 WHERE line = ?2;

-- name: closed_lines_of
SELECT line, priority, served, taker FROM perdure_line
WHERE queue = ?1 AND key = ?2 AND ready_ms > ?3 AND ready_ms < ?4;

-- name: closed_lines
SELECT line, priority, served, taker FROM perdure_line {{index perdure_line_timed}}
WHERE queue = ?1 AND ready_ms > 0 AND ready_ms <= ?2 ORDER BY ready_ms LIMIT ?3;

-- name: timed_lines
SELECT line, priority, served, taker FROM perdure_line {{index perdure_line_timed}}
WHERE queue = ?1 AND ready_ms > 0 AND ready_ms > ?2 AND ready_ms < ?3;

-- name: open_line
UPDATE perdure_line SET ready_ms = 0, served = ?1 WHERE line = ?2;

-- name: next_open
SELECT min(ready_ms) FROM perdure_line {{index perdure_line_timed}}
WHERE queue = ?1 AND ready_ms > 0 AND ready_ms < ?2;

-- Reads -----------------------------------------------------------------------------------------

-- name: next_admissions
-- Queues that may admit something, the soonest first, and when the lines of these takers are ready.
SELECT q.queue, q.next_ms,
       CASE WHEN EXISTS (SELECT 1 FROM perdure_line AS l {{index perdure_line_ready}}
                         WHERE l.queue = q.queue AND l.taker IN ({{each ?1}}) AND l.ready_ms = 0)
            THEN 0
            ELSE (SELECT min(l.ready_ms) FROM perdure_line AS l {{index perdure_line_timed}}
                  WHERE l.queue = q.queue AND l.ready_ms > 0 AND l.ready_ms < 9007199254740991) END,
       q.rate_limit
FROM perdure_queue AS q {{index perdure_queue_next}} WHERE q.next_ms IS NOT NULL ORDER BY q.next_ms;

-- name: family_admissions
SELECT q.queue, q.next_ms, l.ready_ms, p.weight - p.prepaid
FROM perdure_place AS p JOIN perdure_line AS l ON l.line = p.line JOIN perdure_queue AS q ON q.queue = p.queue
WHERE p.root = ?1 AND p.line IS NOT NULL AND (p.run = ?2 OR p.run <> ?1)
  AND l.taker IN ({{each ?3}}) AND l.ready_ms < 9007199254740991 AND q.next_ms IS NOT NULL;

-- name: limit_of_workers
SELECT 1 FROM perdure_queue WHERE queue = ?1 AND per_worker IS NOT NULL;

-- name: queue_names
SELECT queue, name FROM perdure_queue ORDER BY name;

-- name: queue_rows
SELECT name, concurrency, per_worker, rate_limit, rate_per_ms, rate_burst, key_concurrency,
       key_rate_limit, key_rate_per_ms, key_rate_burst, waiting_max, paused, declared, held_ms,
       next_ms, waiting,
       (SELECT count(*) FROM (SELECT 1 FROM perdure_place AS p
                              WHERE p.queue = q.queue AND p.admitted_ms IS NOT NULL
                              LIMIT ?1) AS admitted)
FROM perdure_queue AS q WHERE CAST(?2 AS BIGINT) IS NULL OR q.queue = ?2 ORDER BY name;

-- name: queue_keys
-- Of the keys with places among the first of each kind.
SELECT key, sum(running), sum(waiting),
       (SELECT k.full_ms FROM perdure_queue_key AS k WHERE k.queue = ?1 AND k.key = counted.key)
FROM (SELECT key, count(*) AS running, 0 AS waiting
      FROM (SELECT key FROM perdure_place WHERE queue = ?1 AND admitted_ms IS NOT NULL LIMIT ?3) AS a
      GROUP BY key
      UNION ALL
      SELECT key, 0, count(*)
      FROM (SELECT l.key FROM perdure_line AS l JOIN perdure_place AS p ON p.line = l.line
            WHERE l.queue = ?1 LIMIT ?3) AS b
      GROUP BY key) AS counted
GROUP BY key ORDER BY sum(running) + sum(waiting) DESC, key LIMIT ?2;

-- name: admitted_places
SELECT r.id, r.status, nullif(abs(p.seq) & 16777215, 0),
       (SELECT e.name FROM event AS e
        WHERE e.key = p.run << 24 | (abs(p.seq) & 16777215) AND p.seq <> 0),
       nullif(p.key, ''), p.priority, p.weight, p.asked_ms, p.admitted_ms,
       coalesce(p.worker, r.owner)
FROM (SELECT place FROM perdure_place WHERE queue = ?1 AND admitted_ms IS NOT NULL
      ORDER BY place LIMIT ?2) AS first
JOIN perdure_place AS p ON p.place = first.place JOIN run AS r ON r.run = p.run
ORDER BY p.place;

-- name: waiting_place
SELECT r.id, r.status, nullif(p.seq, 0),
       (SELECT e.name FROM event AS e WHERE e.key = p.run << 24 | p.seq AND p.seq > 0),
       nullif(p.key, ''), p.priority, p.weight, p.asked_ms, NULL, NULL
FROM perdure_place AS p JOIN run AS r ON r.run = p.run WHERE p.place = ?1;

-- name: waits_of
SELECT p.queue, p.place, p.seq,
       (SELECT e.name FROM event AS e WHERE e.key = p.run << 24 | p.seq AND p.seq > 0),
       p.key, l.ready_ms, l.taker
FROM perdure_place AS p JOIN perdure_line AS l ON l.line = p.line WHERE p.run = ?1 ORDER BY p.seq LIMIT ?2;

-- name: line_of
SELECT q.name FROM perdure_place AS p JOIN perdure_queue AS q ON q.queue = p.queue
WHERE p.run = ?1 AND p.seq = ?2 AND p.line IS NOT NULL;

-- name: any_worker
SELECT 1 FROM worker WHERE ended_ms IS NULL LIMIT 1;

-- name: first_lines
SELECT priority, served, head, line FROM perdure_line {{index perdure_line_ready}}
WHERE queue = ?1 AND taker = ?2 AND ready_ms = 0
ORDER BY priority DESC, served, head LIMIT ?3;

-- name: shut_lines
SELECT priority, served, head, line FROM perdure_line {{index perdure_line_timed}}
WHERE queue = ?1 AND ready_ms > 0 LIMIT ?2;

-- name: places_in_line
SELECT place FROM perdure_place WHERE line = ?1 ORDER BY place LIMIT ?2;

-- name: admitted_steps
SELECT run, seq, place FROM perdure_place WHERE worker = ?1;
