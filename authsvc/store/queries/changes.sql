-- The feed: every state change in the order of its commit.

-- name: append_change(at_us, kind, tenant, key, op, detail)!
INSERT INTO changes (at_us, kind, tenant, key, op, detail) VALUES (:at_us, :kind, :tenant, :key, :op, :detail);

-- name: append_changes(at_us, op, detail, names)!
-- The same of each of a JSON list of [kind, tenant, key], in its order.
INSERT INTO changes (at_us, kind, tenant, key, op, detail)
SELECT :at_us, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), :op, :detail
FROM json_each(:names)
ORDER BY json_each.key;

-- name: changes_after(position, rows)
-- The first that follow, as one JSON list of lists in any order: each row of an answer costs a wait for the interpreter.
SELECT json_group_array(json_array(c.position, c.at_us, c.kind, c.tenant, c.key, c.op, c.detail))
FROM (
    SELECT position, at_us, kind, tenant, key, op, detail
    FROM changes
    WHERE position > :position
    ORDER BY position
    LIMIT :rows
) AS c;

-- name: changes_since(at_us, ops)
-- Those of the last day, as a rule; :ops is a JSON list.
SELECT position, at_us, kind, tenant, key, op, detail
FROM changes
WHERE at_us >= :at_us AND op IN (SELECT value FROM json_each(:ops))
ORDER BY position;

-- name: change_range()
-- The oldest and the newest position that are kept; the newest row is never deleted.
SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM changes;

-- name: reader_passed(name, position, at_us)!
INSERT INTO change_readers (name, position, at_us) VALUES (:name, :position, :at_us)
ON CONFLICT (name) DO UPDATE SET position = excluded.position, at_us = excluded.at_us;

-- name: forget_readers(before_us)!
-- A reader not heard of for so long has ended; should it come back, it is told that changes are missing.
DELETE FROM change_readers WHERE at_us < :before_us;

-- name: forget_changes(before_us, rows)!
DELETE FROM changes
WHERE position IN (
    SELECT position FROM changes
    WHERE at_us < :before_us
        AND position <= (SELECT coalesce(min(r.position), 0) FROM change_readers AS r)
        AND position < (SELECT max(c.position) FROM changes AS c)
    ORDER BY position
    LIMIT :rows
);

-- name: touch_heartbeat(at_us)!
UPDATE heartbeat SET at_us = :at_us WHERE id = 1;
