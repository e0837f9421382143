-- Queries of the observer.

-- name: roots
-- The first pages of all tables and indexes.
SELECT rootpage FROM sqlite_schema WHERE rootpage > 1;
