-- What the campaign of queues asks of the file, and the inside log that its triggers write: each
-- ask, admission and release of a place, in the transaction that makes it. The weight of an admission is
-- what it draws from buckets: a place that is admitted again has paid before. `real_ms` is SQLite's
-- own clock, which no skew of a worker changes. `let go` names a run that gave its own place back. `filled` are times that a bucket has seen: also those of what is spent.

-- name: make_seen
CREATE TABLE campaign_seen (
    n INTEGER PRIMARY KEY, what TEXT NOT NULL, place INTEGER, queue TEXT, key TEXT, priority INTEGER, weight INTEGER, taker TEXT,
    at_ms INTEGER NOT NULL, real_ms INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER))
) STRICT;

-- name: see_inserts
CREATE TRIGGER campaign_inserts AFTER INSERT ON perdure_place BEGIN
    INSERT INTO campaign_seen (what, place, queue, key, priority, weight, taker, at_ms)
    SELECT CASE WHEN NEW.admitted_ms IS NULL THEN 'asked' ELSE 'admitted' END, NEW.place, q.name, NEW.key, NEW.priority, NEW.prepaid,
           coalesce('worker:' || NEW.worker, (SELECT taker FROM perdure_line WHERE line = NEW.line)), coalesce(NEW.admitted_ms, NEW.asked_ms)
    FROM perdure_queue AS q WHERE q.queue = NEW.queue AND (NEW.line IS NOT NULL OR NEW.admitted_ms IS NOT NULL);
END;

-- name: see_updates
CREATE TRIGGER campaign_updates AFTER UPDATE ON perdure_place BEGIN
    INSERT INTO campaign_seen (what, place, queue, at_ms)
    SELECT 'released', OLD.place, q.name, OLD.asked_ms FROM perdure_queue AS q WHERE q.queue = OLD.queue
        AND ((OLD.admitted_ms IS NOT NULL AND NEW.admitted_ms IS NULL)
             OR (OLD.line IS NOT NULL AND NEW.line IS NULL AND NEW.admitted_ms IS NULL));
    INSERT INTO campaign_seen (what, place, queue, key, priority, weight, taker, at_ms)
    SELECT 'asked', NEW.place, q.name, NEW.key, NEW.priority, NEW.weight, (SELECT taker FROM perdure_line WHERE line = NEW.line), NEW.asked_ms
    FROM perdure_queue AS q WHERE q.queue = NEW.queue AND NEW.line IS NOT NULL AND NEW.line IS NOT OLD.line;
    INSERT INTO campaign_seen (what, place, queue, key, priority, weight, taker, at_ms)
    SELECT 'admitted', NEW.place, q.name, NEW.key, NEW.priority, NEW.prepaid - OLD.prepaid, 'worker:' || NEW.worker, NEW.admitted_ms
    FROM perdure_queue AS q WHERE q.queue = NEW.queue AND OLD.admitted_ms IS NULL AND NEW.admitted_ms IS NOT NULL;
    INSERT INTO campaign_seen (what, place, queue, key, priority, weight, taker, at_ms)
    SELECT 'moved', NEW.place, q.name, NEW.key, NEW.priority, NEW.weight, 'worker:' || NEW.worker, NEW.admitted_ms
    FROM perdure_queue AS q WHERE q.queue = NEW.queue AND OLD.admitted_ms IS NOT NULL AND NEW.admitted_ms IS NOT NULL
        AND NEW.worker IS NOT OLD.worker;
    INSERT INTO campaign_seen (what, place, queue, taker, at_ms)
    SELECT 'let go', NEW.place, q.name, r.id, NEW.asked_ms FROM perdure_queue AS q CROSS JOIN run AS r
    WHERE q.queue = NEW.queue AND r.run = NEW.run AND NEW.seq = 0 AND OLD.admitted_ms IS NOT NULL AND NEW.admitted_ms IS NULL;
END;

-- name: see_deletes
CREATE TRIGGER campaign_deletes AFTER DELETE ON perdure_place BEGIN
    INSERT INTO campaign_seen (what, place, queue, at_ms)
    SELECT 'released', OLD.place, q.name, OLD.asked_ms FROM perdure_queue AS q WHERE q.queue = OLD.queue;
