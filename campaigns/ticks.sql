-- What the campaign of schedules asks of the file.

-- name: runs
SELECT id FROM run WHERE workflow = 'tick' ORDER BY run;
