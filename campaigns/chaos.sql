-- What the chaos campaign reads off a store.

-- name: runs
SELECT id, status, result FROM perdure_runs;

-- name: steps
SELECT r.id, e.seq FROM event AS e JOIN run AS r ON r.run = e.key >> 24 WHERE e.kind = 'step';
