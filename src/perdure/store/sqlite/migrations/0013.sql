-- Schema version 13: who answered, and links that let a person answer once.

ALTER TABLE inbox ADD COLUMN sender TEXT;             -- who sent a message or decided about a step; NULL: not said
CREATE INDEX perdure_inbox_sender ON inbox (id) WHERE sender IS NOT NULL;
CREATE INDEX perdure_inbox_sender_row ON inbox (run, taken) WHERE sender IS NOT NULL;

CREATE TABLE perdure_link (
    link          INTEGER PRIMARY KEY,
    digest        TEXT NOT NULL UNIQUE,               -- of its token, which is nowhere in the file: a copy of the file opens no link
    run           INTEGER NOT NULL,
    channel       TEXT NOT NULL,
    wait          INTEGER NOT NULL,                   -- the row behind which the run began to wait
    recipient     TEXT,
    made_ms       INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    used_ms       INTEGER
) STRICT;
CREATE INDEX perdure_link_run ON perdure_link (run);

DROP VIEW IF EXISTS perdure_messages;
CREATE VIEW perdure_messages AS
SELECT r.id AS run_id, i.name AS channel, i.kind, i.key, i.sender,
       coalesce({{whole i.data of i.run}}, (SELECT v.data FROM perdure_events AS v WHERE v.run_id = r.id AND v.seq = i.taken)) AS data,
       i.taken AS history_row, strftime('%Y-%m-%d %H:%M:%f', i.at_ms / 1000.0, 'unixepoch') AS at
FROM inbox AS i JOIN run AS r ON r.run = i.run;

CREATE VIEW perdure_links AS
SELECT r.id AS run_id, l.channel, l.wait AS history_row, l.recipient,
       strftime('%Y-%m-%d %H:%M:%f', l.made_ms / 1000.0, 'unixepoch') AS made_at,
       strftime('%Y-%m-%d %H:%M:%f', l.expires_ms / 1000.0, 'unixepoch') AS expires_at,
       strftime('%Y-%m-%d %H:%M:%f', l.used_ms / 1000.0, 'unixepoch') AS used_at
FROM perdure_link AS l JOIN run AS r ON r.run = l.run;

-- What the processes that execute runs say of their workflows, for forms in processes without their code.
CREATE TABLE perdure_workflow (
    name          TEXT PRIMARY KEY,
    about         TEXT NOT NULL,                      -- the first line of its documentation
    schema        TEXT NOT NULL,                      -- JSON Schema of its arguments
    declared_ms   INTEGER NOT NULL                    -- since when they are these
) STRICT, WITHOUT ROWID;

CREATE VIEW perdure_workflows AS
SELECT name AS workflow, about, schema,
       strftime('%Y-%m-%d %H:%M:%f', declared_ms / 1000.0, 'unixepoch') AS declared_at
FROM perdure_workflow;
