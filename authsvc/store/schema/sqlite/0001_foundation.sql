-- Keys compare byte by byte: TEXT under SQLite's default BINARY collation. Times are UTC microseconds.
-- Lists of strings and rules are JSON text. '' stands for "none" in references, NULL for "no limit" and "never".

CREATE TABLE tenants (
    key TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
    created_at_us BIGINT NOT NULL
);

CREATE TABLE grounds (
    tenant TEXT NOT NULL REFERENCES tenants (key),
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE definitions (
    tenant TEXT NOT NULL REFERENCES tenants (key),
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('thing', 'gateway', 'module')),
    rules TEXT NOT NULL,
    bind_client_id TEXT NOT NULL CHECK (bind_client_id IN ('app_token', 'always', 'never')),
    module_definition TEXT NOT NULL DEFAULT '',
    module_auto_register INTEGER NOT NULL DEFAULT 0,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- tenant '' holds the platform roles, so there is no reference to tenants here.
CREATE TABLE roles (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    rules TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- seats may be lowered below used (then nobody new is admitted), so used <= seats is settled by the taking statement.
CREATE TABLE licenses (
    tenant TEXT NOT NULL REFERENCES tenants (key),
    key TEXT NOT NULL,
    seats BIGINT NOT NULL CHECK (seats >= 0),
    used BIGINT NOT NULL DEFAULT 0 CHECK (used >= 0),
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (key),
    kind TEXT NOT NULL CHECK (kind IN ('app', 'dev', 'gnd')),
    name TEXT NOT NULL,
    expires_at_us BIGINT,
    revoked_at_us BIGINT,
    created_at_us BIGINT NOT NULL,
    prefix TEXT NOT NULL,
    definition TEXT NOT NULL DEFAULT '',
    ground TEXT NOT NULL DEFAULT '',
    roles TEXT NOT NULL DEFAULT '[]',
    tags TEXT NOT NULL DEFAULT '[]',
    security_tags TEXT NOT NULL DEFAULT '[]',
    license TEXT NOT NULL DEFAULT '',
    auto_register INTEGER NOT NULL DEFAULT 0,
    max_things BIGINT CHECK (max_things >= 0),
    registered BIGINT NOT NULL DEFAULT 0 CHECK (registered >= 0),
    thing TEXT NOT NULL DEFAULT '',
    access TEXT NOT NULL DEFAULT 'read' CHECK (access IN ('read', 'write', 'read_write'))
);
CREATE INDEX tokens_by_tenant ON tokens (tenant, kind, id);
CREATE INDEX tokens_by_thing ON tokens (tenant, thing) WHERE thing <> '';

CREATE TABLE secrets (
    id TEXT NOT NULL PRIMARY KEY,
    token_id TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    expires_at_us BIGINT,
    revoked_at_us BIGINT
);
CREATE INDEX secrets_by_token ON secrets (token_id);

CREATE TABLE things (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    definition TEXT NOT NULL,
    ground TEXT NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]',
    security_tags TEXT NOT NULL DEFAULT '[]',
    state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'blocked')),
    token_id TEXT NOT NULL DEFAULT '',
    license TEXT NOT NULL DEFAULT '',
    gateway TEXT NOT NULL DEFAULT '',
    client_id TEXT,
    first_seen_us BIGINT,
    last_seen_us BIGINT,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key),
    FOREIGN KEY (tenant, definition) REFERENCES definitions (tenant, key),
    FOREIGN KEY (tenant, ground) REFERENCES grounds (tenant, key)
);
CREATE INDEX things_by_ground ON things (tenant, ground, key);
CREATE INDEX things_by_definition ON things (tenant, definition);
CREATE INDEX things_by_gateway ON things (tenant, gateway, key) WHERE gateway <> '';
CREATE INDEX things_by_license ON things (tenant, license) WHERE license <> '';

-- Keys of deleted things: no token brings them back until an operator creates or forgets them.
CREATE TABLE retired (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE upstream_sessions (
    principal TEXT NOT NULL,
    client_id TEXT NOT NULL,
    upstream_id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    thing TEXT NOT NULL,
    ground TEXT NOT NULL,
    token_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    PRIMARY KEY (principal, client_id)
);
CREATE INDEX upstream_sessions_by_secret ON upstream_sessions (secret_id);
CREATE INDEX upstream_sessions_by_token ON upstream_sessions (token_id);
CREATE INDEX upstream_sessions_by_thing ON upstream_sessions (tenant, thing);

CREATE TABLE clearings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('session', 'retained')),
    target TEXT NOT NULL,
    since_us BIGINT NOT NULL
);

CREATE TABLE admin_keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    tenant TEXT REFERENCES tenants (key),
    role TEXT NOT NULL CHECK (role IN ('owner', 'operator', 'viewer')),
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    prefix TEXT NOT NULL,
    created_at_us BIGINT NOT NULL
);

-- AUTOINCREMENT: a position is never given twice, whatever was deleted.
CREATE TABLE changes (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us BIGINT NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    op TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX changes_by_time ON changes (at_us);

CREATE TABLE change_readers (
    name TEXT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    at_us BIGINT NOT NULL
);

-- One row, rewritten to learn whether the file can be written again.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_us BIGINT NOT NULL
);
INSERT INTO heartbeat (id, at_us) VALUES (1, 0);
