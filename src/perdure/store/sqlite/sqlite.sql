-- SQLite's own queries, by name: rowids, pragmas, json_each, checksums. The others are in shared.sql.

-- Its words in shared.sql; a write transaction locks the whole file, so no row needs a lock.

-- name: lock

-- name: returning

-- name: index
INDEXED BY {}

-- name: each
SELECT value FROM json_each({})

-- name: whole
CASE WHEN $column NOT LIKE '@%' THEN $column ELSE (
           SELECT group_concat(piece, '') FROM (
               SELECT CASE item.type WHEN 'text' THEN item.value ELSE (
                          SELECT group_concat(body, ',') FROM (
                              SELECT c.body FROM chunk AS c
                              WHERE c.run = $run AND c.n BETWEEN json_extract(item.value, '$[0]') AND json_extract(item.value, '$[1]')
                              ORDER BY c.n)) END AS piece
               FROM json_each(substr($column, 34)) AS item ORDER BY item.key)) END;

-- name: foreign_tables
SELECT name FROM sqlite_schema LIMIT 3;

-- name: schema
SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name;

-- name: temp_schema
SELECT type, name, tbl_name, sql FROM temp.sqlite_schema ORDER BY type, name;

-- name: user_version
PRAGMA user_version;

-- name: last_worker
SELECT seq FROM main.sqlite_sequence WHERE name = 'worker';

-- name: insert_event
INSERT INTO event (key, kind, at_ms, ref, name, data, took_ms, edited) VALUES (? | ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, nullif(?, 0));

-- name: chunks_of_runs
-- What many payloads need, as [run, first, last]: one query, however many they are.
SELECT c.run, c.n, c.body FROM json_each(?1) AS need
CROSS JOIN chunk AS c ON c.run = need.value ->> 0 AND c.n BETWEEN need.value ->> 1 AND need.value ->> 2;

-- name: secrets_of_runs
-- The same of their secrets.
SELECT s.run, s.n, s.body FROM json_each(?1) AS need
CROSS JOIN perdure_secret AS s ON s.run = need.value ->> 0 AND s.n BETWEEN need.value ->> 1 AND need.value ->> 2;

-- name: copy_events
INSERT INTO event (key, kind, ref, name, data, at_ms, took_ms, edited)
SELECT ?1 << 24 | seq, kind, ref, name, data, at_ms, took_ms, edited FROM event WHERE key >= ?2 << 24 AND key < ?2 << 24 | ?3 AND seq NOT IN (SELECT value FROM json_each(?4)) ORDER BY key;

-- name: edit_event
UPDATE event SET data = ?, edited = 1 WHERE key = ? << 24 | ?;

-- name: due_by_priority
-- For many due runs: walks the levels of priority by the index, the highest first, and does not sort.
WITH RECURSIVE level (priority) AS (
    SELECT max(priority) FROM run INDEXED BY run_ready
    WHERE workflow = ?1 AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT (SELECT max(r.priority) FROM run AS r INDEXED BY run_ready
            WHERE r.workflow = ?1 AND r.priority < level.priority AND r.due_ms IS NOT NULL
              AND r.owner IS NULL AND r.status <> 'paused')
    FROM level WHERE level.priority IS NOT NULL)
SELECT r.priority, r.due_ms, r.run, r.queue FROM level CROSS JOIN run AS r INDEXED BY run_ready
WHERE r.workflow = ?1 AND r.priority = level.priority AND r.due_ms <= ?2 AND r.owner IS NULL
  AND r.status <> 'paused'
LIMIT ?3;

-- name: due_names
-- Workflows with due runs that have no owner, each with one of these: a search of the index a name.
WITH RECURSIVE level (workflow) AS (
    SELECT min(workflow) FROM run INDEXED BY run_due WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT (SELECT min(r.workflow) FROM run AS r INDEXED BY run_due
            WHERE r.workflow > level.workflow AND r.due_ms IS NOT NULL AND r.owner IS NULL AND r.status <> 'paused')
    FROM level WHERE level.workflow IS NOT NULL)
SELECT level.workflow, (SELECT r.id FROM run AS r INDEXED BY run_due
                        WHERE r.workflow = level.workflow AND r.due_ms <= ? AND r.owner IS NULL AND r.status <> 'paused'
                        ORDER BY r.due_ms LIMIT 1) AS first
