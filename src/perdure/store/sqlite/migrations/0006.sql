-- Schema version 6: perdure_steps counts attempts whose errors are large, and so stored in chunks: only errors are.

DROP VIEW IF EXISTS perdure_steps;
CREATE VIEW perdure_steps AS
SELECT r.id AS run_id, c.seq, c.name AS step,
       CASE a.kind WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed' WHEN 'abandon' THEN 'abandoned' ELSE 'open' END AS status,
       {{whole c.data of c.run}} AS args,
       CASE a.kind WHEN 'completed' THEN {{whole a.data of a.run}} END AS result,
       CASE a.kind WHEN 'failed' THEN {{whole a.data of a.run}} END AS error,
       1 + (SELECT count(*) FROM event AS n WHERE n.key BETWEEN c.key AND coalesce(a.key, c.key | 16777215) AND n.kind = 'attempt'
            AND (n.ref = c.seq OR n.ref IS NULL)
            AND CASE WHEN n.data LIKE '@%' THEN 1 ELSE (n.data ->> 'error') IS NOT NULL END) AS attempts,
       strftime('%Y-%m-%d %H:%M:%f', c.at_ms / 1000.0, 'unixepoch') AS scheduled_at,
       strftime('%Y-%m-%d %H:%M:%f', a.at_ms / 1000.0, 'unixepoch') AS ended_at, a.took_ms
FROM run AS r
JOIN event AS c ON c.key BETWEEN r.run << 24 AND r.run << 24 | 16777215
LEFT JOIN event AS a ON a.key = (
    SELECT x.key FROM event AS x
    WHERE x.key BETWEEN c.key + 1 AND c.key | 16777215 AND x.ref = c.seq AND x.kind IN ('completed', 'failed', 'abandon')
    ORDER BY x.key LIMIT 1)
WHERE c.kind = 'step';
