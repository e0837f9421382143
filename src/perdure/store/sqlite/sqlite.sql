-- Every query of the SQLite store, by name. Times are milliseconds UTC and always given.

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

-- name: run_of_id
SELECT run, status, reason FROM run WHERE id = ?;

-- name: id_of
SELECT id FROM run WHERE run = ?;

-- name: copy_events
INSERT INTO event (key, kind, ref, name, data, at_ms, took_ms, edited)
SELECT ?1 << 24 | seq, kind, ref, name, data, at_ms, took_ms, edited FROM event WHERE key >= ?2 << 24 AND key < ?2 << 24 | ?3 AND seq NOT IN (SELECT value FROM json_each(?4)) ORDER BY key;

-- name: edit_event
UPDATE event SET data = ?, edited = 1 WHERE key = ? << 24 | ?;

-- name: due_count
SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY run_due
    WHERE owner IS NULL AND due_ms <= ?2 AND status <> 'paused' AND workflow IN (SELECT value FROM json_each(?1)) LIMIT ?3);

-- name: due_runs
SELECT priority, due_ms, run FROM run INDEXED BY run_due
WHERE owner IS NULL AND due_ms <= ?2 AND status <> 'paused' AND workflow IN (SELECT value FROM json_each(?1))
ORDER BY priority DESC, due_ms LIMIT ?3;

-- name: due_by_priority
-- For many due runs: walks the levels of priority by the index, the highest first, and stops when it has enough.
WITH RECURSIVE level (priority) AS (
    SELECT max(priority) FROM run INDEXED BY run_ready
    WHERE workflow = ?1 AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT (SELECT max(r.priority) FROM run AS r INDEXED BY run_ready
            WHERE r.workflow = ?1 AND r.priority < level.priority AND r.due_ms IS NOT NULL AND r.owner IS NULL AND r.status <> 'paused')
    FROM level WHERE level.priority IS NOT NULL)
SELECT r.priority, r.due_ms, r.run FROM level CROSS JOIN run AS r INDEXED BY run_ready
WHERE r.workflow = ?1 AND r.priority = level.priority AND r.due_ms <= ?2 AND r.owner IS NULL AND r.status <> 'paused' LIMIT ?3;

-- name: due_in_family
-- The run that was asked for, as far as it is due, and what it has started.
SELECT priority, due_ms, run FROM run
WHERE run = ?1 AND workflow = ?3 AND due_ms <= ?4 AND owner IS NULL AND status <> 'paused'
UNION ALL
SELECT * FROM (SELECT priority, due_ms, run FROM run INDEXED BY run_family
               WHERE root = ?2 AND run <> ?1 AND workflow = ?3 AND due_ms <= ?4 AND owner IS NULL AND status <> 'paused' ORDER BY due_ms LIMIT ?5);

