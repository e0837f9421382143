-- Queries that every database takes, by name. Times are milliseconds UTC and always given;
-- parameters have numbers. Words in braces are the database's own: {{lock}} locks the rows that
-- were read, where several writers work at once; {{index x}} asks for an index, where the planner
-- has to be asked; {{each ?1}} selects the texts of a JSON array. A parameter that may
-- be NULL is cast where it is compared with NULL, because Postgres asks for its type.

-- Writes ----------------------------------------------------------------------------------------

-- name: owner_of
SELECT owner FROM run WHERE run = ?1 {{lock}};

-- name: worker_alive
SELECT 1 FROM worker WHERE worker = ?1 AND ended_ms IS NULL {{lock}};

-- name: insert_chunk
INSERT INTO chunk (run, n, digest, body) VALUES (?1, ?2, ?3, ?4);

-- name: insert_secret
INSERT INTO perdure_secret (run, n, body) VALUES (?1, ?2, ?3);

-- name: chunk_bodies
SELECT n, body FROM chunk WHERE run = ?1;

-- name: secrets_of_run
SELECT n, body FROM perdure_secret WHERE run = ?1;

-- name: redacted_names
SELECT name FROM perdure_redaction ORDER BY name;

-- name: keep_redacted_name
INSERT INTO perdure_redaction (name) VALUES (?1) ON CONFLICT DO NOTHING;

-- name: copy_secrets
INSERT INTO perdure_secret (run, n, body) SELECT ?1, n, body FROM perdure_secret WHERE run = ?2;

-- name: drop_secrets
DELETE FROM perdure_secret WHERE run = ?1;

-- name: chunk_digests
SELECT digest, n FROM chunk WHERE run = ?1 AND n > ?2 ORDER BY n;

-- name: copy_chunks
INSERT INTO chunk (run, n, digest, body)
SELECT ?1, n, digest, body FROM chunk WHERE run = ?2 ORDER BY n;

-- name: existing_run
SELECT run, workflow, args FROM run WHERE id = ?1 {{lock}};

-- name: insert_run
INSERT INTO run (id, workflow, status, args, owner, due_ms, priority, queue, parent, parent_seq,
                 seed, timeout_ms, created_ms, started_ms, durability, python, root, waiting, key,
                 weight, scheduled_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
        ?21)
ON CONFLICT (id) DO NOTHING {{returning run}};

-- name: set_args
UPDATE run SET args = ?1 WHERE run = ?2;

-- name: suspend
UPDATE run SET status = CASE status WHEN 'paused' THEN status ELSE ?1 END, waiting = ?2,
    due_ms = ?3, blocked_by = ?4, reason = ?5
WHERE run = ?6;

-- name: queue_and_status
SELECT queue, status FROM run WHERE run = ?1;

-- name: release
UPDATE run SET owner = NULL WHERE run = ?1;

-- name: release_with_mail
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND status = 'waiting'
  AND EXISTS (SELECT 1 FROM inbox WHERE inbox.run = run.run AND taken IS NULL);

-- name: set_python
UPDATE run SET python = ?1 WHERE run = ?2;

-- name: settle
UPDATE run SET crashes = 0 WHERE run = ?1;

-- name: before_end
SELECT parent, parent_seq, id, queue, scheduled_ms FROM run WHERE run = ?1;

-- name: finish
UPDATE run SET status = ?1, result = ?2, error = ?3, ended_ms = ?4, owner = NULL, due_ms = NULL,
    waiting = NULL, blocked_by = NULL, reason = NULL, successor = ?5
WHERE run = ?6;

-- name: inherited
SELECT parent, parent_seq, coalesce(root, run), tags, durability, scheduled_ms, queue, key,
       priority, weight
FROM run WHERE run = ?1;

-- name: close_inbox
UPDATE inbox SET taken = 0 WHERE run = ?1 AND taken IS NULL;

