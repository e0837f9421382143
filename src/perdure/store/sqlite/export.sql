-- Copies of runs in a new file: the store is attached as `source`.

-- name: attach_source
ATTACH ? AS source;

-- name: mark
-- What makes an import take all of the file: somebody has chosen its runs.
CREATE TABLE main.perdure_export (version INTEGER NOT NULL) STRICT;

-- name: make_chosen
CREATE TEMP TABLE chosen (run INTEGER PRIMARY KEY);

-- name: choose
INSERT OR IGNORE INTO temp.chosen
WITH RECURSIVE below (run) AS (
    SELECT value FROM json_each(?)
    UNION
    SELECT r.run FROM below JOIN source.run AS r ON r.parent = below.run)
SELECT run FROM below;

-- name: choose_family
-- With the runs that went before them under their ids, and all that these have started as children.
INSERT OR IGNORE INTO temp.chosen
WITH RECURSIVE below (run, id) AS (
    SELECT r.run, r.id FROM json_each(?) AS asked CROSS JOIN source.run AS r ON r.run = asked.value
    UNION
    SELECT r.run, r.id FROM below CROSS JOIN source.run AS r ON r.parent = below.run
    UNION
    SELECT r.run, r.id FROM below CROSS JOIN source.run AS r ON r.id > below.id || '~' AND r.id < below.id || char(127)
    WHERE below.id NOT LIKE '%~%')
SELECT run FROM below;

-- name: choose_alone
INSERT OR IGNORE INTO temp.chosen SELECT value FROM json_each(?);

-- name: count_chosen
SELECT count(*) FROM temp.chosen;

-- name: copy_open_inbox
INSERT OR IGNORE INTO main.inbox
SELECT i.* FROM temp.chosen CROSS JOIN source.inbox AS i INDEXED BY inbox_open ON i.run = chosen.run AND i.taken IS NULL;

-- name: copy_secret
INSERT OR IGNORE INTO main.perdure_secret SELECT s.* FROM temp.chosen CROSS JOIN source.perdure_secret AS s ON s.run = chosen.run;

-- name: blind_digests
-- A secret may be guessed from the digest of a request.
UPDATE main.perdure_request SET digest = '' WHERE run IN (SELECT run FROM source.perdure_secret);

-- name: leave_owners
-- The workers are in the other store, and nothing there is due here, but a start that is still ahead.
UPDATE main.run SET owner = NULL, due_ms = CASE WHEN started_ms IS NULL THEN due_ms END;

-- name: forget_chosen
DELETE FROM temp.chosen;

-- name: copy_run
INSERT OR IGNORE INTO main.run SELECT r.* FROM temp.chosen CROSS JOIN source.run AS r USING (run);

-- name: copy_tag
INSERT OR IGNORE INTO main.tag SELECT t.* FROM temp.chosen CROSS JOIN source.tag AS t ON t.run = chosen.run;

-- name: copy_event
INSERT OR IGNORE INTO main.event (key, kind, ref, name, data, at_ms, took_ms, edited)
SELECT e.key, e.kind, e.ref, e.name, e.data, e.at_ms, e.took_ms, e.edited
FROM temp.chosen CROSS JOIN source.event AS e ON e.key BETWEEN chosen.run << 24 AND chosen.run << 24 | 16777215;

-- name: copy_chunk
INSERT OR IGNORE INTO main.chunk SELECT c.* FROM temp.chosen CROSS JOIN source.chunk AS c ON c.run = chosen.run;

-- name: copy_heartbeat
INSERT OR IGNORE INTO main.heartbeat SELECT h.* FROM temp.chosen CROSS JOIN source.heartbeat AS h ON h.run = chosen.run;

-- name: copy_stream
INSERT OR IGNORE INTO main.stream SELECT s.* FROM temp.chosen CROSS JOIN source.stream AS s ON s.run = chosen.run;

-- name: copy_inbox
INSERT OR IGNORE INTO main.inbox
SELECT i.* FROM temp.chosen CROSS JOIN source.inbox AS i INDEXED BY perdure_inbox_taken ON i.run = chosen.run AND i.taken > 0
UNION ALL
SELECT i.* FROM temp.chosen CROSS JOIN source.inbox AS i INDEXED BY inbox_left ON i.run = chosen.run AND i.taken = 0;

-- name: copy_exposed
INSERT OR IGNORE INTO main.perdure_exposed_value SELECT x.* FROM temp.chosen CROSS JOIN source.perdure_exposed_value AS x ON x.run = chosen.run;

-- name: copy_request
INSERT OR IGNORE INTO main.perdure_request SELECT q.* FROM temp.chosen CROSS JOIN source.perdure_request AS q ON q.run = chosen.run;
