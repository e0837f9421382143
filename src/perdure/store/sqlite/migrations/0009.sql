-- Schema version 9: requests and exposed values.

CREATE TABLE perdure_exposed_value (
    run           INTEGER NOT NULL,
    name          TEXT NOT NULL,
    seq           INTEGER NOT NULL,                   -- the row of history that has its value
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE perdure_request (
    request       INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again: askers hold it
    run           INTEGER NOT NULL,                   -- the first of the runs that went on under one id
    key           TEXT NOT NULL,                      -- one request, however often it is asked
    channel       TEXT NOT NULL,
    sender        TEXT NOT NULL,
    digest        TEXT NOT NULL,                      -- of its value, whose members may be in any order
    at_ms         INTEGER NOT NULL,
    state         TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replied', 'refused')),
    replied_ms    INTEGER,
    by_run        INTEGER,                            -- the run and the row of its history that have the reply
    seq           INTEGER
) STRICT;
CREATE UNIQUE INDEX perdure_request_key ON perdure_request (run, key);
CREATE INDEX perdure_request_open ON perdure_request (run, request) WHERE state = 'open';
CREATE INDEX perdure_request_by ON perdure_request (by_run) WHERE by_run IS NOT NULL;

-- An inbox row of kind request refers to its request.
CREATE INDEX perdure_inbox_request ON inbox (ref, id) WHERE kind = 'request';
CREATE INDEX perdure_inbox_request_row ON inbox (run, taken) WHERE kind = 'request';

CREATE VIEW perdure_exposed AS
SELECT r.id AS run_id, x.name, {{whole e.data of e.run}} AS value,
       strftime('%Y-%m-%d %H:%M:%f', e.at_ms / 1000.0, 'unixepoch') AS at, x.seq AS history_row
FROM perdure_exposed_value AS x JOIN run AS r ON r.run = x.run JOIN event AS e ON e.key = x.run << 24 | x.seq;

CREATE VIEW perdure_requests AS
SELECT r.id AS run_id, q.channel, q.key, q.sender,
       coalesce(i.data, (SELECT {{whole e.data of e.run}} FROM event AS e WHERE e.key = i.run << 24 | i.taken)) -> '$.value' AS value,
       CASE WHEN q.state = 'open' AND r.status IN ('completed', 'failed', 'cancelled') THEN 'unanswered' ELSE q.state END AS state, (SELECT {{whole e.data of e.run}} FROM event AS e WHERE e.key = q.by_run << 24 | q.seq) AS reply,
       strftime('%Y-%m-%d %H:%M:%f', q.at_ms / 1000.0, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%d %H:%M:%f', q.replied_ms / 1000.0, 'unixepoch') AS replied_at
FROM perdure_request AS q
LEFT JOIN inbox AS i ON i.id = (SELECT max(l.id) FROM inbox AS l WHERE l.kind = 'request' AND l.ref = q.request)
LEFT JOIN run AS r ON r.run = coalesce(q.by_run, i.run);