FROM level WHERE level.workflow IS NOT NULL AND first IS NOT NULL LIMIT 1000;

-- name: run_rows
SELECT r.run, r.id, r.workflow, r.status, r.args, r.result, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.crashes,
       r.priority, r.queue, r.tags, r.parent, r.parent_seq, r.forked_from, r.successor, r.origin, r.seed, r.timeout_ms, r.created_ms,
       r.started_ms, r.ended_ms, r.durability, (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent_id,
       coalesce((SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), 0) AS history_rows,
       r.python, r.root, r.key, r.weight, r.scheduled_ms
FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value ORDER BY asked.key;

-- name: run_rows_of_earlier
-- The same; a file of an earlier schema that is only read lacks columns: their names are those of `missing` then.
SELECT r.run, r.id, r.workflow, r.status, r.args, r.result, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.crashes,
       r.priority, r.queue, r.tags, r.parent, r.parent_seq, r.forked_from, r.successor, r.origin, r.seed, r.timeout_ms, r.created_ms,
       r.started_ms, r.ended_ms, (SELECT durability FROM run AS own WHERE own.run = r.run) AS durability,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent_id,
       coalesce((SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), 0) AS history_rows,
       (SELECT python FROM run AS own WHERE own.run = r.run) AS python, (SELECT root FROM run AS own WHERE own.run = r.run) AS root,
       (SELECT key FROM run AS own WHERE own.run = r.run) AS key, (SELECT weight FROM run AS own WHERE own.run = r.run) AS weight,
       (SELECT scheduled_ms FROM run AS own WHERE own.run = r.run) AS scheduled_ms
FROM (SELECT key AS place, value AS run FROM json_each(?1)) AS asked CROSS JOIN run AS r ON r.run = asked.run,
     (SELECT NULL AS durability, NULL AS python, NULL AS root, NULL AS key, 1 AS weight, NULL AS scheduled_ms) AS missing ORDER BY asked.place;

-- name: workers_of_earlier
SELECT w.worker, w.name, w.host, w.pid, w.born, w.lease_ms, w.ttl_ms, w.beats, (SELECT asked FROM worker AS own WHERE own.worker = w.worker)
FROM worker AS w, (SELECT 0 AS asked) AS missing WHERE w.ended_ms IS NULL;

-- name: run_heads
SELECT r.run, r.id, r.workflow, r.status, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.priority, r.queue, r.tags,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent), r.forked_from, r.created_ms, r.started_ms, r.ended_ms, r.python,
       coalesce(e.key & 16777215, 0), e.kind, coalesce(e.name, (SELECT c.name FROM event AS c WHERE c.key = r.run << 24 | e.ref)), e.at_ms, r.key, r.weight, r.scheduled_ms
FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value
LEFT JOIN event AS e ON e.key = (SELECT max(key) FROM event WHERE key BETWEEN r.run << 24 AND r.run << 24 | 16777215)
ORDER BY asked.key;

-- name: run_heads_of_earlier
SELECT r.run, r.id, r.workflow, r.status, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.priority, r.queue, r.tags,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent), r.forked_from, r.created_ms, r.started_ms, r.ended_ms, (SELECT python FROM run AS own WHERE own.run = r.run),
       coalesce(e.key & 16777215, 0), e.kind, coalesce(e.name, (SELECT c.name FROM event AS c WHERE c.key = r.run << 24 | e.ref)), e.at_ms, NULL, 1, NULL
FROM (SELECT key AS place, value AS run FROM json_each(?1)) AS asked CROSS JOIN run AS r ON r.run = asked.run
CROSS JOIN (SELECT NULL AS python) AS missing
LEFT JOIN event AS e ON e.key = (SELECT max(key) FROM event WHERE key BETWEEN r.run << 24 AND r.run << 24 | 16777215)
ORDER BY asked.place;

-- name: list_tagged_runs
SELECT t.run FROM tag AS t JOIN run AS r ON r.run = t.run
WHERE t.key = ?5 AND t.value = ?6 AND (?1 IS NULL OR r.status = ?1) AND (?2 IS NULL OR r.workflow = ?2) AND (?3 IS NULL OR t.run < ?3)
  AND NOT EXISTS (SELECT 1 FROM json_each(?7) AS more
                  WHERE NOT EXISTS (SELECT 1 FROM tag AS o
                                    WHERE o.key = more.value ->> 0 AND o.value = more.value ->> 1 AND o.run = t.run))
