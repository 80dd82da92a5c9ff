-- Sessions on brokers that ask by hooks: whose each client id is there, and what its connection rests on.

CREATE TABLE attached_sessions (
    broker TEXT NOT NULL,
    client_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    tenant TEXT NOT NULL,
    thing TEXT NOT NULL,
    ground TEXT NOT NULL,
    token_id TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    username TEXT NOT NULL,
    peer TEXT NOT NULL,
    held TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    gone_us BIGINT,
    PRIMARY KEY (broker, client_id)
);