-- name: take
UPDATE inbox SET taken = ?1, data = NULL WHERE id = ?2;

-- name: receiver
SELECT run, status, reason, coalesce(chain, run) FROM run WHERE id = ?1 {{lock}};

-- name: key_used
SELECT 1 FROM inbox WHERE coalesce(chain, run) = ?1 AND key = ?2;

-- name: unread
SELECT unread + (SELECT count(*) FROM inbox
                 WHERE inbox.run = run.run AND taken IS NULL AND kind IN ('message', 'request'))
FROM run WHERE run = ?1;

-- name: set_unread
UPDATE run SET unread = ?1 WHERE run = ?2;

-- name: cancel_waits
SELECT 1 FROM inbox WHERE run = ?1 AND taken IS NULL AND kind = 'cancel';

-- name: decided
SELECT data, sender FROM inbox {{index inbox_open}}
WHERE run = ?1 AND taken IS NULL AND kind = 'resolve' AND ref = ?2;

-- name: insert_inbox
INSERT INTO inbox (run, kind, name, ref, data, at_ms, key, chain, sender)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9);

-- name: answer_parent
-- To a parent that has not ended: another would never take it.
INSERT INTO inbox (run, kind, ref, data, at_ms)
SELECT run, ?2, ?3, ?4, ?5 FROM run
WHERE run = ?1 AND status NOT IN ('completed', 'failed', 'cancelled');

-- name: wake_idle
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND owner IS NULL AND status IN ('waiting', 'pending')
  AND (due_ms IS NULL OR due_ms > ?1)
  AND (queue IS NULL OR NOT EXISTS (SELECT 1 FROM perdure_place AS p WHERE p.run = ?2 AND p.seq = 0
                                    AND p.line IS NOT NULL));

-- name: wake_waiting
-- Not one that waits for its own place in a queue.
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND owner IS NULL AND status = 'waiting' AND (due_ms IS NULL OR due_ms > ?1)
  AND (queue IS NULL OR NOT EXISTS (SELECT 1 FROM perdure_place AS p WHERE p.run = ?2 AND p.seq = 0
                                    AND p.line IS NOT NULL));

-- name: cancel_unstarted
UPDATE run SET status = 'cancelled', ended_ms = ?1, due_ms = NULL, waiting = NULL,
    blocked_by = NULL, reason = NULL, owner = NULL
WHERE run = ?2 AND (status = 'blocked' OR (status = 'paused' AND blocked_by IS NOT NULL)
                    OR (status IN ('pending', 'paused', 'waiting') AND started_ms IS NULL))
RETURNING parent, parent_seq, id, queue, scheduled_ms;

-- name: move_inbox
INSERT INTO inbox (run, kind, name, ref, data, at_ms, sender)
SELECT ?1, kind, name, ref, data, at_ms, sender FROM inbox
WHERE run = ?2 AND taken IS NULL AND (ref IS NULL OR kind = 'request') ORDER BY id;

-- name: chunked_messages
-- Open messages in chunks: those with secrets.
SELECT id, data FROM inbox WHERE run = ?1 AND taken IS NULL AND data >= '@' AND data < 'A';

-- name: set_message
UPDATE inbox SET data = ?1 WHERE id = ?2;

-- name: copy_left_messages
INSERT INTO inbox (run, kind, name, ref, data, at_ms, sender)
SELECT ?1, kind, name, ref, data, at_ms, sender FROM inbox
WHERE run = ?2 AND taken = 0 AND kind IN ('message', 'request') ORDER BY id;

-- name: join_chain
UPDATE run SET chain = (SELECT coalesce(p.chain, p.run) FROM run AS p WHERE p.run = ?1),
    generation = ?2
WHERE run = ?3;

-- name: set_id
UPDATE run SET id = ?1 WHERE run = ?2;

-- name: generation
SELECT generation FROM run WHERE run = ?1;

