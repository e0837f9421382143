-- Schedules and their ticks. Queries that every database takes, by name; see shared.sql.

-- Writes ----------------------------------------------------------------------------------------

-- name: schedule_state
SELECT schedule, version, paused, manual, declared, declared_paused, expression, tz, workflow, args,
       overlap, catch_up_ms, catch_up_max, jitter_ms, queue, key, weight, timeout_ms,
       durability, next_ms
FROM perdure_schedule WHERE name = ?1 {{lock}};

-- name: insert_schedule
INSERT INTO perdure_schedule (expression, tz, workflow, args, overlap, catch_up_ms, catch_up_max, jitter_ms,
                      queue, key, weight, timeout_ms, durability, paused, manual, declared,
                      declared_paused, next_ms, fire_ms, name, created_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
        ?21)
RETURNING schedule;

-- name: change_schedule
UPDATE perdure_schedule SET expression = ?1, tz = ?2, workflow = ?3, args = ?4, overlap = ?5,
    catch_up_ms = ?6, catch_up_max = ?7, jitter_ms = ?8, queue = ?9, key = ?10,
    weight = ?11, timeout_ms = ?12, durability = ?13, paused = ?14, manual = ?15, declared = ?16,
    declared_paused = ?17, next_ms = ?18, fire_ms = ?19, version = version + 1, error = NULL
WHERE schedule = ?20;

-- name: declare_schedule
INSERT INTO perdure_schedule_worker (worker, schedule) VALUES (?1, ?2) ON CONFLICT DO NOTHING;

-- name: revive_schedule
-- Declared again: what was due meanwhile is looked at.
UPDATE perdure_schedule SET fire_ms = coalesce(next_ms, ?2), version = version + 1
WHERE schedule = ?1 AND fire_ms IS NULL AND paused = 0
  AND (next_ms IS NOT NULL OR held IS NOT NULL);

-- name: orphan_schedules
-- A worker ends: what no other one declares starts nothing more.
UPDATE perdure_schedule SET fire_ms = NULL, version = version + 1
WHERE manual = 0 AND schedule IN (SELECT w.schedule FROM perdure_schedule_worker AS w WHERE w.worker = ?1)
  AND NOT EXISTS (SELECT 1 FROM perdure_schedule_worker AS o
                  WHERE o.schedule = perdure_schedule.schedule AND o.worker <> ?1);

-- name: undeclare_schedules
DELETE FROM perdure_schedule_worker WHERE worker = ?1;

-- name: fire_state
SELECT version, fire_ms, overlap, catch_up_max, held, workflow, args, queue, key, weight,
       timeout_ms, durability
FROM perdure_schedule WHERE schedule = ?1 {{lock}};

-- name: advance_schedule
UPDATE perdure_schedule SET version = version + 1, next_ms = ?1, fire_ms = ?2, last_ms = ?3,
    last_run = coalesce(?4, last_run), held = ?5, missed = missed + ?6, skipped = skipped + ?7,
    error = NULL
WHERE schedule = ?8;

-- name: refuse_tick
UPDATE perdure_schedule SET version = version + 1, fire_ms = ?1, error = ?2 WHERE schedule = ?3;

-- name: open_ticks
SELECT s.id FROM perdure_schedule_run AS s JOIN run AS r ON r.id = s.id
WHERE s.schedule = ?1 AND r.status NOT IN ('completed', 'failed', 'cancelled') LIMIT ?2;

-- name: note_tick
INSERT INTO perdure_schedule_run (id, schedule) VALUES (?1, ?2)
ON CONFLICT (id) DO UPDATE SET schedule = excluded.schedule;

-- name: note_retried_tick
-- A retry of a tick's run is a run of its schedule again.
INSERT INTO perdure_schedule_run (id, schedule)
SELECT ?1, s.schedule FROM perdure_schedule AS s
WHERE s.name = ?2 AND EXISTS (SELECT 1 FROM run WHERE id = ?1 AND scheduled_ms IS NOT NULL)
ON CONFLICT (id) DO NOTHING;

-- name: end_tick
DELETE FROM perdure_schedule_run WHERE id = ?1 RETURNING schedule;

-- name: wake_held
UPDATE perdure_schedule SET fire_ms = ?1
WHERE schedule = ?2 AND held IS NOT NULL AND fire_ms IS NOT NULL;

-- name: set_last_run
UPDATE perdure_schedule SET last_run = ?1 WHERE schedule = ?2;

-- name: pause_schedule
UPDATE perdure_schedule SET paused = 1, fire_ms = NULL, version = version + 1 WHERE schedule = ?1;

-- name: resume_schedule
UPDATE perdure_schedule SET paused = 0, next_ms = ?1, version = version + 1,
    fire_ms = CASE WHEN manual = 1 OR EXISTS (SELECT 1 FROM perdure_schedule_worker AS w
                                              WHERE w.schedule = perdure_schedule.schedule)
                   THEN CASE WHEN held IS NULL THEN ?1 ELSE ?2 END END
WHERE schedule = ?3;

-- name: remove_schedule
DELETE FROM perdure_schedule WHERE name = ?1 RETURNING schedule;

-- name: remove_declarations
DELETE FROM perdure_schedule_worker WHERE schedule = ?1;

-- name: remove_open_ticks
DELETE FROM perdure_schedule_run WHERE schedule = ?1;

-- Reads -----------------------------------------------------------------------------------------

-- name: next_fire
SELECT min(fire_ms) FROM perdure_schedule {{index perdure_schedule_fire}} WHERE fire_ms IS NOT NULL;

-- name: any_held
SELECT 1 FROM perdure_schedule {{index perdure_schedule_held}} WHERE held IS NOT NULL LIMIT 1;

-- name: due_schedules
SELECT schedule, name, expression, tz, version, catch_up_ms, catch_up_max, jitter_ms, next_ms,
       last_ms, held
FROM perdure_schedule {{index perdure_schedule_fire}} WHERE fire_ms <= ?1 ORDER BY fire_ms LIMIT ?2;

-- name: schedules_ahead
SELECT schedule, name, expression, tz, version, catch_up_ms, catch_up_max, jitter_ms, next_ms,
       last_ms, held
FROM perdure_schedule {{index perdure_schedule_last}}
WHERE last_ms > ?1 AND fire_ms IS NOT NULL ORDER BY last_ms LIMIT ?2;

-- name: schedule_rows
SELECT s.schedule, s.name, s.expression, s.tz, s.workflow, s.args, s.overlap, s.catch_up_ms,
       s.catch_up_max, s.jitter_ms, s.queue, s.paused, s.manual, s.version, s.next_ms, s.fire_ms,
       s.last_ms, s.last_run, s.held, s.missed, s.skipped, s.error,
       CASE WHEN EXISTS (SELECT 1 FROM perdure_schedule_worker AS w WHERE w.schedule = s.schedule)
            THEN 1 ELSE 0 END AS is_declared,
       CASE WHEN EXISTS (SELECT 1 FROM worker WHERE ended_ms IS NULL AND asked = 0)
            THEN 1 ELSE 0 END AS has_worker
FROM perdure_schedule AS s
WHERE (CAST(?1 AS TEXT) IS NULL OR s.name = ?1) AND s.name > ?2
ORDER BY s.name LIMIT ?3;
