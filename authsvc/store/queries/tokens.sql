-- App, device and ground tokens and their secrets. Only digests are kept.

-- name: insert_token(id, tenant, kind, name, expires_at_us, created_at_us, prefix, definition, ground, roles, tags, security_tags, license, auto_register, max_things, thing, access)!
INSERT INTO tokens (
    id, tenant, kind, name, expires_at_us, revoked_at_us, created_at_us, prefix, definition, ground,
    roles, tags, security_tags, license, auto_register, max_things, registered, thing, access
)
VALUES (
    :id, :tenant, :kind, :name, :expires_at_us, NULL, :created_at_us, :prefix, :definition, :ground,
    :roles, :tags, :security_tags, :license, :auto_register, :max_things, 0, :thing, :access
);

-- name: insert_secret(id, token_id, digest)!
INSERT INTO secrets (id, token_id, digest, expires_at_us, revoked_at_us)
VALUES (:id, :token_id, :digest, NULL, NULL);

-- name: update_token(name, expires_at_us, prefix, definition, ground, roles, tags, security_tags, license, auto_register, max_things, id)!
UPDATE tokens
SET name = :name, expires_at_us = :expires_at_us, prefix = :prefix, definition = :definition, ground = :ground,
    roles = :roles, tags = :tags, security_tags = :security_tags, license = :license, auto_register = :auto_register,
    max_things = :max_things
WHERE id = :id;

-- name: tokens(tenant, kind, after, revoked, thing, ground, q, rows)
-- One page of a kind, in the order of ids: all of the tenant, or of one thing or one ground.
SELECT id, tenant, kind, name, expires_at_us, revoked_at_us, created_at_us, prefix, definition, ground,
    roles, tags, security_tags, license, auto_register, max_things, registered, thing, access
FROM tokens
WHERE tenant = :tenant AND kind = :kind AND id > :after
    AND (revoked_at_us IS NOT NULL) = :revoked
    AND (:thing = '' OR thing = :thing)
    AND (:ground = '' OR ground = :ground)
    AND (:q = '' OR instr(fold(id), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY id
LIMIT :rows;

-- name: revoke_token(now_us, id)!
UPDATE tokens SET revoked_at_us = :now_us WHERE id = :id AND revoked_at_us IS NULL;

-- name: revoke_secrets(now_us, token_id)!
UPDATE secrets SET revoked_at_us = :now_us WHERE token_id = :token_id AND revoked_at_us IS NULL;

-- name: digests(after, rows)
-- One page of all digests, ended secrets and all tenants included, from the unique index alone.
SELECT digest FROM secrets WHERE digest > :after ORDER BY digest LIMIT :rows;

-- name: living_secrets(token_id, now_us)
SELECT id FROM secrets
WHERE token_id = :token_id AND revoked_at_us IS NULL AND (expires_at_us IS NULL OR expires_at_us > :now_us);

-- name: end_secret(ends_at_us, id)!
-- A secret that already ends earlier keeps its end.
UPDATE secrets SET expires_at_us = min(coalesce(expires_at_us, :ends_at_us), :ends_at_us) WHERE id = :id;

-- name: revoke_secret(now_us, id)!
UPDATE secrets SET revoked_at_us = :now_us WHERE id = :id;

-- name: tokens_of_thing(tenant, thing)
SELECT id, tenant, kind, name, expires_at_us, revoked_at_us, created_at_us, prefix, definition, ground,
    roles, tags, security_tags, license, auto_register, max_things, registered, thing, access
FROM tokens
WHERE tenant = :tenant AND thing = :thing AND thing <> '' AND revoked_at_us IS NULL;

-- name: tokens_naming(tenant, ground, definition, license, role)
-- Living tokens that name a ground, definition, licence or role (:role is the JSON text of one, else '').
SELECT id, tenant, kind, name, expires_at_us, revoked_at_us, created_at_us, prefix, definition, ground,
    roles, tags, security_tags, license, auto_register, max_things, registered, thing, access
FROM tokens
WHERE (tenant = :tenant OR :tenant = '') AND revoked_at_us IS NULL
    AND (
        (:ground <> '' AND ground = :ground)
        OR (:definition <> '' AND definition = :definition)
        OR (:license <> '' AND license = :license)
        OR (:role <> '' AND EXISTS (SELECT 1 FROM json_each(tokens.roles) WHERE json_each.value = :role))
    );
