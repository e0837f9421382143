-- Schema version 12: secrets, apart from the text that people read. A chunk with a secret has the mask in its body.

CREATE TABLE perdure_secret (
    run           INTEGER NOT NULL,
    n             INTEGER NOT NULL,                   -- the chunk of the run
    body          TEXT NOT NULL,                      -- its true text
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE perdure_redaction (                      -- names of members whose values are hidden
    name          TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Messages, items of streams and heartbeats are in chunks where they have secrets.

DROP VIEW IF EXISTS perdure_streams;
CREATE VIEW perdure_streams AS
SELECT r.id AS run_id, s.name AS stream, s.id AS position, s.seq, s.attempt,
       coalesce({{whole s.data of s.run}}, (SELECT v.data FROM perdure_events AS v WHERE v.run_id = r.id AND v.seq = s.seq)) AS item,
       strftime('%Y-%m-%d %H:%M:%f', s.at_ms / 1000.0, 'unixepoch') AS at
FROM stream AS s JOIN run AS r ON r.run = s.run;

DROP VIEW IF EXISTS perdure_requests;
CREATE VIEW perdure_requests AS
SELECT r.id AS run_id, q.channel, q.key, q.sender,
       coalesce({{whole i.data of i.run}}, (SELECT {{whole e.data of e.run}} FROM event AS e WHERE e.key = i.run << 24 | i.taken)) -> '$.value' AS value,
       CASE WHEN q.state = 'open' AND r.status IN ('completed', 'failed', 'cancelled') THEN 'unanswered' ELSE q.state END AS state, (SELECT {{whole e.data of e.run}} FROM event AS e WHERE e.key = q.by_run << 24 | q.seq) AS reply,
       strftime('%Y-%m-%d %H:%M:%f', q.at_ms / 1000.0, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%d %H:%M:%f', q.replied_ms / 1000.0, 'unixepoch') AS replied_at
FROM perdure_request AS q
LEFT JOIN inbox AS i ON i.id = (SELECT max(l.id) FROM inbox AS l WHERE l.kind = 'request' AND l.ref = q.request)
LEFT JOIN run AS r ON r.run = coalesce(q.by_run, i.run);
