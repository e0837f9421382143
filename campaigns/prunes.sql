-- Questions of the campaign of prunes to a store or a file of an archive.

-- name: runs
SELECT id FROM run;

-- name: without_history
SELECT count(*) FROM run AS r
WHERE NOT EXISTS (SELECT 1 FROM event AS e WHERE e.key BETWEEN r.run << 24 AND r.run << 24 | 16777215);

-- name: left_over
-- Rows of runs that are gone: the marks of retention are under run 0.
SELECT (SELECT count(*) FROM event WHERE run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM chunk WHERE run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM stream WHERE run <> 0 AND run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM inbox WHERE run <> 0 AND run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM heartbeat WHERE run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM tag WHERE run NOT IN (SELECT run FROM run))
     + (SELECT count(*) FROM perdure_pruned_run);
