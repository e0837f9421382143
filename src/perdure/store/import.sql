-- Runs of another store: what an import writes. Queries that every database takes, by name; see shared.sql.

-- name: run_to_compare
SELECT run, workflow, seed, created_ms FROM run WHERE id = ?1 {{lock}};

-- name: row_to_compare
SELECT kind, at_ms FROM event WHERE key = ?1;

-- name: insert_imported_run
INSERT INTO run (id, workflow, status, args, result, error, waiting, blocked_by, reason, due_ms,
                 crashes, priority, queue, tags, forked_from, seed, timeout_ms, created_ms,
                 started_ms, ended_ms, durability, unread, generation, python, key, weight,
                 scheduled_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
        ?21, ?22, ?23, ?24, ?25, ?26, ?27)
ON CONFLICT (id) DO NOTHING {{returning run}};

-- name: relate_imported_run
UPDATE run SET parent = ?1, parent_seq = ?2, successor = ?3, origin = ?4, chain = ?5, root = ?6
WHERE run = ?7;

-- name: insert_exposed
INSERT INTO perdure_exposed_value (run, name, seq) VALUES (?1, ?2, ?3);

-- name: insert_imported_message
INSERT INTO inbox (run, kind, name, ref, key, data, at_ms, taken, chain, sender)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10);

-- name: insert_imported_request
INSERT INTO perdure_request (run, key, channel, sender, digest, at_ms, state, replied_ms, by_run, seq)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
RETURNING request;
