-- Retention: what is deleted with a run that has ended. Queries that every database takes, by name; see shared.sql.

-- Reads -----------------------------------------------------------------------------------------

-- name: prunable
-- Runs without a parent that ended before ?2 with this status, the oldest first, behind (?3, ?4).
SELECT run, id, ended_ms, successor, generation, chain FROM run {{index run_ended}}
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
       (SELECT count(*) FROM pruned_run)
FROM retention;

-- Writes ----------------------------------------------------------------------------------------

-- name: ended_run
SELECT id, ended_ms, chain, (SELECT max(run) FROM run) FROM run WHERE run = ?1 {{lock}};

-- name: children_of
SELECT run, id, ended_ms, chain, (SELECT max(run) FROM run) FROM run
WHERE parent = ?1 ORDER BY run LIMIT ?2;

-- name: prune_run
DELETE FROM run WHERE run = ?1;

-- name: insert_pruned
INSERT INTO pruned_run (run, chain) VALUES (?1, ?2) ON CONFLICT DO NOTHING;

-- name: orphan
-- A run that stays while its parent goes: it has been retried meanwhile, or is the newest.
UPDATE run SET parent = NULL, parent_seq = NULL WHERE run = ?1;

-- name: next_pruned
SELECT run, chain FROM pruned_run ORDER BY run LIMIT 1;

-- name: drop_pruned
DELETE FROM pruned_run WHERE run = ?1;

-- name: count_pruned
UPDATE retention SET runs = runs + ?1, at_ms = ?2;

-- name: count_swept
UPDATE retention SET rows = rows + ?1;

-- name: hold_pruning
UPDATE retention SET holder = ?1, held_ms = ?2
WHERE holder IS NULL OR holder = ?1 OR held_ms <= ?3 OR held_ms > ?4
RETURNING 1;

-- name: release_pruning
UPDATE retention SET holder = NULL, held_ms = NULL WHERE holder = ?1;

-- name: note_archive
UPDATE retention SET archive = ?1, archived_ms = coalesce(?2, archived_ms), error = ?3,
    error_ms = CASE WHEN ?3 IS NULL THEN NULL ELSE coalesce(error_ms, ?4) END;

-- What is swept, table by table: up to ?2 rows of a run that is pruned ----------------------------

-- name: sweep_event
DELETE FROM event WHERE key IN (
    SELECT key FROM event WHERE key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 ORDER BY key LIMIT ?2);

-- name: sweep_chunk
DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE run = ?1 ORDER BY n LIMIT ?2);

-- name: sweep_heartbeat
DELETE FROM heartbeat
WHERE run = ?1 AND seq IN (SELECT seq FROM heartbeat WHERE run = ?1 ORDER BY seq LIMIT ?2);

-- name: sweep_stream
DELETE FROM stream WHERE id IN (SELECT id FROM stream WHERE run = ?1 LIMIT ?2);

-- name: sweep_inbox_taken
-- A key arrives once in a whole chain: its row stays until the last run of the chain goes.
DELETE FROM inbox WHERE id IN (SELECT id FROM inbox {{index inbox_taken}}
                               WHERE run = ?1 AND taken > 0 AND key IS NULL LIMIT ?2);

-- name: sweep_inbox_left
DELETE FROM inbox WHERE id IN (SELECT id FROM inbox {{index inbox_left}}
                               WHERE run = ?1 AND taken = 0 AND key IS NULL LIMIT ?2);

-- name: sweep_inbox_open
DELETE FROM inbox WHERE id IN (SELECT id FROM inbox {{index inbox_open}}
                               WHERE run = ?1 AND taken IS NULL AND key IS NULL LIMIT ?2);

-- name: sweep_place
-- Not those of attempts that are still at work: their worker releases them.
DELETE FROM place WHERE place IN (SELECT place FROM place WHERE run = ?1 AND worker IS NULL
                                  ORDER BY seq LIMIT ?2);

-- name: sweep_exposed
DELETE FROM exposed
WHERE run = ?1 AND name IN (SELECT name FROM exposed WHERE run = ?1 ORDER BY name LIMIT ?2);

-- name: sweep_requests
-- By the chain: a request is known by its key in all its runs.
DELETE FROM request WHERE request IN (SELECT request FROM request WHERE run = ?1 LIMIT ?2);

-- name: sweep_keys
-- By the chain.
DELETE FROM inbox WHERE id IN (SELECT id FROM inbox
                               WHERE coalesce(chain, run) = ?1 AND key IS NOT NULL LIMIT ?2);

-- Positions of streams and numbers of inbox rows are held by readers, and must not come back: the
-- newest row stays, under run 0, which is none.

-- name: keep_newest_stream
UPDATE stream SET run = 0, name = '', data = NULL
WHERE id = (SELECT max(id) FROM stream) AND run = ?1;

-- name: drop_older_stream
DELETE FROM stream WHERE run = 0 AND id < (SELECT max(id) FROM stream);

-- name: keep_newest_inbox
UPDATE inbox SET run = 0, chain = NULL, key = NULL, name = NULL, data = NULL, taken = 0
WHERE id = (SELECT max(id) FROM inbox)
  AND (run = ?1 AND key IS NULL OR coalesce(chain, run) = CAST(?2 AS BIGINT));

-- name: drop_older_inbox
DELETE FROM inbox
WHERE id IN (SELECT id FROM inbox {{index inbox_left}}
             WHERE run = 0 AND taken = 0 AND id < (SELECT max(id) FROM inbox));

-- What outlives its runs -------------------------------------------------------------------------

-- name: forget_queue_keys
-- A bucket that is full again says nothing.
DELETE FROM queue_key WHERE (queue, key) IN (
    SELECT k.queue, k.key FROM queue AS q JOIN queue_key AS k ON k.queue = q.queue
    WHERE k.full_ms < ?1 LIMIT ?2);

-- name: forget_workers
DELETE FROM worker WHERE worker IN (
    SELECT worker FROM worker
    WHERE ended_ms IS NOT NULL AND ended_ms < ?1
      AND NOT EXISTS (SELECT 1 FROM run WHERE owner = worker.worker)
    ORDER BY ended_ms LIMIT ?2);
