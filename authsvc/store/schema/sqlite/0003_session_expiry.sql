-- MQTT 5.0 gives a session a time to live after its connection (3.1.2.11.2); NULL is for ever, as in 3.1.1.
ALTER TABLE upstream_sessions ADD COLUMN expiry_s BIGINT;
ALTER TABLE upstream_sessions ADD COLUMN expires_at_us BIGINT;
CREATE INDEX upstream_sessions_by_end ON upstream_sessions (expires_at_us) WHERE expires_at_us IS NOT NULL;
