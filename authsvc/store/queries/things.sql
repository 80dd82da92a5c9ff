-- Things and modules, as operators keep them.

-- name: things(tenant, after, ground, definition, state, tag, q, rows)
-- One page in key order; every filter is '' for "any".
SELECT tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
FROM things
WHERE tenant = :tenant AND key > :after
    AND (:ground = '' OR ground = :ground)
    AND (:definition = '' OR definition = :definition)
    AND (:state = '' OR state = :state)
    AND (:tag = '' OR EXISTS (SELECT 1 FROM json_each(things.tags) WHERE json_each.value = :tag))
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_thing(name, definition, ground, tags, security_tags, state, license, gateway, client_id, tenant, key)!
UPDATE things
SET name = :name, definition = :definition, ground = :ground, tags = :tags, security_tags = :security_tags,
    state = :state, license = :license, gateway = :gateway, client_id = :client_id
WHERE tenant = :tenant AND key = :key;

-- name: delete_thing(tenant, key)!
DELETE FROM things WHERE tenant = :tenant AND key = :key;

-- name: retire(tenant, key, now_us)!
INSERT INTO retired (tenant, key, at_us) VALUES (:tenant, :key, :now_us)
ON CONFLICT (tenant, key) DO UPDATE SET at_us = excluded.at_us;

-- name: unretire(tenant, key)!
DELETE FROM retired WHERE tenant = :tenant AND key = :key;

-- name: things_naming(tenant, ground, definition, license)
-- Things in a ground, of a definition, or with a seat of a licence: '' for the others.
SELECT tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
FROM things
WHERE tenant = :tenant
    AND (
        (:ground <> '' AND ground = :ground)
        OR (:definition <> '' AND definition = :definition)
        OR (:license <> '' AND license = :license)
    );

-- name: things_behind(tenant, gateway)
SELECT tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
FROM things
WHERE tenant = :tenant AND gateway = :gateway AND gateway <> '';

-- name: modules(tenant, gateway, after, q, rows)
-- One page of the modules of a gateway, in key order.
SELECT tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
FROM things
WHERE tenant = :tenant AND gateway = :gateway AND gateway <> '' AND key > :after
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;
