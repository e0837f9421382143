-- Retention: what is deleted with a run that has ended. Queries that every database takes, by name; see shared.sql.

-- Reads -----------------------------------------------------------------------------------------

-- name: prunable
-- Runs without a parent that ended before ?2 with this status, the oldest first, behind (?3, ?4).
SELECT run, id, ended_ms, successor, generation, chain FROM run {{index perdure_run_ended}}
WHERE status = ?1 AND ended_ms IS NOT NULL AND parent IS NULL
  AND ended_ms < ?2 AND ended_ms >= ?3 AND (ended_ms > ?3 OR run > ?4)
ORDER BY ended_ms, run LIMIT ?5;

-- name: family_below
-- How many runs there are below one, one of them that has not ended before ?2, and the newest.
WITH RECURSIVE below (run, id, ended_ms) AS (
    SELECT run, id, ended_ms FROM run {{index run_parent}} WHERE parent = ?1
    UNION ALL
    SELECT r.run, r.id, r.ended_ms
    FROM below JOIN run AS r {{index run_parent}} ON r.parent = below.run)
SELECT count(*), min(CASE WHEN ended_ms IS NULL OR ended_ms >= ?2 THEN id END), max(run)
FROM below;

-- name: earlier_run
SELECT run, successor FROM run WHERE id = ?1;

-- name: id_and_chain
SELECT id, chain FROM run WHERE run = ?1;

-- name: oldest_of
-- The first of a chain was pruned: the oldest that is left, by the index of ids.
SELECT min(run) FROM run WHERE id >= ?1 AND id < ?2 AND chain = ?3;

-- name: newest_run
SELECT max(run) FROM run;

-- name: pruning
SELECT runs, rows, at_ms, archive, archived_ms, error, error_ms,
       (SELECT count(*) FROM perdure_pruned_run)
FROM perdure_retention;

-- Writes ----------------------------------------------------------------------------------------

-- name: ended_run
SELECT id, ended_ms, chain, (SELECT max(run) FROM run) FROM run WHERE run = ?1 {{lock}};

-- name: children_of_pruned
SELECT r.run, r.id, r.ended_ms, r.chain, (SELECT max(run) FROM run)
FROM perdure_pruned_run AS p CROSS JOIN run AS r {{index run_parent}}
WHERE p.run <= ?1 AND r.parent = p.run LIMIT ?2;

-- name: prune_run
DELETE FROM run WHERE run = ?1;

-- name: insert_pruned
INSERT INTO perdure_pruned_run (run, chain) VALUES (?1, ?2) ON CONFLICT DO NOTHING;

-- name: orphan
-- A run that stays while its parent goes: it has been retried meanwhile, or is the newest.
UPDATE run SET parent = NULL, parent_seq = NULL WHERE run = ?1;

-- name: next_pruned
-- The last of the first ?1 of them.
SELECT max(run) FROM (SELECT run FROM perdure_pruned_run ORDER BY run LIMIT ?1) AS first;

-- name: drop_pruned
DELETE FROM perdure_pruned_run WHERE run <= ?1;

-- name: count_pruned
UPDATE perdure_retention SET runs = runs + ?1, at_ms = ?2;

-- name: count_swept
UPDATE perdure_retention SET rows = rows + ?1;

-- name: hold_pruning
UPDATE perdure_retention SET holder = ?1, held_ms = ?2
WHERE holder IS NULL OR holder = ?1 OR held_ms <= ?3 OR held_ms > ?4
RETURNING 1;

-- name: release_pruning
UPDATE perdure_retention SET holder = NULL, held_ms = NULL WHERE holder = ?1;

-- name: note_archive
UPDATE perdure_retention SET archive = ?1, archived_ms = coalesce(?2, archived_ms), error = ?3,
    error_ms = CASE WHEN ?3 IS NULL THEN NULL ELSE coalesce(error_ms, ?4) END;

-- What is swept, table by table: up to ?2 rows of the pruned runs up to ?1 -------------------------

-- name: sweep_event
DELETE FROM event WHERE key IN (
    SELECT e.key FROM perdure_pruned_run AS p CROSS JOIN event AS e
    WHERE p.run <= ?1 AND e.key BETWEEN p.run << 24 AND p.run << 24 | 16777215 LIMIT ?2);

-- name: sweep_chunk
DELETE FROM chunk WHERE id IN (
    SELECT c.id FROM perdure_pruned_run AS p CROSS JOIN chunk AS c
    WHERE p.run <= ?1 AND c.run = p.run LIMIT ?2);

-- name: sweep_secret
DELETE FROM perdure_secret WHERE (run, n) IN (
    SELECT s.run, s.n FROM perdure_pruned_run AS p CROSS JOIN perdure_secret AS s
    WHERE p.run <= ?1 AND s.run = p.run LIMIT ?2);

-- name: sweep_heartbeat
DELETE FROM heartbeat WHERE (run, seq) IN (
    SELECT h.run, h.seq FROM perdure_pruned_run AS p CROSS JOIN heartbeat AS h
    WHERE p.run <= ?1 AND h.run = p.run LIMIT ?2);

