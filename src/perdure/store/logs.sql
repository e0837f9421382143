-- name: count_log_lines
SELECT count(*) FROM stream WHERE run = ?1 AND name = 'perdure_logs';

-- name: log_lines
SELECT id, seq, attempt, data, at_ms FROM stream
WHERE run = ?1 AND name = 'perdure_logs' AND id > ?2 AND (?3 IS NULL OR seq = ?3) AND (?4 IS NULL OR attempt = ?4)
ORDER BY id LIMIT ?5;

-- name: newest_log_lines
SELECT id, seq, attempt, data, at_ms FROM stream
WHERE run = ?1 AND name = 'perdure_logs' AND id > ?2 AND (?3 IS NULL OR seq = ?3) AND (?4 IS NULL OR attempt = ?4)
ORDER BY id DESC LIMIT ?5;

-- name: last_log_line
SELECT coalesce(max(id), 0) FROM stream WHERE run = ?1 AND name = 'perdure_logs';
