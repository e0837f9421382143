-- Answers of people: waits, links, senders.

-- name: awaited_by
SELECT status, waiting FROM run WHERE run = ?1 {{lock}};

-- name: unread_on
SELECT count(*) FROM inbox {{index inbox_open}}
WHERE run = ?1 AND taken IS NULL AND kind = 'message' AND name = ?2;

-- name: answered_by
-- The first message on the channel behind the row where the wait began.
SELECT sender, at_ms FROM inbox
WHERE id IN (SELECT id FROM inbox {{index perdure_inbox_taken}}
             WHERE run = ?1 AND taken > 0 AND taken > ?3 AND kind = 'message' AND name = ?2
             UNION ALL
             SELECT id FROM inbox {{index inbox_open}}
             WHERE run = ?1 AND taken IS NULL AND kind = 'message' AND name = ?2)
ORDER BY id LIMIT 1;

-- name: insert_link
INSERT INTO perdure_link (digest, run, channel, wait, recipient, made_ms, expires_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: links_made
SELECT count(*) FROM perdure_link WHERE run = ?1;

-- name: use_link
UPDATE perdure_link SET used_ms = ?1 WHERE link = ?2;

-- name: link
SELECT l.link, l.run, r.id, r.workflow, l.channel, l.wait, l.recipient, l.made_ms, l.expires_ms,
       l.used_ms, r.status, r.waiting
FROM perdure_link AS l JOIN run AS r ON r.run = l.run WHERE l.digest = ?1;

-- name: links_of
SELECT link, run, '' AS id, '' AS workflow, channel, wait, recipient, made_ms, expires_ms, used_ms,
       '' AS status, NULL AS waiting
FROM perdure_link WHERE run = ?1 ORDER BY link DESC LIMIT ?2;

-- name: answers
SELECT i.id, r.id, r.workflow, i.kind, i.name, i.sender, i.at_ms, i.run,
       coalesce(i.data, (SELECT e.data FROM event AS e
                         WHERE e.key = i.run << 24 | i.taken AND i.taken > 0)),
       coalesce(i.taken, 0)
FROM inbox AS i {{index perdure_inbox_sender}} JOIN run AS r ON r.run = i.run
WHERE i.sender IS NOT NULL AND i.id < ?1 ORDER BY i.id DESC LIMIT ?2;

-- name: declare_workflow
INSERT INTO perdure_workflow (name, about, schema, declared_ms) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE
SET about = excluded.about, schema = excluded.schema, declared_ms = excluded.declared_ms
WHERE schema <> excluded.schema OR about <> excluded.about;

-- name: declared_workflows
SELECT name, about, schema FROM perdure_workflow ORDER BY name LIMIT ?1;

-- name: senders
SELECT taken, sender FROM inbox {{index perdure_inbox_sender_row}}
WHERE run = ?1 AND taken BETWEEN ?2 AND ?3 AND sender IS NOT NULL;
