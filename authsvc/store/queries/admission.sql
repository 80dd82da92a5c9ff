-- What a CONNECT asks and writes. Each question is one statement on a unique index.

-- name: token_by_digest(digest)
-- The token and the secret that has this digest, ended ones too: which of unknown, expired and revoked is the caller's.
SELECT t.id, t.tenant, t.kind, t.name, t.expires_at_us, t.revoked_at_us, t.created_at_us, t.prefix, t.definition, t.ground,
    t.roles, t.tags, t.security_tags, t.license, t.auto_register, t.max_things, t.registered, t.thing, t.access,
    s.id, s.token_id, s.digest, s.expires_at_us, s.revoked_at_us
FROM secrets AS s JOIN tokens AS t ON t.id = s.token_id
WHERE s.digest = :digest;

-- name: token(id, tenant)
SELECT id, tenant, kind, name, expires_at_us, revoked_at_us, created_at_us, prefix, definition, ground,
    roles, tags, security_tags, license, auto_register, max_things, registered, thing, access
FROM tokens
WHERE id = :id AND tenant = :tenant;

-- name: tenant(key)
SELECT key, name, state, created_at_us
FROM tenants
WHERE key = :key;

-- name: ground(tenant, key)
SELECT tenant, key, name, created_at_us
FROM grounds
WHERE tenant = :tenant AND key = :key;

-- name: definition(tenant, key)
SELECT tenant, key, name, kind, rules, bind_client_id, module_definition, module_auto_register, created_at_us
FROM definitions
WHERE tenant = :tenant AND key = :key;

-- name: role(tenant, key)
-- tenant '' holds the platform roles.
SELECT tenant, key, name, rules, permissions, created_at_us
FROM roles
WHERE tenant = :tenant AND key = :key;

-- name: license(tenant, key)
SELECT tenant, key, seats, used, created_at_us
FROM licenses
WHERE tenant = :tenant AND key = :key;

-- name: thing(tenant, key)
SELECT tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
FROM things
WHERE tenant = :tenant AND key = :key;

-- name: things_or_retired(items)
-- Of a JSON list of [tenant, key] those that are things or retired: the number in the list, whether the key is remembered
-- as deleted, and the columns of `thing`, NULL where there is none.
SELECT asked.number, r.key IS NOT NULL, t.tenant, t.key, t.name, t.definition, t.ground, t.tags, t.security_tags, t.state, t.token_id,
    t.license, t.gateway, t.client_id, t.first_seen_us, t.last_seen_us, t.created_at_us
FROM (
    SELECT key AS number, json_extract(value, '$[0]') AS tenant, json_extract(value, '$[1]') AS key
    FROM json_each(:items)
) AS asked
LEFT JOIN things AS t ON t.tenant = asked.tenant AND t.key = asked.key
LEFT JOIN retired AS r ON r.tenant = asked.tenant AND r.key = asked.key
WHERE t.key IS NOT NULL OR r.key IS NOT NULL;

-- name: modules_of(tenant, gateway)
-- Nobody speaks for a blocked module.
SELECT key
FROM things
WHERE tenant = :tenant AND gateway = :gateway AND gateway <> '' AND state = 'active';

-- name: members_of(tenant, ground)
SELECT key
FROM things
WHERE tenant = :tenant AND ground = :ground;

-- name: admin_key_by_digest(digest)
SELECT id, name, tenant, role, prefix, created_at_us
FROM admin_keys
WHERE digest = :digest;

-- name: registration_footing(token_id, tenant, definition, ground, key)
-- Whether what a registration stands on is still there: token, tenant, definition and ground; and whether it is retired.
SELECT
    (SELECT count(*) FROM tokens WHERE id = :token_id AND tenant = :tenant AND revoked_at_us IS NULL),
    (SELECT count(*) FROM tenants WHERE key = :tenant AND state = 'active'),
    (SELECT count(*) FROM definitions WHERE tenant = :tenant AND key = :definition),
    (SELECT count(*) FROM grounds WHERE tenant = :tenant AND key = :ground),
    (SELECT count(*) FROM retired WHERE tenant = :tenant AND key = :key);

-- name: insert_thing(tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id, first_seen_us, last_seen_us, created_at_us)!
-- The primary key settles who registers a key first: 0 rows for everybody after.
INSERT INTO things (
    tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
)
VALUES (
    :tenant, :key, :name, :definition, :ground, :tags, :security_tags, :state, :token_id, :license, :gateway, :client_id,
    :first_seen_us, :last_seen_us, :created_at_us
)
ON CONFLICT (tenant, key) DO NOTHING;

-- name: keys_taken(tenant, keys)
-- Which of a JSON list of keys are registered or retired.
SELECT value
FROM json_each(:keys)
WHERE EXISTS (SELECT 1 FROM things WHERE tenant = :tenant AND key = value)
    OR EXISTS (SELECT 1 FROM retired WHERE tenant = :tenant AND key = value);

-- name: insert_things(tenant, definition, ground, tags, security_tags, state, token_id, license, gateway, now_us, things)!
-- Things that differ in nothing else: a JSON list of [key, name, client id].
INSERT INTO things (
    tenant, key, name, definition, ground, tags, security_tags, state, token_id, license, gateway, client_id,
    first_seen_us, last_seen_us, created_at_us
)
SELECT :tenant, json_extract(value, '$[0]'), json_extract(value, '$[1]'), :definition, :ground, :tags, :security_tags,
    :state, :token_id, :license, :gateway, json_extract(value, '$[2]'), :now_us, :now_us, :now_us
FROM json_each(:things);

-- name: take_seats(tenant, key, count)!
-- As many seats, if so many are free: the condition and the count are one statement. seats may be below used.
UPDATE licenses SET used = used + :count
WHERE tenant = :tenant AND key = :key AND used + :count <= seats;

-- name: free_seat(tenant, key)!
UPDATE licenses SET used = used - 1
WHERE tenant = :tenant AND key = :key AND used > 0;

-- name: take_quota(id, count)!
UPDATE tokens SET registered = registered + :count
WHERE id = :id AND (max_things IS NULL OR registered + :count <= max_things);

-- name: free_quota(id, count)!
UPDATE tokens SET registered = registered - :count
WHERE id = :id AND registered >= :count;

-- name: bind_client_id(client_id, tenant, key)!
-- Compare and set.
UPDATE things SET client_id = :client_id
WHERE tenant = :tenant AND key = :key AND client_id IS NULL;

-- name: touch_seen(at_us, tenant, key)!
UPDATE things SET first_seen_us = coalesce(first_seen_us, :at_us), last_seen_us = max(coalesce(last_seen_us, 0), :at_us)
WHERE tenant = :tenant AND key = :key;
