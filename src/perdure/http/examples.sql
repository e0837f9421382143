-- Examples of the SQL page, each with its title as its name.

-- name: What_fails_most
SELECT step, count(*) AS failed
FROM perdure_steps
WHERE status = 'failed'
GROUP BY step
ORDER BY failed DESC
LIMIT 20;

-- name: Slowest_steps
SELECT run_id, seq, step, took_ms, attempts
FROM perdure_steps
WHERE took_ms IS NOT NULL
ORDER BY took_ms DESC
LIMIT 20;

-- name: Runs_of_each_workflow
SELECT workflow, status, count(*) AS runs
FROM perdure_runs
GROUP BY workflow, status
ORDER BY workflow, runs DESC;

-- name: Runs_with_a_tag
SELECT id, workflow, status, tags ->> 'tenant' AS tenant
FROM perdure_runs
WHERE tags ->> 'tenant' IS NOT NULL
LIMIT 50;

-- name: Places_in_queues
SELECT *
FROM perdure_places
LIMIT 50;

-- name: views
SELECT m.name AS name, group_concat(c.name, ', ') AS columns
FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
WHERE m.type = 'view' AND m.name LIKE 'perdure\_%' ESCAPE '\'
GROUP BY m.name
ORDER BY m.name;
