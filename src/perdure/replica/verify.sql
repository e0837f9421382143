-- Queries about copies of a store.

-- name: history
SELECT key, kind, at_ms, ref, name, data, took_ms, edited FROM event;

-- name: attach
ATTACH ? AS copy;

-- name: detach
DETACH copy;

-- name: missing
-- The newest run of a file is never pruned: one behind it is missing, one before it may have been pruned.
SELECT count(*) FROM copy.event AS theirs LEFT JOIN main.event AS ours ON ours.key = theirs.key
WHERE ours.kind <> theirs.kind OR ours.at_ms <> theirs.at_ms OR ours.data IS NOT theirs.data AND ours.key IS NOT NULL
   OR ours.key IS NULL AND (theirs.key >> 24 >= (SELECT coalesce(max(run), 0) FROM main.run)
                            OR EXISTS (SELECT 1 FROM main.run AS kept WHERE kept.run = theirs.key >> 24));

-- name: make_plain
DELETE FROM replica;

-- name: contents
SELECT (SELECT count(*) FROM run), (SELECT max(at_ms) FROM event);

-- name: look
SELECT count(*) FROM sqlite_schema;

-- name: hold
BEGIN; SELECT count(*) FROM sqlite_schema;