-- name: next_due_in_family
SELECT min(due_ms) FROM (
    SELECT due_ms FROM run WHERE run = ?1 AND workflow = ?3 AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT min(due_ms) FROM run INDEXED BY run_family
    WHERE root = ?2 AND workflow = ?3 AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused');

-- name: family_of
SELECT coalesce(root, run) FROM run WHERE run = ?;

-- name: blocked_in_family
SELECT id, blocked_by, reason FROM run INDEXED BY run_open
WHERE status <> 'completed' AND status = 'blocked' AND (run = ?1 OR root = ?2) ORDER BY run LIMIT ?3;

-- name: loads
SELECT (SELECT count(*) FROM worker WHERE ended_ms IS NULL AND NOT asked), count(*), count(*) FILTER (WHERE owner = ?)
FROM run INDEXED BY run_owned WHERE owner IS NOT NULL AND status = 'running';

-- name: next_due
SELECT min(due_ms) FROM run WHERE owner IS NULL AND due_ms IS NOT NULL AND status <> 'paused' AND workflow = ?;

-- name: due_names
-- The workflows of which runs are due that nobody owns, each with one of them: a look at the index for each name.
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

-- name: is_executed
SELECT 1 FROM run INDEXED BY run_owned WHERE owner IS NOT NULL AND workflow = ? LIMIT 1;

-- name: workers
SELECT worker, name, host, pid, born, lease_ms, ttl_ms, beats, asked FROM worker WHERE ended_ms IS NULL;

-- name: wake_blocked
UPDATE run INDEXED BY run_open SET status = 'pending', due_ms = ?1, blocked_by = NULL, reason = NULL
WHERE status <> 'completed' AND status = 'blocked' AND blocked_by IN ('nondeterminism', 'code', 'store')
  AND workflow IN (SELECT value FROM json_each(?2)) AND (?3 IS NULL OR run = ?3 OR root = ?4);

-- name: wake_unread
UPDATE run INDEXED BY run_unread SET due_ms = ?1
WHERE unread > 0 AND status = 'waiting' AND owner IS NULL AND workflow IN (SELECT value FROM json_each(?2))
  AND (?3 IS NULL OR run = ?3 OR root = ?4);

-- name: heartbeat
SELECT data FROM heartbeat WHERE run = ? AND seq = ?;

-- name: run_rows
SELECT r.run, r.id, r.workflow, r.status, r.args, r.result, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.crashes,
       r.priority, r.queue, r.tags, r.parent, r.parent_seq, r.forked_from, r.successor, r.origin, r.seed, r.timeout_ms, r.created_ms,
       r.started_ms, r.ended_ms, r.durability, (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent_id,
       coalesce((SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), 0) AS history_rows,
       r.python, r.root
FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value ORDER BY asked.key;

-- name: run_rows_of_earlier
-- The same; a file of an earlier schema that is only read lacks columns: their names are those of `missing` then.
SELECT r.run, r.id, r.workflow, r.status, r.args, r.result, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.crashes,
       r.priority, r.queue, r.tags, r.parent, r.parent_seq, r.forked_from, r.successor, r.origin, r.seed, r.timeout_ms, r.created_ms,
       r.started_ms, r.ended_ms, r.durability, (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent_id,
       coalesce((SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), 0) AS history_rows,
       (SELECT python FROM run AS own WHERE own.run = r.run) AS python, (SELECT root FROM run AS own WHERE own.run = r.run) AS root
FROM (SELECT key AS place, value AS run FROM json_each(?1)) AS asked CROSS JOIN run AS r ON r.run = asked.run,
     (SELECT NULL AS python, NULL AS root) AS missing ORDER BY asked.place;

-- name: run_heads
SELECT r.run, r.id, r.workflow, r.status, r.error, r.waiting, r.blocked_by, r.reason, r.owner, r.due_ms, r.priority, r.queue, r.tags,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent), r.forked_from, r.created_ms, r.started_ms, r.ended_ms, r.python,
       coalesce(e.key & 16777215, 0), e.kind, coalesce(e.name, (SELECT c.name FROM event AS c WHERE c.key = r.run << 24 | e.ref)), e.at_ms
FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value
LEFT JOIN event AS e ON e.key = (SELECT max(key) FROM event WHERE key BETWEEN r.run << 24 AND r.run << 24 | 16777215)
ORDER BY asked.key;

-- name: list_runs
SELECT run FROM run
WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR workflow = ?2) AND (?3 IS NULL OR run < ?3)
ORDER BY run DESC LIMIT ?4;

-- name: list_open_runs
SELECT run FROM run INDEXED BY run_open
WHERE status <> 'completed' AND status = ?1 AND (?2 IS NULL OR workflow = ?2) AND (?3 IS NULL OR run < ?3)
ORDER BY run DESC LIMIT ?4;

-- name: unfinished_runs
SELECT run FROM run INDEXED BY run_open
WHERE status <> 'completed' AND status IN ('pending', 'running', 'waiting', 'paused', 'blocked')
  AND (?1 IS NULL OR workflow IN (SELECT value FROM json_each(?1)))
ORDER BY run DESC LIMIT ?2;

-- name: list_tagged_runs
SELECT t.run FROM tag AS t JOIN run AS r ON r.run = t.run
WHERE t.key = ?5 AND t.value = ?6 AND (?1 IS NULL OR r.status = ?1) AND (?2 IS NULL OR r.workflow = ?2) AND (?3 IS NULL OR t.run < ?3)
  AND NOT EXISTS (SELECT 1 FROM json_each(?7) AS more
                  WHERE NOT EXISTS (SELECT 1 FROM tag AS o
                                    WHERE o.key = more.value ->> 0 AND o.value = more.value ->> 1 AND o.run = t.run))
ORDER BY t.run DESC LIMIT ?4;

-- name: history
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event WHERE key > ?1 << 24 | ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key;

-- name: history_page
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key > ?1 << 24 | ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: history_outline
-- Of an attempt only whether it tells an error: in chunks it does.
SELECT seq, kind, at_ms, ref, name,
       CASE WHEN kind = 'attempt' AND CASE WHEN data LIKE '@%' THEN 1 ELSE (data ->> 'error') IS NOT NULL END THEN '{"error":{}}' END,
       took_ms, edited
FROM event WHERE key > ?1 << 24 | ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: rows_about
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key BETWEEN ?1 << 24 | ?2 AND ?1 << 24 | 16777215 AND (key = ?1 << 24 | ?2 OR ref = ?2) ORDER BY key;

-- name: row_names
SELECT e.seq, e.kind, e.name FROM json_each(?2) AS asked CROSS JOIN event AS e ON e.key = ?1 << 24 | asked.value;

-- name: inbox
SELECT id, run, kind, name, ref, data, at_ms FROM inbox WHERE run = ? AND taken IS NULL AND id > ? ORDER BY id LIMIT 1000;

-- name: inboxes_of
SELECT DISTINCT i.run FROM inbox AS i JOIN run AS r ON r.run = i.run WHERE i.taken IS NULL AND r.owner = ?;

-- name: paused_of
SELECT run FROM run WHERE owner = ? AND status = 'paused';

-- name: status_of
SELECT status, successor, owner FROM run WHERE run = ?;

-- name: arguments_of
SELECT args FROM run WHERE run = ?;

-- name: status_of_id
SELECT run, status, waiting, reason FROM run WHERE id = ?;

-- name: outcome
SELECT status, successor, id, workflow, result, error, blocked_by, reason, durability FROM run WHERE run = ?;

-- name: durability_of
SELECT durability FROM run WHERE id = ?;

-- name: ids_from
SELECT id FROM run WHERE id >= ? AND id < ? ORDER BY id LIMIT ?;

-- name: root_ids_from
SELECT id FROM run WHERE id >= ?1 AND id < ?2 AND parent IS NULL AND instr(id, '~') = 0 ORDER BY id LIMIT ?3;

-- name: child_ids_from
SELECT id FROM run WHERE id >= ?1 AND id < ?2 AND instr(id, '~') = 0
    AND NOT EXISTS (SELECT 1 FROM run AS p WHERE p.run = run.parent AND p.id >= ?1 AND p.id < ?2)
ORDER BY id LIMIT ?3;

-- name: stream
SELECT s.id, coalesce(s.data, (SELECT e.data FROM event AS e WHERE e.key = s.run << 24 | s.seq)), s.attempt IS NULL
FROM stream AS s WHERE s.run = ? AND s.name = ? AND s.id > ? ORDER BY s.id LIMIT ?;

-- name: stream_place
SELECT r.run, r.id, s.name FROM stream AS s JOIN run AS r ON r.run = s.run WHERE s.id = ?;

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

-- name: open_steps
SELECT s.name FROM event AS s
WHERE s.key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 AND s.kind IN ('step', 'child')
  AND s.seq NOT IN (SELECT a.ref FROM event AS a
                    WHERE a.key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 AND a.ref IS NOT NULL AND a.kind IN ('completed', 'failed', 'abandon'))
ORDER BY s.key LIMIT ?2;

-- name: status_counts
-- By indexes only: the rows of a million finished runs are not read.
WITH other AS (SELECT status, count(*) AS n FROM run INDEXED BY run_open WHERE status <> 'completed' GROUP BY status)
SELECT status, n FROM other
UNION ALL
SELECT 'completed', n FROM (SELECT (SELECT count(*) FROM run) - (SELECT coalesce(sum(n), 0) FROM other) AS n) WHERE n > 0;

-- name: stuck
SELECT id, workflow, status, reason, due_ms
FROM run INDEXED BY run_open
WHERE status <> 'completed' AND (status IN ('blocked', 'paused') OR (status = 'pending' AND owner IS NULL AND due_ms < ?))
ORDER BY run LIMIT 100;

-- name: has_checksum
SELECT 1 FROM sqlite_schema WHERE name = 'replica';

-- name: read_checksum
SELECT store_id, address, epoch, rows, digest, commits FROM replica;

-- name: insert_checksum
INSERT INTO replica (only, store_id, address, epoch, rows, digest) VALUES (1, ?, ?, ?, 0, 0);

-- name: begin_epoch
UPDATE replica SET store_id = ?, address = ?, epoch = ?;

-- name: add_to_checksum
UPDATE replica SET rows = rows + ?1, digest = (digest + ?2) & ?3, commits = commits + 1;

-- name: set_checksum
UPDATE replica SET rows = ?, digest = ?;

-- name: drop_checksum
DELETE FROM replica;

-- name: history_of_all
SELECT key, kind, at_ms, ref, name, data, took_ms, edited FROM event;

-- name: newest_run
SELECT max(run) FROM run;

-- name: open_ends
SELECT coalesce((SELECT max(e.key) FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), r.run << 24)
FROM run AS r INDEXED BY run_open WHERE r.status <> 'completed' AND r.status NOT IN ('failed', 'cancelled');

-- name: history_of_run
SELECT key, kind, at_ms, ref, name, data, took_ms, edited FROM event WHERE key BETWEEN ? AND ?;
