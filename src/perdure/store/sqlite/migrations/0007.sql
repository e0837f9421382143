-- Schema version 7: queues.

CREATE TABLE perdure_queue (
    queue           INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    concurrency     INTEGER,                          -- admitted places over all workers; NULL: no limit, as below
    per_worker      INTEGER,
    rate_limit      INTEGER,                          -- tokens in rate_per_ms; rate_burst at once
    rate_per_ms     INTEGER,
    rate_burst      INTEGER,
    key_concurrency INTEGER,                          -- the same per key
    key_rate_limit  INTEGER,
    key_rate_per_ms INTEGER,
    key_rate_burst  INTEGER,
    waiting_max     INTEGER,
    paused          INTEGER NOT NULL DEFAULT 0,
    declared        TEXT,                             -- the definition that code last declared, as JSON
    held_ms         INTEGER,                          -- admits nothing before
    held_at_ms      INTEGER,                          -- when that was said
    level_ns        INTEGER NOT NULL DEFAULT 0,       -- the bucket: how long it takes to be full of tokens again
    level_ms        INTEGER NOT NULL DEFAULT 0,       -- from this time on
    turn            INTEGER NOT NULL DEFAULT 0,       -- turns of the key that was admitted last
    waiting         INTEGER NOT NULL DEFAULT 0,       -- places in line
    next_ms         INTEGER                           -- when a place may be admitted; NULL: none waits, or only a release helps
) STRICT;
CREATE INDEX perdure_queue_next ON perdure_queue (next_ms) WHERE next_ms IS NOT NULL;

CREATE TABLE perdure_place (
    place         INTEGER PRIMARY KEY AUTOINCREMENT,  -- its age; never used twice, so a late release names no other place
    queue         INTEGER NOT NULL,
    key           TEXT NOT NULL,                      -- '': none
    run           INTEGER NOT NULL,
    seq           INTEGER NOT NULL,                   -- row of the step; 0: the run itself; below 0: its attempt has ended, and its thread has not
    root          INTEGER NOT NULL,                   -- of the run's family
    priority      INTEGER NOT NULL,
    weight        INTEGER NOT NULL,
    prepaid       INTEGER NOT NULL DEFAULT 0,         -- tokens that its admission drew, as far as nothing was spent
    asked_ms      INTEGER NOT NULL,
    admitted_ms   INTEGER,
    line          INTEGER,                            -- where it waits; neither admitted nor in line: its run is paused or blocked
    worker        INTEGER                             -- of an admitted step
) STRICT;
CREATE UNIQUE INDEX perdure_place_of_run ON perdure_place (run, seq);
CREATE INDEX perdure_place_line ON perdure_place (line, place) WHERE line IS NOT NULL;
CREATE INDEX perdure_place_family ON perdure_place (root) WHERE line IS NOT NULL;
CREATE INDEX perdure_place_admitted ON perdure_place (queue, key) WHERE admitted_ms IS NOT NULL;
CREATE INDEX perdure_place_worker ON perdure_place (worker) WHERE worker IS NOT NULL;

CREATE TABLE perdure_line (
    line          INTEGER PRIMARY KEY,
    queue         INTEGER NOT NULL,
    key           TEXT NOT NULL,
    priority      INTEGER NOT NULL,
    taker         TEXT NOT NULL,                      -- worker:<number> that executes the run, else workflow:<name>
    served        INTEGER NOT NULL,                   -- turns of the key at this priority
    head          INTEGER NOT NULL,                   -- its oldest place
    ready_ms      INTEGER NOT NULL DEFAULT 0          -- 0: may be admitted; when its key has tokens; 2^53 - 1: when its key has room
) STRICT;
CREATE UNIQUE INDEX perdure_line_of ON perdure_line (queue, key, priority, taker);
CREATE INDEX perdure_line_ready ON perdure_line (queue, taker, priority DESC, served, head) WHERE ready_ms = 0;
CREATE INDEX perdure_line_timed ON perdure_line (queue, ready_ms) WHERE ready_ms > 0;
CREATE INDEX perdure_line_taker ON perdure_line (taker);

CREATE TABLE perdure_queue_key (
    queue         INTEGER NOT NULL,
    key           TEXT NOT NULL,
    level_ns      INTEGER NOT NULL,
    level_ms      INTEGER NOT NULL,
    full_ms       INTEGER NOT NULL,                   -- when the bucket is full again: the row says nothing from then on
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX perdure_queue_key_full ON perdure_queue_key (queue, full_ms);

ALTER TABLE run ADD COLUMN key TEXT;                  -- whom it is for
ALTER TABLE run ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;  -- tokens that its admission draws
ALTER TABLE run ADD COLUMN scheduled_ms INTEGER;      -- nominal time of the tick that started it
ALTER TABLE run ADD COLUMN debounce_until_ms INTEGER; -- until when another start may put it off

-- Views ------------------------------------------------------------------------------------------

DROP VIEW IF EXISTS perdure_runs;
CREATE VIEW perdure_runs AS
SELECT id, workflow, status,
       {{whole r.args of r.run}} AS args,
       {{whole r.result of r.run}} AS result,
       {{whole r.error of r.run}} AS error, reason, waiting AS waiting_for, tags, queue, priority, owner AS worker,
       (SELECT p.id FROM run AS p WHERE p.run = r.parent) AS parent, forked_from,
       (SELECT max(key) & 16777215 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215) AS history_rows,
       strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%d %H:%M:%f', ended_ms / 1000.0, 'unixepoch') AS ended_at, python, key, weight,
       strftime('%Y-%m-%d %H:%M:%f', scheduled_ms / 1000.0, 'unixepoch') AS scheduled_at
FROM run AS r;

CREATE VIEW perdure_queues AS
SELECT name AS queue, concurrency, per_worker, rate_limit AS rate, rate_per_ms, rate_burst, key_concurrency, key_rate_limit AS key_rate,
       key_rate_per_ms, key_rate_burst, waiting_max, paused, waiting,
       (SELECT count(*) FROM perdure_place AS p WHERE p.queue = q.queue AND p.admitted_ms IS NOT NULL) AS running,
       strftime('%Y-%m-%d %H:%M:%f', held_ms / 1000.0, 'unixepoch') AS held_until,
       strftime('%Y-%m-%d %H:%M:%f', next_ms / 1000.0, 'unixepoch') AS next_at
FROM perdure_queue AS q;

CREATE VIEW perdure_places AS
SELECT q.name AS queue, r.id AS run_id, nullif(abs(p.seq) & 16777215, 0) AS seq,
       (SELECT e.name FROM event AS e WHERE e.key = p.run << 24 | abs(p.seq) & 16777215 AND p.seq <> 0) AS step, nullif(p.key, '') AS key, p.priority, p.weight,
       CASE WHEN p.admitted_ms IS NULL THEN 'waiting' ELSE 'running' END AS status,
       strftime('%Y-%m-%d %H:%M:%f', p.asked_ms / 1000.0, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%d %H:%M:%f', p.admitted_ms / 1000.0, 'unixepoch') AS admitted_at,
       CASE WHEN p.admitted_ms IS NOT NULL THEN coalesce(p.worker, r.owner) END AS worker
FROM perdure_place AS p JOIN perdure_queue AS q ON q.queue = p.queue JOIN run AS r ON r.run = p.run
WHERE p.admitted_ms IS NOT NULL OR p.line IS NOT NULL;
