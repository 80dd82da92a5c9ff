-- Tenants, grounds, definitions, roles, licences and admin keys, as operators keep them.

-- name: insert_tenant(key, name, state, now_us)!
INSERT INTO tenants (key, name, state, created_at_us) VALUES (:key, :name, :state, :now_us);

-- name: tenants(after, q, rows)
-- One page in key order, with one row more than asked for when there is another page. `q` is casefolded.
SELECT key, name, state, created_at_us
FROM tenants
WHERE 1 = 1 AND key > :after
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_tenant(name, state, key)!
UPDATE tenants SET name = :name, state = :state WHERE key = :key;

-- name: tenant_users(key)
SELECT
    (SELECT count(*) FROM things WHERE tenant = :key),
    (SELECT count(*) FROM tokens WHERE tenant = :key AND revoked_at_us IS NULL),
    (SELECT count(*) FROM grounds WHERE tenant = :key AND key <> 'default'),
    (SELECT count(*) FROM definitions WHERE tenant = :key AND key NOT IN ('thing', 'gateway', 'module')),
    (SELECT count(*) FROM roles WHERE tenant = :key),
    (SELECT count(*) FROM licenses WHERE tenant = :key),
    (SELECT count(*) FROM admin_keys WHERE tenant = :key);

-- name: admin_keys_of(tenant)
SELECT id FROM admin_keys WHERE tenant = :tenant;

-- name: delete_tenant_things(tenant)!
DELETE FROM things WHERE tenant = :tenant;

-- name: delete_tenant_retired(tenant)!
DELETE FROM retired WHERE tenant = :tenant;

-- name: delete_tenant_tokens(tenant)!
DELETE FROM tokens WHERE tenant = :tenant;

-- name: delete_tenant_admin_keys(tenant)!
DELETE FROM admin_keys WHERE tenant = :tenant;

-- name: delete_tenant_licenses(tenant)!
DELETE FROM licenses WHERE tenant = :tenant;

-- name: delete_tenant_roles(tenant)!
DELETE FROM roles WHERE tenant = :tenant;

-- name: delete_tenant_definitions(tenant)!
DELETE FROM definitions WHERE tenant = :tenant;

-- name: delete_tenant_grounds(tenant)!
DELETE FROM grounds WHERE tenant = :tenant;

-- name: delete_tenant(tenant)!
DELETE FROM tenants WHERE key = :tenant;

-- name: insert_ground(tenant, key, name, now_us)!
INSERT INTO grounds (tenant, key, name, created_at_us) VALUES (:tenant, :key, :name, :now_us);

-- name: grounds(tenant, after, q, rows)
-- One page in key order, with one row more than asked for when there is another page. `q` is casefolded.
SELECT tenant, key, name, created_at_us
FROM grounds
WHERE tenant = :tenant AND key > :after
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_ground(name, tenant, key)!
UPDATE grounds SET name = :name WHERE tenant = :tenant AND key = :key;

-- name: delete_ground(tenant, key)!
DELETE FROM grounds WHERE tenant = :tenant AND key = :key;

-- name: insert_definition(tenant, key, name, kind, rules, bind_client_id, module_definition, module_auto_register, now_us)!
INSERT INTO definitions (tenant, key, name, kind, rules, bind_client_id, module_definition, module_auto_register, created_at_us)
VALUES (
    :tenant, :key, :name, :kind, :rules, :bind_client_id, :module_definition, :module_auto_register, :now_us
);

-- name: definitions(tenant, after, q, rows)
-- One page in key order, with one row more than asked for when there is another page. `q` is casefolded.
SELECT tenant, key, name, kind, rules, bind_client_id, module_definition, module_auto_register, created_at_us
FROM definitions
WHERE tenant = :tenant AND key > :after
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_definition(name, kind, rules, bind_client_id, module_definition, module_auto_register, tenant, key)!
UPDATE definitions
SET name = :name, kind = :kind, rules = :rules, bind_client_id = :bind_client_id,
    module_definition = :module_definition, module_auto_register = :module_auto_register
WHERE tenant = :tenant AND key = :key;

-- name: definitions_naming(tenant, key)
-- Definitions whose gateways register modules of this one.
SELECT key FROM definitions WHERE tenant = :tenant AND module_definition = :key AND key <> :key;

-- name: forget_module_definition(tenant, key)!
UPDATE definitions SET module_definition = '', module_auto_register = 0
WHERE tenant = :tenant AND module_definition = :key;

-- name: delete_definition(tenant, key)!
DELETE FROM definitions WHERE tenant = :tenant AND key = :key;

-- name: insert_role(tenant, key, name, rules, permissions, now_us)!
INSERT INTO roles (tenant, key, name, rules, permissions, created_at_us) VALUES (:tenant, :key, :name, :rules, :permissions, :now_us);

-- name: roles(tenant, after, q, rows)
-- One page in key order, with one row more than asked for when there is another page. `q` is casefolded.
SELECT tenant, key, name, rules, permissions, created_at_us
FROM roles
WHERE tenant = :tenant AND key > :after
    AND (:q = '' OR instr(fold(key), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_role(name, rules, permissions, tenant, key)!
UPDATE roles SET name = :name, rules = :rules, permissions = :permissions WHERE tenant = :tenant AND key = :key;

-- name: delete_role(tenant, key)!
DELETE FROM roles WHERE tenant = :tenant AND key = :key;

-- name: insert_license(tenant, key, seats, now_us)!
INSERT INTO licenses (tenant, key, seats, used, created_at_us) VALUES (:tenant, :key, :seats, 0, :now_us);

-- name: licenses(tenant, after, q, rows)
-- Licences have no name: `q` is a part of the key.
SELECT tenant, key, seats, used, created_at_us
FROM licenses
WHERE tenant = :tenant AND key > :after AND (:q = '' OR instr(fold(key), :q) > 0)
ORDER BY key
LIMIT :rows;

-- name: update_license(seats, tenant, key)!
UPDATE licenses SET seats = :seats WHERE tenant = :tenant AND key = :key;

-- name: delete_license(tenant, key)!
DELETE FROM licenses WHERE tenant = :tenant AND key = :key;

-- name: insert_admin_key(id, name, tenant, role, prefix, now_us, digest)!
INSERT INTO admin_keys (id, name, tenant, role, prefix, created_at_us, digest) VALUES (:id, :name, :tenant, :role, :prefix, :now_us, :digest);

-- name: admin_key(id)
SELECT id, name, tenant, role, prefix, created_at_us
FROM admin_keys
WHERE id = :id;

-- name: admin_key_with_digest(id, digest)
SELECT id, name, tenant, role, prefix, created_at_us
FROM admin_keys
WHERE id = :id AND digest = :digest;

-- name: admin_keys(after, tenant, q, rows)
-- All of them, or one tenant's.
SELECT id, name, tenant, role, prefix, created_at_us
FROM admin_keys
WHERE id > :after AND (:tenant IS NULL OR tenant = :tenant)
    AND (:q = '' OR instr(fold(id), :q) > 0 OR instr(fold(name), :q) > 0)
ORDER BY id
LIMIT :rows;

-- name: delete_admin_key(id)!
DELETE FROM admin_keys WHERE id = :id;
