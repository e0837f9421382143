-- What the kill campaign asks of the file, and the table that its transactional steps write to.

-- name: make_account
CREATE TABLE IF NOT EXISTS account (run TEXT NOT NULL, n INTEGER NOT NULL) STRICT;

-- name: book
INSERT INTO account (run, n) VALUES (?, ?);

-- name: booked
SELECT run, n, count(*) FROM account GROUP BY run, n;

-- name: workers
SELECT worker, pid, started_ms, ended_ms, lease_ms, ttl_ms FROM worker;

-- name: alive
SELECT worker FROM worker WHERE pid = ? AND ended_ms IS NULL;

-- name: runs
SELECT run FROM run ORDER BY run;
