-- What pages read, by name: lists, counts, searches, families. Each costs what it returns: a source of keys goes down an
-- index, behind ?1, and gives up to ?2.

-- name: has_lists
-- Files of earlier schemas, which are only read, lack the indexes for lists.
SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'perdure_run_created';

-- name: has_senders
SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'perdure_inbox_sender';

-- Sources of keys, the newest first -------------------------------------------------------------

-- name: keys_newest
SELECT run FROM run WHERE run < ?1 ORDER BY run DESC LIMIT ?2;

-- name: keys_of_status
SELECT run FROM run INDEXED BY run_open
WHERE status <> 'completed' AND status = ?3 AND run < ?1 ORDER BY run DESC LIMIT ?2;

-- name: keys_of_tag
SELECT run FROM tag WHERE key = ?3 AND value = ?4 AND run < ?1 ORDER BY run DESC LIMIT ?2;

-- name: keys_of_parent
SELECT run FROM run INDEXED BY run_parent WHERE parent = ?3 AND run < ?1 ORDER BY run DESC LIMIT ?2;

-- name: keys_of_workflow
SELECT run FROM run INDEXED BY perdure_run_workflow WHERE workflow = ?3 AND run < ?1 ORDER BY run DESC LIMIT ?2;

-- name: keys_by_time
-- By the time of the start, from ?4 on, behind the time ?3 and the key ?1.
SELECT run, created_ms FROM run INDEXED BY perdure_run_created
WHERE created_ms >= ?4 AND created_ms <= ?3 AND (created_ms < ?3 OR run < ?1)
ORDER BY created_ms DESC, run DESC LIMIT ?2;

-- name: keys_by_id
-- Runs whose ids are ?1 or behind it, and before ?3.
SELECT run, id FROM run WHERE id >= ?1 AND id < ?3 ORDER BY id LIMIT ?2;

-- What matches ----------------------------------------------------------------------------------

-- name: matching
-- Of these keys those that match: ?2 statuses, ?3 whether a run that waits for an attempt matches, ?4 workflow, ?5 and ?6
-- the time of the start, ?7 tags, ?8 parent, ?9 queue, ?10 and ?11 ids that do not count.
SELECT r.run, r.status, r.status = 'waiting' AND coalesce(r.waiting LIKE '%"again_ms"%', 0) FROM (SELECT value FROM json_each(?1)) AS asked CROSS JOIN run AS r ON r.run = asked.value
WHERE (?2 IS NULL OR r.status IN (SELECT value FROM json_each(?2)) OR (?3 = 1 AND r.status = 'waiting' AND r.waiting LIKE '%"again_ms"%'))
  AND (?4 IS NULL OR r.workflow = ?4) AND (?5 IS NULL OR r.created_ms >= ?5) AND (?6 IS NULL OR r.created_ms <= ?6)
  AND (?8 IS NULL OR r.parent = ?8) AND (?9 IS NULL OR r.queue = ?9)
  AND (?10 IS NULL OR r.id < ?10 OR r.id >= ?11)
  AND (?7 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(?7) AS more
                                 WHERE NOT EXISTS (SELECT 1 FROM tag AS o WHERE o.key = more.value ->> 0 AND o.value = more.value ->> 1 AND o.run = r.run)))
ORDER BY r.run DESC;