-- name: sweep_stream
DELETE FROM stream WHERE id IN (
    SELECT s.id FROM perdure_pruned_run AS p CROSS JOIN stream AS s
    WHERE p.run <= ?1 AND s.run = p.run LIMIT ?2);

-- name: sweep_inbox_taken
-- A key arrives once in a whole chain: its row stays until the last run of the chain goes.
DELETE FROM inbox WHERE id IN (
    SELECT i.id FROM perdure_pruned_run AS p CROSS JOIN inbox AS i {{index perdure_inbox_taken}}
    WHERE p.run <= ?1 AND i.run = p.run AND i.taken > 0 AND i.key IS NULL LIMIT ?2);

-- name: sweep_inbox_left
DELETE FROM inbox WHERE id IN (
    SELECT i.id FROM perdure_pruned_run AS p CROSS JOIN inbox AS i {{index inbox_left}}
    WHERE p.run <= ?1 AND i.run = p.run AND i.taken = 0 AND i.key IS NULL LIMIT ?2);

-- name: sweep_inbox_open
DELETE FROM inbox WHERE id IN (
    SELECT i.id FROM perdure_pruned_run AS p CROSS JOIN inbox AS i {{index inbox_open}}
    WHERE p.run <= ?1 AND i.run = p.run AND i.taken IS NULL AND i.key IS NULL LIMIT ?2);

-- name: sweep_place
-- Places with a worker are those of attempts that still work, and release them.
DELETE FROM perdure_place WHERE place IN (
    SELECT a.place FROM perdure_pruned_run AS p CROSS JOIN perdure_place AS a
    WHERE p.run <= ?1 AND a.run = p.run AND a.worker IS NULL LIMIT ?2);

-- name: sweep_exposed
DELETE FROM perdure_exposed_value WHERE (run, name) IN (
    SELECT x.run, x.name FROM perdure_pruned_run AS p CROSS JOIN perdure_exposed_value AS x
    WHERE p.run <= ?1 AND x.run = p.run LIMIT ?2);

-- name: sweep_links
DELETE FROM perdure_link WHERE link IN (
    SELECT l.link FROM perdure_pruned_run AS p CROSS JOIN perdure_link AS l
    WHERE p.run <= ?1 AND l.run = p.run LIMIT ?2);

-- name: sweep_requests
-- By the chain: a request is known by its key in all its runs.
DELETE FROM perdure_request WHERE request IN (
    SELECT q.request FROM perdure_pruned_run AS p CROSS JOIN perdure_request AS q
    WHERE p.run <= ?1 AND p.chain IS NOT NULL AND q.run = p.chain LIMIT ?2);

-- name: sweep_keys
-- By the chain; the plus is for SQLite, which otherwise does not use the index of that expression.
DELETE FROM inbox WHERE id IN (
    SELECT i.id FROM perdure_pruned_run AS p CROSS JOIN inbox AS i
    WHERE p.run <= ?1 AND p.chain IS NOT NULL AND coalesce(i.chain, i.run) = +p.chain
      AND i.key IS NOT NULL LIMIT ?2);

-- Positions of streams and numbers of inbox rows are held by readers, and must not come back: the
-- newest row stays, under run 0, which is none.

-- name: keep_newest_stream
UPDATE stream SET run = 0, name = '', data = NULL
WHERE id = (SELECT max(id) FROM stream)
  AND run IN (SELECT run FROM perdure_pruned_run WHERE run <= ?1);

-- name: drop_older_stream
DELETE FROM stream WHERE run = 0 AND id < (SELECT max(id) FROM stream);

-- name: keep_newest_inbox
UPDATE inbox SET run = 0, chain = NULL, key = NULL, name = NULL, sender = NULL, data = NULL, taken = 0
WHERE id = (SELECT max(id) FROM inbox)
  AND EXISTS (SELECT 1 FROM perdure_pruned_run AS p
              WHERE p.run <= ?1 AND (p.run = inbox.run AND inbox.key IS NULL
                                     OR p.chain = coalesce(inbox.chain, inbox.run)));

-- name: drop_older_inbox
DELETE FROM inbox
WHERE id IN (SELECT id FROM inbox {{index inbox_left}}
             WHERE run = 0 AND taken = 0 AND id < (SELECT max(id) FROM inbox));

-- What outlives its runs -------------------------------------------------------------------------

-- name: forget_queue_keys
-- A bucket that is full again says nothing.
DELETE FROM perdure_queue_key WHERE (queue, key) IN (
    SELECT k.queue, k.key FROM perdure_queue AS q JOIN perdure_queue_key AS k ON k.queue = q.queue
    WHERE k.full_ms < ?1 LIMIT ?2);

-- name: forget_workers
DELETE FROM worker WHERE worker IN (
    SELECT worker FROM worker
    WHERE ended_ms IS NOT NULL AND ended_ms < ?1
      AND NOT EXISTS (SELECT 1 FROM run WHERE owner = worker.worker)
    ORDER BY ended_ms LIMIT ?2);
