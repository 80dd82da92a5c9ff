-- Persistent sessions of the broker behind the gate, and what is still to be cleared there.

-- name: upstream_session(principal, client_id)
SELECT principal, client_id, upstream_id, tenant, thing, ground, token_id, secret_id, since_us, expiry_s, expires_at_us
FROM upstream_sessions
WHERE principal = :principal AND client_id = :client_id;

-- name: persistent_ids(principal, now_us)
-- What has expired counts no more, though its row may wait to be wiped.
SELECT upstream_id FROM upstream_sessions
WHERE principal = :principal AND (expires_at_us IS NULL OR expires_at_us > :now_us);

-- name: keep_upstream_session(principal, client_id, upstream_id, tenant, thing, ground, token_id, secret_id, since_us, expiry_s)!
-- Creates the row, or rests the existing one on the secret that opens it now; it keeps its upstream id and its time.
-- Only while token, secret and tenant stand: who was revoked a moment ago must leave no row behind.
INSERT INTO upstream_sessions (
    principal, client_id, upstream_id, tenant, thing, ground, token_id, secret_id, since_us, expiry_s)
SELECT :principal, :client_id, :upstream_id, :tenant, :thing, :ground, :token_id, :secret_id, :since_us, :expiry_s
FROM secrets AS s JOIN tokens AS t ON t.id = s.token_id JOIN tenants AS n ON n.key = t.tenant
WHERE s.id = :secret_id AND t.id = :token_id AND s.revoked_at_us IS NULL AND t.revoked_at_us IS NULL
    AND n.key = :tenant AND n.state = 'active'
    AND (:thing = '' OR EXISTS (
        SELECT 1 FROM things AS h WHERE h.tenant = :tenant AND h.key = :thing AND h.state = 'active'))
ON CONFLICT (principal, client_id) DO UPDATE SET
    thing = excluded.thing, ground = excluded.ground, token_id = excluded.token_id, secret_id = excluded.secret_id,
    expiry_s = excluded.expiry_s, expires_at_us = NULL;

-- name: note_session_expiry(upstream_id, expiry_s, expires_at_us)!
UPDATE upstream_sessions SET expiry_s = :expiry_s, expires_at_us = :expires_at_us WHERE upstream_id = :upstream_id;

-- name: leave_all_sessions(now_us)!
-- At a start nobody is connected: whose end was not written is taken to have ended now.
UPDATE upstream_sessions SET expires_at_us = :now_us + expiry_s * 1000000
WHERE expiry_s IS NOT NULL AND expires_at_us IS NULL;

-- name: expired_sessions(before_us, rows)
SELECT tenant, principal, client_id FROM upstream_sessions WHERE expires_at_us < :before_us LIMIT :rows;

-- name: list_wiped_by_client(now_us, principal, client_id)!
INSERT INTO clearings (kind, target, since_us)
SELECT 'session', upstream_id, :now_us FROM upstream_sessions WHERE principal = :principal AND client_id = :client_id;

-- name: wipe_by_client(principal, client_id)!
DELETE FROM upstream_sessions WHERE principal = :principal AND client_id = :client_id;

-- name: list_wiped_by_token(now_us, token_id)!
INSERT INTO clearings (kind, target, since_us)
SELECT 'session', upstream_id, :now_us FROM upstream_sessions WHERE token_id = :token_id;

-- name: wipe_by_token(token_id)!
DELETE FROM upstream_sessions WHERE token_id = :token_id;

-- name: list_wiped_by_thing(now_us, tenant, thing)!
INSERT INTO clearings (kind, target, since_us)
SELECT 'session', upstream_id, :now_us FROM upstream_sessions WHERE tenant = :tenant AND thing = :thing AND thing <> '';

-- name: wipe_by_thing(tenant, thing)!
DELETE FROM upstream_sessions WHERE tenant = :tenant AND thing = :thing AND thing <> '';

-- name: list_wiped_by_tenant(now_us, tenant)!
INSERT INTO clearings (kind, target, since_us)
SELECT 'session', upstream_id, :now_us FROM upstream_sessions WHERE tenant = :tenant;

-- name: wipe_by_tenant(tenant)!
DELETE FROM upstream_sessions WHERE tenant = :tenant;

-- name: add_clearing(kind, target, now_us)!
INSERT INTO clearings (kind, target, since_us) VALUES (:kind, :target, :now_us);

-- name: clearings(rows)
SELECT id, kind, target, since_us FROM clearings ORDER BY id LIMIT :rows;

-- name: cleared(id)!
DELETE FROM clearings WHERE id = :id;

-- name: forget_upstream_sessions()!
DELETE FROM upstream_sessions;

-- name: forget_clearings()!
DELETE FROM clearings;