END;

-- name: see_ends
CREATE TRIGGER campaign_ends AFTER UPDATE OF ended_ms ON worker WHEN NEW.ended_ms IS NOT NULL AND OLD.ended_ms IS NULL BEGIN
    INSERT INTO campaign_seen (what, place, at_ms) VALUES ('ended', NEW.worker, NEW.ended_ms);
END;

-- name: see_holds
CREATE TRIGGER campaign_holds AFTER UPDATE OF held_ms ON perdure_queue WHEN NEW.held_ms IS NOT NULL AND NEW.held_ms IS NOT OLD.held_ms BEGIN
    INSERT INTO campaign_seen (what, queue, at_ms) VALUES ('held', NEW.name, NEW.held_ms);
END;

-- name: see_fills
CREATE TRIGGER campaign_fills AFTER UPDATE OF level_ms ON perdure_queue WHEN NEW.level_ms > OLD.level_ms BEGIN
    INSERT INTO campaign_seen (what, queue, key, at_ms) VALUES ('filled', NEW.name, '', NEW.level_ms);
END;

-- name: see_key_fills
CREATE TRIGGER campaign_key_fills AFTER UPDATE OF level_ms ON perdure_queue_key WHEN NEW.level_ms > OLD.level_ms BEGIN
    INSERT INTO campaign_seen (what, queue, key, at_ms)
    SELECT 'filled', q.name, NEW.key, NEW.level_ms FROM perdure_queue AS q WHERE q.queue = NEW.queue;
END;

-- name: see_key_drops
-- A bucket that is full is dropped.
CREATE TRIGGER campaign_key_drops AFTER DELETE ON perdure_queue_key BEGIN
    INSERT INTO campaign_seen (what, queue, key, at_ms)
    SELECT 'filled', q.name, OLD.key, OLD.full_ms FROM perdure_queue AS q WHERE q.queue = OLD.queue;
END;

-- name: see_pauses
CREATE TRIGGER campaign_pauses AFTER UPDATE OF paused ON perdure_queue WHEN NEW.paused IS NOT OLD.paused BEGIN
    INSERT INTO campaign_seen (what, queue, at_ms) VALUES (CASE WHEN NEW.paused THEN 'paused' ELSE 'resumed' END, NEW.name, 0);
END;

-- name: seen
SELECT what, place, queue, key, priority, weight, taker, at_ms, real_ms FROM campaign_seen ORDER BY n;

-- name: joined
SELECT pid FROM worker WHERE ended_ms IS NULL;

-- name: could_be_admitted
-- Places in line though their queue, their key and their worker have room, and nothing holds the queue back.
SELECT p.place, q.name, p.key, r.id, r.status, (SELECT taker FROM perdure_line WHERE line = p.line)
FROM perdure_place AS p JOIN perdure_queue AS q ON q.queue = p.queue JOIN run AS r ON r.run = p.run
WHERE p.line IS NOT NULL AND NOT q.paused AND coalesce(q.held_ms, 0) <= ?1 AND q.rate_limit IS NULL AND q.key_rate_limit IS NULL
    AND (q.concurrency IS NULL OR q.concurrency > (SELECT count(*) FROM perdure_place AS a WHERE a.queue = p.queue AND a.admitted_ms IS NOT NULL))
    AND (q.key_concurrency IS NULL OR p.key = '' OR q.key_concurrency > (
        SELECT count(*) FROM perdure_place AS a WHERE a.queue = p.queue AND a.key = p.key AND a.admitted_ms IS NOT NULL))
    AND (q.per_worker IS NULL OR EXISTS (
        SELECT 1 FROM perdure_line AS l JOIN worker AS w ON l.taker IN ('worker:' || w.worker) AND w.ended_ms IS NULL WHERE l.line = p.line
            AND q.per_worker > (SELECT count(*) FROM perdure_place AS a WHERE a.queue = p.queue AND a.worker = w.worker AND a.admitted_ms IS NOT NULL)));
