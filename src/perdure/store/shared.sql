-- Queries that every database takes, by name, for the transitions. Times are milliseconds UTC and
-- always given; parameters have numbers. {{lock}} locks the rows that were read, where a database
-- takes several writers at once.

-- name: owner_of
SELECT owner FROM run WHERE run = ?1 {{lock}};

-- name: worker_alive
SELECT 1 FROM worker WHERE worker = ?1 AND ended_ms IS NULL {{lock}};

-- name: insert_chunk
INSERT INTO chunk (run, n, digest, body) VALUES (?1, ?2, ?3, ?4);

-- name: chunk_digests
SELECT digest, n FROM chunk WHERE run = ?1 AND n > ?2 ORDER BY n;

-- name: copy_chunks
INSERT INTO chunk (run, n, digest, body)
SELECT ?1, n, digest, body FROM chunk WHERE run = ?2 ORDER BY n;

-- name: existing_run
SELECT run, workflow, args FROM run WHERE id = ?1 {{lock}};

-- name: insert_run
INSERT INTO run (id, workflow, status, args, owner, due_ms, priority, queue, parent, parent_seq,
                 seed, timeout_ms, created_ms, started_ms, durability, python, root)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
ON CONFLICT (id) DO NOTHING RETURNING run;

-- name: set_args
UPDATE run SET args = ?1 WHERE run = ?2;

-- name: suspend
UPDATE run SET status = CASE status WHEN 'paused' THEN status ELSE ?1 END, waiting = ?2,
    due_ms = ?3, blocked_by = ?4, reason = ?5
WHERE run = ?6;

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

-- name: finish
UPDATE run SET status = ?1, result = ?2, error = ?3, ended_ms = ?4, owner = NULL, due_ms = NULL,
    waiting = NULL, blocked_by = NULL, reason = NULL, successor = ?5
WHERE run = ?6
RETURNING parent, parent_seq, id;

-- name: inherited
SELECT parent, parent_seq, coalesce(root, run), tags, durability FROM run WHERE run = ?1;

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
                 WHERE inbox.run = run.run AND taken IS NULL AND kind = 'message')
FROM run WHERE run = ?1;

-- name: set_unread
UPDATE run SET unread = ?1 WHERE run = ?2;

-- name: cancel_waits
SELECT 1 FROM inbox WHERE run = ?1 AND taken IS NULL AND kind = 'cancel';

-- name: insert_inbox
INSERT INTO inbox (run, kind, name, ref, data, at_ms, key, chain)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- name: wake_idle
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND owner IS NULL AND status IN ('waiting', 'pending')
  AND (due_ms IS NULL OR due_ms > ?1);

-- name: wake_waiting
UPDATE run SET due_ms = ?1
WHERE run = ?2 AND owner IS NULL AND status = 'waiting' AND (due_ms IS NULL OR due_ms > ?1);

-- name: cancel_unstarted
UPDATE run SET status = 'cancelled', ended_ms = ?1, due_ms = NULL, waiting = NULL,
    blocked_by = NULL, reason = NULL, owner = NULL
WHERE run = ?2 AND (status = 'blocked' OR (status = 'paused' AND blocked_by IS NOT NULL)
                    OR (status IN ('pending', 'paused') AND started_ms IS NULL))
RETURNING parent, parent_seq, id;

-- name: move_inbox
INSERT INTO inbox (run, kind, name, ref, data, at_ms)
SELECT ?1, kind, name, ref, data, at_ms FROM inbox
WHERE run = ?2 AND taken IS NULL AND ref IS NULL ORDER BY id;

-- name: copy_left_messages
INSERT INTO inbox (run, kind, name, ref, data, at_ms)
SELECT ?1, kind, name, ref, data, at_ms FROM inbox
WHERE run = ?2 AND taken = 0 AND kind = 'message' ORDER BY id;

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
UPDATE run SET status = 'paused' WHERE run = ?1;

-- name: resume
UPDATE run SET status = 'pending',
    due_ms = CASE WHEN started_ms IS NULL THEN due_ms ELSE ?1 END, waiting = NULL,
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
                 root)
SELECT ?1, workflow, 'pending', args, ?2, priority, queue, tags,
       coalesce(?5, CASE ?3 WHEN 1 THEN parent END), ?6,
       CASE ?3 WHEN 1 THEN forked_from ELSE id END,
       CASE ?3 WHEN 1 THEN coalesce(origin, run) END, seed, timeout_ms, durability, python, ?2, ?2,
       CASE ?3 WHEN 1 THEN coalesce(root, run) END
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
  AND (?3 IS NULL OR ?3 <= ttl_ms OR NOT EXISTS (SELECT 1 FROM run WHERE owner = ?2))
RETURNING 1;

-- name: end_worker
UPDATE worker SET ended_ms = ?1
WHERE worker = ?2 AND ended_ms IS NULL AND (?3 IS NULL OR beats = ?3)
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
