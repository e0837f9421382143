-- Schema version 1. Times are milliseconds UTC; JSON is text. A payload column holds plain JSON, or, when it is
-- large, '@' + digest + a recipe of chunks of the same run; the perdure_* views show payloads in full.

CREATE TABLE worker (
    worker        INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: it is the fencing token of its runs
    name          TEXT NOT NULL,
    host          TEXT NOT NULL,                      -- machine, boot and process namespace
    pid           INTEGER NOT NULL,
    born          TEXT NOT NULL,                      -- when the pid began: pids come round again
    started_ms    INTEGER NOT NULL,
    lease_ms      INTEGER NOT NULL,                   -- valid until, by its own clock: for people
    ttl_ms        INTEGER NOT NULL,                   -- how long it may be silent
    beats         INTEGER NOT NULL DEFAULT 0,         -- moves while it lives: what others go by, whatever clocks say
    ended_ms      INTEGER                             -- left, or found dead
) STRICT;
CREATE INDEX worker_alive ON worker (worker) WHERE ended_ms IS NULL;

CREATE TABLE run (
    run           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    workflow      TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN
                  ('pending', 'running', 'waiting', 'paused', 'blocked', 'completed', 'failed', 'cancelled')),
    args          TEXT NOT NULL,
    result        TEXT,
    error         TEXT,
    waiting       TEXT,                               -- what for, as JSON
    blocked_by    TEXT,                               -- nondeterminism, unknown_outcome, crash_loop, history
    reason        TEXT,                               -- of blocked, in words
    owner         INTEGER,                            -- worker that executes it; nobody else may write its history
    due_ms        INTEGER,                            -- when somebody should pick it up; NULL: nothing to do
    crashes       INTEGER NOT NULL DEFAULT 0,         -- processes that died over it since it last got on
    priority      INTEGER NOT NULL DEFAULT 0,
    queue         TEXT,
    tags          TEXT,
    parent        INTEGER,
    parent_seq    INTEGER,                            -- the parent's command that waits for this run
    forked_from   TEXT,
    successor     INTEGER,                            -- the run that goes on under this id
    origin        INTEGER,                            -- run that idempotency keys are made from: kept by retry
    seed          INTEGER NOT NULL,
    timeout_ms    INTEGER,
    created_ms    INTEGER NOT NULL,
    started_ms    INTEGER,
    ended_ms      INTEGER
) STRICT;
CREATE INDEX run_due ON run (workflow, due_ms) WHERE due_ms IS NOT NULL AND owner IS NULL AND status <> 'paused';
CREATE INDEX run_owned ON run (owner) WHERE owner IS NOT NULL;
CREATE INDEX run_open ON run (status, run) WHERE status <> 'completed';
CREATE INDEX run_parent ON run (parent) WHERE parent IS NOT NULL;

CREATE TABLE event (
    key           INTEGER PRIMARY KEY,                -- run << 24 | seq: a run's rows side by side, one page for the next one
    kind          TEXT NOT NULL,
    ref           INTEGER,                            -- seq of the command that this answers
    name          TEXT,
    data          TEXT,
    at_ms         INTEGER NOT NULL,
    took_ms       INTEGER,
    edited        INTEGER,
    run           INTEGER GENERATED ALWAYS AS (key >> 24) VIRTUAL,
    seq           INTEGER GENERATED ALWAYS AS (key & 16777215) VIRTUAL
) STRICT;

