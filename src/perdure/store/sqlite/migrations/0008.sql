-- Schema version 8: schedules. A tick is its nominal instant; what starts it is a compare-and-set on `version`.

CREATE TABLE perdure_schedule (
    schedule      INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    expression    TEXT NOT NULL,                      -- a cron line, or '@every 15m'
    tz            TEXT NOT NULL,
    workflow      TEXT NOT NULL,
    args          TEXT NOT NULL,
    overlap       TEXT NOT NULL CHECK (overlap IN ('skip', 'wait', 'cancel', 'allow')),
    catch_up_ms   INTEGER NOT NULL,
    catch_up_max  INTEGER NOT NULL,                   -- how many missed ticks run
    jitter_ms     INTEGER NOT NULL,
    queue         TEXT,
    key           TEXT,
    weight        INTEGER NOT NULL,
    timeout_ms    INTEGER,
    durability    TEXT,
    paused        INTEGER NOT NULL,
    manual        INTEGER NOT NULL,                   -- 1: set by a caller, so that no code has to declare it
    declared      TEXT,                               -- digest of the definition that code declared last
    declared_paused INTEGER,
    version       INTEGER NOT NULL DEFAULT 1,         -- grows with each change and each tick
    next_ms       INTEGER,                            -- nominal instant of the next tick; NULL: there is none
    fire_ms       INTEGER,                            -- when to look at it, jitter included; NULL: paused, orphaned, or at its end
    last_ms       INTEGER,                            -- nominal instant of the last tick that was dealt with
    last_run      TEXT,                               -- id of the run that was started last
    held          TEXT,                               -- JSON: nominal instants that wait for the end of a run
    missed        INTEGER NOT NULL DEFAULT 0,
    skipped       INTEGER NOT NULL DEFAULT 0,
    error         TEXT,                               -- why the last tick could not be started
    created_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX perdure_schedule_fire ON perdure_schedule (fire_ms) WHERE fire_ms IS NOT NULL;
CREATE INDEX perdure_schedule_last ON perdure_schedule (last_ms) WHERE last_ms IS NOT NULL;
CREATE INDEX perdure_schedule_held ON perdure_schedule (schedule) WHERE held IS NOT NULL;

CREATE TABLE perdure_schedule_worker (                        -- whose code declares it; rows end with their worker
    worker        INTEGER NOT NULL,
    schedule      INTEGER NOT NULL,
    PRIMARY KEY (worker, schedule)
) STRICT, WITHOUT ROWID;
CREATE INDEX perdure_schedule_declared ON perdure_schedule_worker (schedule);

CREATE TABLE perdure_schedule_run (                           -- runs of ticks that have not ended
    id            TEXT PRIMARY KEY,
    schedule      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX perdure_schedule_open ON perdure_schedule_run (schedule);

CREATE VIEW perdure_schedules AS
SELECT name AS schedule, expression, tz, workflow, args, overlap, catch_up_ms, jitter_ms, queue,
       CASE WHEN paused = 1 THEN 'paused'
            WHEN NOT EXISTS (SELECT 1 FROM worker WHERE ended_ms IS NULL AND asked = 0) THEN 'no worker'
            WHEN manual = 0 AND NOT EXISTS (SELECT 1 FROM perdure_schedule_worker AS w WHERE w.schedule = s.schedule) THEN 'orphaned'
            ELSE 'active' END AS status,
       CASE WHEN paused = 0 AND (fire_ms IS NOT NULL OR NOT EXISTS (SELECT 1 FROM worker WHERE ended_ms IS NULL AND asked = 0))
            THEN strftime('%Y-%m-%d %H:%M:%f', next_ms / 1000.0, 'unixepoch') END AS next_at,
       strftime('%Y-%m-%d %H:%M:%f', last_ms / 1000.0, 'unixepoch') AS last_at, last_run, missed,
       skipped, coalesce(json_array_length(held), 0) AS waiting, catch_up_max, error
FROM perdure_schedule AS s;
