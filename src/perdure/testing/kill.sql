-- What the campaign `kill` asks and writes.

-- name: make_table
CREATE TABLE IF NOT EXISTS booking (name TEXT, n INTEGER);

-- name: book
INSERT INTO booking VALUES (?, ?);

-- name: booked
SELECT name, n FROM booking ORDER BY name, n;

-- name: living
SELECT worker FROM worker WHERE pid = ? AND ended_ms IS NULL;

-- name: recorded_twice
SELECT run_id, ref FROM perdure_events WHERE kind IN ('completed', 'failed') AND ref > 0 GROUP BY 1, 2 HAVING count(*) > 1;

-- name: tokens
SELECT run_id, seq, json_extract(result, '$') FROM perdure_steps WHERE step LIKE '%effect' OR step LIKE '%in_a_thread';