-- name: count_ids
SELECT count(*) FROM run WHERE id >= ?1 AND id < ?2;

-- name: pause
UPDATE run SET status = 'paused' WHERE run = ?1 RETURNING owner;

-- name: resume
UPDATE run SET status = 'pending',
    due_ms = CASE WHEN started_ms IS NULL THEN coalesce(due_ms, ?1) ELSE ?1 END, waiting = NULL,
    blocked_by = NULL, reason = NULL, crashes = 0
WHERE run = ?2;

-- name: open_children
SELECT id FROM run WHERE parent = ?1 AND status NOT IN ('completed', 'failed', 'cancelled');

-- name: adopt_child
UPDATE run SET parent = ?1, parent_seq = NULL
WHERE run = ?2 AND status NOT IN ('completed', 'failed', 'cancelled')
RETURNING 1;

-- name: fork_run
INSERT INTO run (id, workflow, status, args, due_ms, priority, queue, tags, parent, parent_seq,
                 forked_from, origin, seed, timeout_ms, durability, python, created_ms, started_ms,
                 root, key, weight, scheduled_ms)
SELECT ?1, workflow, 'pending', args, ?2, priority, queue, tags,
       coalesce(?5, CASE CAST(?3 AS BIGINT) WHEN 1 THEN parent END), ?6,
       CASE CAST(?3 AS BIGINT) WHEN 1 THEN forked_from ELSE id END,
       CASE CAST(?3 AS BIGINT) WHEN 1 THEN coalesce(origin, run) END, seed, timeout_ms, durability,
       python, ?2, ?2,
       CASE CAST(?3 AS BIGINT) WHEN 1 THEN coalesce(root, run) END, key, weight,
       scheduled_ms
FROM run WHERE run = ?4
RETURNING run;

-- name: move_stream
UPDATE stream SET run = ?1 WHERE run = ?2 AND seq < ?3;

-- name: fork_stream
INSERT INTO stream (run, name, seq, attempt, data, at_ms)
SELECT ?1, name, seq, attempt, data, at_ms FROM stream WHERE run = ?2 AND seq < ?3 ORDER BY id;

-- name: fork_heartbeats
INSERT INTO heartbeat (run, seq, attempt, data, at_ms)
SELECT ?1, seq, attempt, data, at_ms FROM heartbeat WHERE run = ?2 AND seq < ?3;

-- name: claim_run
UPDATE run SET owner = ?1, status = 'running', started_ms = coalesce(started_ms, ?2)
WHERE run = ?3 AND owner IS NULL;

-- name: join_worker
INSERT INTO worker (name, host, pid, born, started_ms, lease_ms, ttl_ms, asked)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING worker;

-- name: renew_lease
UPDATE worker SET lease_ms = ?1, ttl_ms = coalesce(?3, ttl_ms), beats = beats + 1
WHERE worker = ?2 AND ended_ms IS NULL
  AND (CAST(?3 AS BIGINT) IS NULL OR ?3 <= ttl_ms
       OR NOT EXISTS (SELECT 1 FROM run WHERE owner = ?2))
RETURNING 1;

-- name: end_worker
UPDATE worker SET ended_ms = ?1
WHERE worker = ?2 AND ended_ms IS NULL AND (CAST(?3 AS BIGINT) IS NULL OR beats = ?3)
RETURNING 1;

-- name: count_crashes
UPDATE run SET crashes = crashes + 1 WHERE owner = ?1 AND status = 'running';

-- name: crash_loops
SELECT run, id, workflow, crashes FROM run
WHERE owner = ?1 AND crashes >= ?2 AND status = 'running' ORDER BY run {{lock}};

-- name: block_crash_loop
UPDATE run SET status = 'blocked', due_ms = NULL, owner = NULL, blocked_by = 'crash_loop',
    reason = ?1
WHERE run = ?2;