CREATE TABLE chunk (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL,
    n             INTEGER NOT NULL,
    digest        BLOB NOT NULL,
    body          TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunk_n ON chunk (run, n);

CREATE TABLE inbox (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL,
    kind          TEXT NOT NULL,                      -- message, cancel, completed, failed, resolve
    name          TEXT,                               -- channel
    ref           INTEGER,
    key           TEXT,                               -- arrives once, however often it is sent
    data          TEXT,                               -- NULL once it is in the history
    at_ms         INTEGER NOT NULL,
    taken         INTEGER                             -- seq of its event; 0: the run ended first
) STRICT;
CREATE UNIQUE INDEX inbox_key ON inbox (run, key) WHERE key IS NOT NULL;
CREATE INDEX inbox_open ON inbox (run) WHERE taken IS NULL;

CREATE TABLE stream (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL,
    name          TEXT NOT NULL,
    seq           INTEGER NOT NULL,                   -- the command that emitted it
    attempt       INTEGER,                            -- NULL: the workflow; its item stands in the event
    data          TEXT,
    at_ms         INTEGER NOT NULL
) STRICT;
CREATE INDEX stream_items ON stream (run, name, id);

CREATE TABLE heartbeat (
    run           INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    data          TEXT,
    at_ms         INTEGER NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE tag (
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    run           INTEGER NOT NULL,
    PRIMARY KEY (key, value, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_run ON tag (run);

-- Views for people -------------------------------------------------------------------------------

CREATE VIEW perdure_events AS
SELECT r.id AS run_id, e.seq, e.kind, e.ref, e.name,
       {{whole e.data of e.run}} AS data,
       strftime('%Y-%m-%d %H:%M:%f', e.at_ms / 1000.0, 'unixepoch') AS at, e.at_ms, e.took_ms
FROM run AS r JOIN event AS e ON e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215;

CREATE VIEW perdure_runs AS
SELECT id, workflow, status,
       {{whole r.args of r.run}} AS args,
       {{whole r.result of r.run}} AS result,
       {{whole r.error of r.run}} AS error, reason, waiting AS waiting_for, tags, queue, priority, owner AS worker,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent, forked_from,
       (SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215) AS history_rows,
       strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%d %H:%M:%f', ended_ms / 1000.0, 'unixepoch') AS ended_at
FROM run AS r;

CREATE VIEW perdure_steps AS
SELECT r.id AS run_id, c.seq, c.name AS step,
       CASE a.kind WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed' WHEN 'abandon' THEN 'abandoned' ELSE 'open' END AS status,
       {{whole c.data of c.run}} AS args,
       CASE a.kind WHEN 'completed' THEN {{whole a.data of a.run}} END AS result,
       CASE a.kind WHEN 'failed' THEN {{whole a.data of a.run}} END AS error,
       1 + (SELECT count(*) FROM event AS n WHERE n.key BETWEEN c.key AND coalesce(a.key, c.key | 16777215) AND n.kind = 'attempt'
            AND (n.ref = c.seq OR n.ref IS NULL) AND (n.data ->> 'error') IS NOT NULL) AS attempts,
       strftime('%Y-%m-%d %H:%M:%f', c.at_ms / 1000.0, 'unixepoch') AS scheduled_at,
       strftime('%Y-%m-%d %H:%M:%f', a.at_ms / 1000.0, 'unixepoch') AS ended_at, a.took_ms
FROM run AS r
JOIN event AS c ON c.key BETWEEN r.run << 24 AND r.run << 24 | 16777215
LEFT JOIN event AS a ON a.key = (
    SELECT x.key FROM event AS x
    WHERE x.key BETWEEN c.key + 1 AND c.key | 16777215 AND x.ref = c.seq AND x.kind IN ('completed', 'failed', 'abandon')
    ORDER BY x.key LIMIT 1)
WHERE c.kind = 'step';

CREATE VIEW perdure_messages AS
SELECT r.id AS run_id, i.name AS channel, i.kind, i.key,
       coalesce(i.data, (SELECT v.data FROM perdure_events AS v WHERE v.run_id = r.id AND v.seq = i.taken)) AS data,
       i.taken AS history_row, strftime('%Y-%m-%d %H:%M:%f', i.at_ms / 1000.0, 'unixepoch') AS at
FROM inbox AS i JOIN run AS r ON r.run = i.run;

CREATE VIEW perdure_streams AS
SELECT r.id AS run_id, s.name AS stream, s.id AS position, s.seq, s.attempt,
       coalesce(s.data, (SELECT v.data FROM perdure_events AS v WHERE v.run_id = r.id AND v.seq = s.seq)) AS item,
       strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS at
FROM stream AS s JOIN run AS r ON r.run = s.run;

CREATE VIEW perdure_workers AS
SELECT worker, name, pid, strftime('%Y-%m-%d %H:%M:%f', started_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%d %H:%M:%f', lease_ms / 1000.0, 'unixepoch') AS lease_until,
       CASE WHEN ended_ms IS NULL THEN 'alive' ELSE 'ended' END AS status
FROM worker;
