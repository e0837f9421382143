-- Schema version 14: lines that steps log, which are items of a stream of their own.

DROP VIEW IF EXISTS perdure_streams;
CREATE VIEW perdure_streams AS
SELECT r.id AS run_id, s.name AS stream, s.id AS position, s.seq, s.attempt,
       coalesce({{whole s.data of s.run}}, (SELECT v.data FROM perdure_events AS v WHERE v.run_id = r.id AND v.seq = s.seq)) AS item,
       strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS at
FROM stream AS s JOIN run AS r ON r.run = s.run
WHERE s.name <> 'perdure_logs';

CREATE VIEW perdure_logs AS
SELECT l.run_id, l.position, l.seq, l.step, l.attempt, l.item ->> '$.level' AS level, l.item ->> '$.logger' AS logger,
       l.item ->> '$.message' AS message, l.item ->> '$.traceback' AS traceback,
       l.item ->> '$.left_out' AS left_out, l.item ->> '$.dropped' AS dropped, l.at
FROM (
    SELECT r.id AS run_id, s.id AS position, s.seq, (SELECT e.name FROM event AS e WHERE e.key = s.run << 24 | s.seq) AS step,
           s.attempt, {{whole s.data of s.run}} AS item, strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS at
    FROM run AS r JOIN stream AS s ON s.run = r.run
    WHERE s.name = 'perdure_logs'
) AS l;