-- name: free_runs
UPDATE run SET owner = NULL, status = CASE status WHEN 'running' THEN 'pending' ELSE status END,
    due_ms = CASE WHEN status = 'running' OR (status = 'waiting'
                       AND EXISTS (SELECT 1 FROM inbox
                                   WHERE inbox.run = run.run AND taken IS NULL))
                  THEN ?1 ELSE due_ms END
WHERE owner = ?2;

-- name: due_at_once
UPDATE run SET due_ms = ?1
WHERE status <> 'completed' AND status = 'pending' AND owner IS NULL AND due_ms > ?1
  AND (started_ms IS NOT NULL OR due_ms <= created_ms);

-- name: due_with_mail
UPDATE run SET due_ms = ?1
WHERE run IN (SELECT run FROM inbox WHERE taken IS NULL) AND status = 'waiting' AND owner IS NULL
  AND due_ms > ?1;

-- name: insert_stream
INSERT INTO stream (run, name, seq, attempt, data, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: insert_heartbeat
INSERT INTO heartbeat (run, seq, attempt, data, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (run, seq)
DO UPDATE SET attempt = excluded.attempt, data = excluded.data, at_ms = excluded.at_ms;

-- name: run_tags
SELECT tags FROM run WHERE run = ?1;

-- name: set_tags
UPDATE run SET tags = ?1 WHERE run = ?2;

-- name: drop_tags
DELETE FROM tag WHERE run = ?1;

-- name: insert_tag
INSERT INTO tag (key, value, run) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING;

-- name: due_count
SELECT count(*) FROM (SELECT 1 FROM run {{index run_due}}
    WHERE owner IS NULL AND due_ms <= ?2 AND status <> 'paused' AND workflow IN ({{each ?1}})
    LIMIT ?3) AS due;

-- name: due_runs
SELECT priority, due_ms, run, queue FROM run {{index run_due}}
WHERE owner IS NULL AND due_ms <= ?2 AND status <> 'paused' AND workflow IN ({{each ?1}})
ORDER BY priority DESC, due_ms LIMIT ?3;

-- name: due_in_family
-- The run that was asked for, as far as it is due, and what it has started.
SELECT priority, due_ms, run, queue FROM run
WHERE run = ?1 AND workflow = ?3 AND due_ms <= ?4 AND owner IS NULL AND status <> 'paused'
UNION ALL
SELECT * FROM (SELECT priority, due_ms, run, queue FROM run {{index run_family}}
               WHERE root = ?2 AND run <> ?1 AND workflow = ?3 AND due_ms <= ?4 AND owner IS NULL
                 AND status <> 'paused'
               ORDER BY due_ms LIMIT ?5) AS others;

-- name: loads
SELECT (SELECT count(*) FROM worker WHERE ended_ms IS NULL AND asked = 0), count(*),
       count(*) FILTER (WHERE owner = ?1)
FROM run {{index run_owned}} WHERE owner IS NOT NULL AND status = 'running';

-- name: wake_blocked
UPDATE run {{index run_open}} SET status = 'pending', due_ms = ?1, blocked_by = NULL, reason = NULL
WHERE status <> 'completed' AND status = 'blocked'
  AND blocked_by IN ('nondeterminism', 'code', 'store')
  AND workflow IN ({{each ?2}}) AND (CAST(?3 AS BIGINT) IS NULL OR run = ?3 OR root = ?4);

-- name: wake_unread
UPDATE run {{index run_unread}} SET due_ms = ?1
WHERE unread > 0 AND status = 'waiting' AND owner IS NULL AND workflow IN ({{each ?2}})
  AND (CAST(?3 AS BIGINT) IS NULL OR run = ?3 OR root = ?4)
  AND (queue IS NULL OR NOT EXISTS (SELECT 1 FROM perdure_place AS p WHERE p.run = run.run AND p.seq = 0
                                    AND p.line IS NOT NULL));

-- Reads -----------------------------------------------------------------------------------------

-- name: run_of_id
SELECT run, status, reason FROM run WHERE id = ?1;

-- name: id_of
SELECT id FROM run WHERE run = ?1;

-- name: run_row
-- The columns of run_rows, which sorts and takes an array.
SELECT r.run, r.id, r.workflow, r.status, r.args, r.result, r.error, r.waiting, r.blocked_by,
       r.reason, r.owner, r.due_ms, r.crashes, r.priority, r.queue, r.tags, r.parent, r.parent_seq,
       r.forked_from, r.successor, r.origin, r.seed, r.timeout_ms, r.created_ms, r.started_ms,
       r.ended_ms, r.durability, (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent_id,
       coalesce((SELECT max(key) & 16777215 FROM event AS e
                 WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215), 0) AS history_rows,
       r.python, r.root, r.key, r.weight, r.scheduled_ms
FROM run AS r WHERE r.run = ?1;

-- name: next_due_in_family
SELECT min(due_ms) FROM (
    SELECT due_ms FROM run
    WHERE run = ?1 AND workflow = ?3 AND due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused'
    UNION ALL
    SELECT min(due_ms) FROM run {{index run_family}}
    WHERE root = ?2 AND workflow = ?3 AND due_ms IS NOT NULL AND owner IS NULL
      AND status <> 'paused') AS due;

-- name: family_of
SELECT coalesce(root, run) FROM run WHERE run = ?1;

-- name: blocked_in_family
SELECT id, blocked_by, reason FROM run {{index run_open}}
WHERE status <> 'completed' AND status = 'blocked' AND (run = ?1 OR root = ?2)
ORDER BY run LIMIT ?3;

-- name: next_due
SELECT min(due_ms) FROM run
WHERE owner IS NULL AND due_ms IS NOT NULL AND status <> 'paused' AND workflow = ?1;

-- name: is_executed
SELECT 1 FROM run {{index run_owned}} WHERE owner IS NOT NULL AND workflow = ?1 LIMIT 1;

-- name: workers
SELECT worker, name, host, pid, born, lease_ms, ttl_ms, beats, asked FROM worker
WHERE ended_ms IS NULL;

-- name: heartbeat_rows
-- And the places of steps in queues.
SELECT seq, NULL FROM heartbeat WHERE run = ?1
UNION ALL SELECT seq, place FROM perdure_place WHERE run = ?1 AND seq > 0;

-- name: heartbeat
SELECT data FROM heartbeat WHERE run = ?1 AND seq = ?2;

-- name: list_runs
SELECT run FROM run
WHERE (CAST(?1 AS TEXT) IS NULL OR status = ?1) AND (CAST(?2 AS TEXT) IS NULL OR workflow = ?2)
  AND (CAST(?3 AS BIGINT) IS NULL OR run < ?3)
ORDER BY run DESC LIMIT ?4;

-- name: list_open_runs
SELECT run FROM run {{index run_open}}
WHERE status <> 'completed' AND status = ?1 AND (CAST(?2 AS TEXT) IS NULL OR workflow = ?2)
  AND (CAST(?3 AS BIGINT) IS NULL OR run < ?3)
ORDER BY run DESC LIMIT ?4;

-- name: unfinished_runs
SELECT run FROM run {{index run_open}}
WHERE status <> 'completed' AND status IN ('pending', 'running', 'waiting', 'paused', 'blocked')
  AND (CAST(?1 AS TEXT) IS NULL OR workflow IN ({{each ?1}}))
ORDER BY run DESC LIMIT ?2;

-- name: history
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key > ?1 << 24 | ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key;

-- name: history_page
-- A number that no row can have must not reach into another run: so it is a sum.
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key > (?1 << 24) + ?2 AND key <= ?1 << 24 | 16777215 ORDER BY key LIMIT ?3;

-- name: rows_about
SELECT seq, kind, at_ms, ref, name, data, took_ms, edited FROM event
WHERE key BETWEEN (?1 << 24) + ?2 AND ?1 << 24 | 16777215
  AND (key = (?1 << 24) + ?2 OR ref = ?2)
ORDER BY key;

-- name: inbox
SELECT id, run, kind, name, ref, data, at_ms FROM inbox
WHERE run = ?1 AND taken IS NULL AND id > ?2 ORDER BY id LIMIT 1000;

-- name: inboxes_of
SELECT DISTINCT i.run FROM inbox AS i JOIN run AS r ON r.run = i.run
WHERE i.taken IS NULL AND r.owner = ?1;

-- name: paused_of
SELECT run FROM run WHERE owner = ?1 AND status = 'paused';

-- name: status_of
SELECT status, successor, owner FROM run WHERE run = ?1;

-- name: arguments_of
SELECT args FROM run WHERE run = ?1;

-- name: status_of_id
SELECT run, status, waiting, reason FROM run WHERE id = ?1;

-- name: outcome
SELECT status, successor, id, workflow, result, error, blocked_by, reason, durability
FROM run WHERE run = ?1;

-- name: durability_of
SELECT durability FROM run WHERE id = ?1;

-- name: ids_from
SELECT id FROM run WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3;

-- name: root_ids_from
SELECT id FROM run WHERE id >= ?1 AND id < ?2 AND parent IS NULL AND id NOT LIKE '%~%'
ORDER BY id LIMIT ?3;

-- name: child_ids_from
SELECT id FROM run WHERE id >= ?1 AND id < ?2 AND id NOT LIKE '%~%'
    AND NOT EXISTS (SELECT 1 FROM run AS p WHERE p.run = run.parent AND p.id >= ?1 AND p.id < ?2)
ORDER BY id LIMIT ?3;

-- name: stream
SELECT s.id, coalesce(s.data, (SELECT e.data FROM event AS e WHERE e.key = s.run << 24 | s.seq)),
       s.attempt IS NULL
FROM stream AS s WHERE s.run = ?1 AND s.name = ?2 AND s.id > ?3 ORDER BY s.id LIMIT ?4;

-- name: stream_place
SELECT r.run, r.id, s.name FROM stream AS s JOIN run AS r ON r.run = s.run WHERE s.id = ?1;

-- name: open_steps
SELECT s.name FROM event AS s
WHERE s.key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 AND s.kind IN ('step', 'child')
  AND s.seq NOT IN (SELECT a.ref FROM event AS a
                    WHERE a.key BETWEEN ?1 << 24 AND ?1 << 24 | 16777215 AND a.ref IS NOT NULL
                      AND a.kind IN ('completed', 'failed', 'abandon'))
ORDER BY s.key LIMIT ?2;

-- name: status_counts
-- By indexes only: the rows of a million finished runs are not read.
WITH other AS (SELECT status, count(*) AS n FROM run {{index run_open}}
               WHERE status <> 'completed' GROUP BY status)
SELECT status, n FROM other
UNION ALL
SELECT 'completed', n
FROM (SELECT (SELECT count(*) FROM run) - (SELECT coalesce(sum(n), 0) FROM other) AS n) AS rest
WHERE n > 0;

-- name: left_behind
-- Runs of workers whose leases have run out.
SELECT r.id, r.workflow, r.status, r.reason, r.due_ms
FROM worker AS w JOIN run AS r {{index run_owned}} ON r.owner = w.worker
WHERE w.ended_ms IS NULL AND w.lease_ms <= ?1 AND r.owner IS NOT NULL AND r.status = 'running'
ORDER BY r.run LIMIT 100;

-- name: stuck
SELECT id, workflow, status, reason, due_ms
FROM run {{index run_open}}
WHERE status <> 'completed' AND (status IN ('blocked', 'paused')
                                 OR (status = 'pending' AND owner IS NULL AND due_ms < ?1))
ORDER BY run LIMIT 100;