ORDER BY t.run DESC LIMIT ?4;

-- name: history_outline
-- Of an attempt only whether it tells an error: in chunks it does.
SELECT seq, kind, at_ms, ref, name,
       CASE WHEN kind = 'attempt' AND CASE WHEN data LIKE '@%' THEN 1 ELSE (data ->> 'error') IS NOT NULL END THEN '{"error":{}}' END,
       took_ms, edited
FROM event WHERE key > (?1 << 24) + ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: row_names
SELECT e.seq, e.kind, e.name FROM json_each(?2) AS asked CROSS JOIN event AS e ON e.key = ?1 << 24 | asked.value;

-- name: step_counts
-- Steps by what has become of them, how many of them and of the children are open, and the newest row that tells an error: an
-- attempt's note in chunks always does.
SELECT count(*) FILTER (WHERE kind = 'step'), count(*) FILTER (WHERE kind = 'completed' AND asked = 'step'),
       count(*) FILTER (WHERE kind = 'failed' AND asked = 'step'), count(*) FILTER (WHERE kind = 'abandon' AND asked = 'step'),
       count(*) FILTER (WHERE kind IN ('step', 'child')) - count(*) FILTER (WHERE asked IN ('step', 'child')),
       max(seq) FILTER (WHERE kind = 'failed' OR (kind = 'attempt' AND ref IS NOT NULL
                                                  AND CASE WHEN data LIKE '@%' THEN 1 ELSE (data ->> 'error') IS NOT NULL END))
FROM (SELECT key & 16777215 AS seq, kind, ref, CASE kind WHEN 'attempt' THEN data END AS data,
             CASE WHEN kind IN ('completed', 'failed', 'abandon') THEN (SELECT s.kind FROM event AS s WHERE s.key = ?1 << 24 | e.ref) END AS asked
      FROM event AS e WHERE key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215);

-- name: has_checksum
SELECT 1 FROM sqlite_schema WHERE name = 'replica';

-- name: read_checksum
-- A file of an earlier schema has no column `pruned`: the name is that of `missing` then.
SELECT r.store_id, r.address, r.epoch, r.rows, r.digest, r.commits, (SELECT pruned FROM replica AS own WHERE own.only = r.only)
FROM replica AS r, (SELECT 0 AS pruned) AS missing;

-- name: insert_checksum
INSERT INTO replica (only, store_id, address, epoch, rows, digest) VALUES (1, ?, ?, ?, 0, 0);

-- name: begin_epoch
UPDATE replica SET store_id = ?, address = ?, epoch = ?;

-- name: add_to_checksum
UPDATE replica SET rows = rows + ?1, digest = (digest + ?2) & ?3, pruned = pruned + ?4, commits = commits + 1;

-- name: sweep_event_rows
-- The same as sweep_event, for a file with a checksum: what is deleted is taken off it.
DELETE FROM event WHERE key IN (
    SELECT e.key FROM perdure_pruned_run AS p CROSS JOIN event AS e
    WHERE p.run <= ?1 AND e.key BETWEEN p.run << 24 AND p.run << 24 | 16777215 LIMIT ?2)
RETURNING key, kind, at_ms, ref, name, data, took_ms, edited;

-- name: set_checksum
UPDATE replica SET rows = ?, digest = ?;

-- name: drop_checksum
DELETE FROM replica;

-- name: history_of_all
SELECT key, kind, at_ms, ref, name, data, took_ms, edited FROM event;

-- name: open_ends
SELECT coalesce((SELECT max(e.key) FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), r.run << 24)
FROM run AS r INDEXED BY run_open WHERE r.status <> 'completed' AND r.status NOT IN ('failed', 'cancelled');

-- name: history_of_run
SELECT key, kind, at_ms, ref, name, data, took_ms, edited FROM event WHERE key BETWEEN ? AND ?;

-- name: swept_rows
SELECT rows FROM perdure_retention;

-- name: forget_schema
-- SQLite reads the tables' definitions again when it needs them.
PRAGMA writable_schema = RESET;