-- name: with_text
-- Of these keys those with a text: ?2 the pattern for ids, ?3 that for JSON; ?4 in ids, ?5 in tags, ?6 in errors, ?7 in
-- payloads. Of a payload in chunks the chunks are looked through, and what stands between them.
SELECT r.run FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value
WHERE (?4 = 1 AND r.id LIKE ?2 ESCAPE '\')
   OR (?5 = 1 AND r.tags LIKE ?3 ESCAPE '\')
   OR (?6 = 1 AND CASE WHEN r.error LIKE '@%' THEN substr(r.error, 34) LIKE ?3 ESCAPE '\' OR EXISTS (
                                 SELECT 1 FROM json_each(substr(r.error, 34)) AS item
                                 JOIN chunk AS c ON c.run = r.run AND c.n BETWEEN json_extract(item.value, '$[0]') AND json_extract(item.value, '$[1]')
                                 WHERE item.type = 'array' AND c.body LIKE ?3 ESCAPE '\')
                       ELSE r.error LIKE ?3 ESCAPE '\' END)
   OR (?7 = 1 AND (substr(r.args, CASE WHEN r.args LIKE '@%' THEN 34 ELSE 1 END) LIKE ?3 ESCAPE '\'
                   OR substr(r.result, CASE WHEN r.result LIKE '@%' THEN 34 ELSE 1 END) LIKE ?3 ESCAPE '\'
                   OR EXISTS (SELECT 1 FROM chunk AS c WHERE c.run = r.run AND c.body LIKE ?3 ESCAPE '\')
                   OR EXISTS (SELECT 1 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215
                              AND substr(e.data, CASE WHEN e.data LIKE '@%' THEN 34 ELSE 1 END) LIKE ?3 ESCAPE '\')))
ORDER BY r.run DESC;

-- Counts, each up to a bound --------------------------------------------------------------------

-- name: count_of_status
SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY run_open WHERE status <> 'completed' AND status = ?1 LIMIT ?2) AS found;

-- name: count_all
SELECT count(*) FROM (SELECT 1 FROM run LIMIT ?1) AS found;

-- name: count_ended_roots
SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY perdure_run_ended
                      WHERE status = ?1 AND ended_ms IS NOT NULL AND parent IS NULL LIMIT ?2) AS found;

-- name: count_retrying
-- Of the newest that wait: how many wait for an attempt.
SELECT count(*) FROM (SELECT r.waiting FROM run AS r INDEXED BY run_open
                      WHERE r.status <> 'completed' AND r.status = 'waiting' ORDER BY r.run DESC LIMIT ?1) AS newest
WHERE newest.waiting LIKE '%"again_ms"%';

-- name: count_owned
SELECT count(*) FROM (SELECT 1 FROM run INDEXED BY run_owned WHERE owner IS NOT NULL AND owner = ?1 LIMIT ?2) AS found;

-- name: started_in_buckets
-- Of the newest up to ?3 starts since ?1, how many without a parent and how many at all are in each bucket of ?2.
SELECT (created_ms - ?1) / ?2 AS bucket, count(*) - count(parent), count(*)
FROM (SELECT created_ms, parent FROM run INDEXED BY perdure_run_created
      WHERE created_ms >= ?1 ORDER BY created_ms DESC LIMIT ?3) AS newest
GROUP BY bucket ORDER BY bucket;

-- name: ended_in_buckets
-- Of the newest up to ?3 ends since ?1, how many are in each bucket of ?2.
SELECT (ended_ms - ?1) / ?2 AS bucket, count(*), count(*)
FROM (SELECT ended_ms FROM run INDEXED BY perdure_run_ended
      WHERE status = ?4 AND ended_ms IS NOT NULL AND parent IS NULL AND ended_ms >= ?1 ORDER BY ended_ms DESC LIMIT ?3) AS newest
GROUP BY bucket ORDER BY bucket;

-- Names -----------------------------------------------------------------------------------------

-- name: workflow_names
-- A search of the index a name.
WITH RECURSIVE level (workflow) AS (
    SELECT min(workflow) FROM run INDEXED BY perdure_run_workflow
    UNION ALL
    SELECT (SELECT min(r.workflow) FROM run AS r INDEXED BY perdure_run_workflow WHERE r.workflow > level.workflow)
    FROM level WHERE level.workflow IS NOT NULL)
SELECT workflow FROM level WHERE workflow IS NOT NULL LIMIT ?1;

-- name: newest_workflow_names
SELECT DISTINCT workflow FROM (SELECT workflow FROM run ORDER BY run DESC LIMIT ?1) AS newest ORDER BY workflow;

-- name: workflows_with_due
WITH RECURSIVE level (workflow) AS (
    SELECT min(workflow) FROM run INDEXED BY run_due WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT (SELECT min(r.workflow) FROM run AS r INDEXED BY run_due
            WHERE r.workflow > level.workflow AND r.due_ms IS NOT NULL AND r.owner IS NULL AND r.status <> 'paused')
    FROM level WHERE level.workflow IS NOT NULL)
SELECT workflow FROM level WHERE workflow IS NOT NULL LIMIT 1000;

-- name: stream_names
WITH RECURSIVE level (name) AS (
    SELECT min(name) FROM stream WHERE run = ?1
    UNION ALL
    SELECT (SELECT min(s.name) FROM stream AS s WHERE s.run = ?1 AND s.name > level.name) FROM level WHERE level.name IS NOT NULL)
SELECT level.name, (SELECT max(s.id) FROM stream AS s WHERE s.run = ?1 AND s.name = level.name),
       (SELECT count(*) FROM (SELECT 1 FROM stream AS s WHERE s.run = ?1 AND s.name = level.name LIMIT ?3) AS found)
FROM level WHERE level.name IS NOT NULL LIMIT ?2;

-- name: stream_time
SELECT at_ms FROM stream WHERE id = ?1;

-- What waits for a person -----------------------------------------------------------------------

-- name: waits_for_a_person
SELECT r.run, r.id, r.workflow, r.status, r.waiting, r.reason, r.tags,
       coalesce((SELECT e.at_ms FROM event AS e WHERE e.key = (SELECT max(key) FROM event WHERE key BETWEEN r.run << 24 AND r.run << 24 | 16777215)), r.created_ms)
FROM json_each(?1) AS asked CROSS JOIN run AS r ON r.run = asked.value
WHERE ((r.status = 'waiting' AND (r.waiting LIKE '%"message":%' OR r.waiting LIKE '%"request":%'))
    OR (r.status = 'blocked' AND r.blocked_by = 'unknown_outcome'))
  AND NOT EXISTS (SELECT 1 FROM inbox AS i WHERE i.run = r.run AND i.taken IS NULL AND i.kind = 'cancel')
ORDER BY r.run DESC;

-- name: asked_to_end
-- When these runs were asked to end, those that have not taken it yet.
SELECT i.run, min(i.at_ms)
FROM json_each(?1) AS asked CROSS JOIN inbox AS i ON i.run = asked.value
WHERE i.taken IS NULL AND i.kind = 'cancel' GROUP BY i.run;

-- name: unread_messages
-- Of these runs the channels with messages that were not received yet: how many, and of the first one who sent it, and when.
SELECT i.run, i.name, count(*), min(i.id), i.sender, i.at_ms
FROM json_each(?1) AS asked CROSS JOIN inbox AS i INDEXED BY inbox_open ON i.run = asked.value
WHERE i.taken IS NULL AND i.kind = 'message' GROUP BY i.run, i.name;

-- name: unread_messages_of_earlier
-- The same for a file that does not have who sent a message.
SELECT i.run, i.name, count(*), min(i.id), NULL, i.at_ms
FROM json_each(?1) AS asked CROSS JOIN inbox AS i INDEXED BY inbox_open ON i.run = asked.value
WHERE i.taken IS NULL AND i.kind = 'message' GROUP BY i.run, i.name;

-- Families --------------------------------------------------------------------------------------

-- name: relative
SELECT r.run, r.id, r.workflow, r.status, r.parent, r.forked_from, r.created_ms, r.ended_ms, r.parent_seq
FROM run AS r WHERE r.run = ?1;

-- name: children_of
SELECT r.run, r.id, r.workflow, r.status, r.parent, r.forked_from, r.created_ms, r.ended_ms, r.parent_seq
FROM run AS r INDEXED BY run_parent WHERE r.parent = ?1 ORDER BY r.run LIMIT ?2;

-- name: forks_of
SELECT r.run, r.id, r.workflow, r.status, r.parent, r.forked_from, r.created_ms, r.ended_ms, r.parent_seq
FROM run AS r INDEXED BY perdure_run_forked WHERE r.forked_from = ?1 ORDER BY r.run LIMIT ?2;

-- name: generations_of
-- Those under the id ?1, without the run itself: `id~1` and so on.
SELECT r.run, r.id, r.workflow, r.status, r.parent, r.forked_from, r.created_ms, r.ended_ms, r.parent_seq
FROM run AS r WHERE r.id >= ?1 || '~' AND r.id < ?1 || '~z' ORDER BY r.id LIMIT ?2;

-- name: ticks_of
-- Runs of a schedule's ticks: their ids begin with its name.
SELECT run FROM run WHERE id >= ?1 AND id < ?2 AND scheduled_ms IS NOT NULL ORDER BY id DESC LIMIT ?3;

-- Rows of histories -----------------------------------------------------------------------------

-- name: rows_numbered
SELECT e.seq, e.kind, e.at_ms, e.ref, e.name, e.data, e.took_ms, e.edited
FROM json_each(?2) AS asked CROSS JOIN event AS e ON e.key = ?1 << 24 | asked.value ORDER BY e.key;

-- name: rows_marked
-- Rows with a mark of what they hold: a small payload itself, the digest of a large one.
SELECT seq, kind, ref, name, CASE WHEN data LIKE '@%' THEN substr(data, 1, 33) ELSE data END
FROM event WHERE key > (?1 << 24) + ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: history_bars
-- What a waterfall draws: of a payload its beginning, unless it is in chunks. An attempt's row says whether it failed ('f') or
-- its process died ('c'), and when it began.
SELECT seq, kind, at_ms, ref, name, took_ms,
       CASE WHEN kind IN ('step', 'child', 'spawn', 'timer', 'message', 'request', 'send', 'emit', 'expose') AND data NOT LIKE '@%' THEN substr(data, 1, ?4) END,
       CASE WHEN kind <> 'attempt' THEN NULL WHEN data LIKE '@%' THEN 'f'
            WHEN data ->> 'crash' THEN 'c' WHEN (data ->> 'error') IS NOT NULL THEN 'f' END,
       CASE WHEN kind = 'attempt' AND data NOT LIKE '@%' THEN data ->> 'began_ms' END
FROM event WHERE key > (?1 << 24) + ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: child_runs
SELECT parent_seq, id FROM run WHERE parent = ?1 AND parent_seq > ?2 ORDER BY parent_seq LIMIT ?3;
