-- Sessions on attached brokers.

-- name: attached_sessions(broker)
SELECT broker, client_id, principal, tenant, thing, ground, token_id, secret_id, username, peer, held, since_us, gone_us
FROM attached_sessions
WHERE broker = :broker
ORDER BY client_id;

-- name: keep_attached_session(broker, client_id, principal, tenant, thing, ground, token_id, secret_id, username, peer, held, since_us, gone_us, former)!
-- Creates the row, or replaces that of the same principal or of the one that is known to have left (:former).
-- Only while token, secret and tenant stand: who was revoked a moment ago must leave no row behind.
INSERT INTO attached_sessions (
    broker, client_id, principal, tenant, thing, ground, token_id, secret_id, username, peer, held, since_us, gone_us
)
SELECT
    :broker, :client_id, :principal, :tenant, :thing, :ground, :token_id, :secret_id, :username, :peer, :held,
    :since_us, :gone_us
FROM secrets AS s JOIN tokens AS t ON t.id = s.token_id JOIN tenants AS n ON n.key = t.tenant
WHERE s.id = :secret_id AND t.id = :token_id AND s.revoked_at_us IS NULL AND t.revoked_at_us IS NULL
    AND n.key = :tenant AND n.state = 'active'
    AND (:thing = '' OR EXISTS (
        SELECT 1 FROM things AS h WHERE h.tenant = :tenant AND h.key = :thing AND h.state = 'active'))
ON CONFLICT (broker, client_id) DO UPDATE SET
    principal = excluded.principal, tenant = excluded.tenant, thing = excluded.thing, ground = excluded.ground,
    token_id = excluded.token_id, secret_id = excluded.secret_id, username = excluded.username, peer = excluded.peer,
    held = excluded.held, since_us = excluded.since_us, gone_us = excluded.gone_us
WHERE attached_sessions.principal = excluded.principal OR attached_sessions.principal = :former;

-- name: leave_attached_session(broker, client_id, gone_us)!
UPDATE attached_sessions SET gone_us = :gone_us WHERE broker = :broker AND client_id = :client_id;

-- name: forget_attached_session(broker, client_id)!
DELETE FROM attached_sessions WHERE broker = :broker AND client_id = :client_id;

-- name: free_attached_session(broker, client_id, principal)!
-- Another principal's row, whose client id this one has by now.
DELETE FROM attached_sessions WHERE broker = :broker AND client_id = :client_id AND principal <> :principal;

-- name: forget_other_brokers(kept)!
-- Rows of brokers that are configured no more; :kept is a JSON list of names.
DELETE FROM attached_sessions WHERE broker NOT IN (SELECT value FROM json_each(:kept));

-- name: secret(id)
SELECT id, token_id, digest, expires_at_us, revoked_at_us
FROM secrets
WHERE id = :id;
