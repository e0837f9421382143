-- Copies of runs in a new file: the store is attached as `source`.

-- name: attach_source
ATTACH ? AS source;

-- name: make_chosen
CREATE TEMP TABLE chosen (run INTEGER PRIMARY KEY);

-- name: choose
INSERT OR IGNORE INTO temp.chosen
WITH RECURSIVE below (run) AS (
    SELECT value FROM json_each(?)
    UNION
    SELECT r.run FROM below JOIN source.run AS r ON r.parent = below.run)
SELECT run FROM below;

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
