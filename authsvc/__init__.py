"""Authentication and authorisation for an MQTT broker: who is connecting, what is it, and what may it do.

    CONNECT ─► `broker` (the gate) ─► `service` ─► `core` decides on records of the `store` ─► a Grant, in memory
    operator ─► `cli` ─► `web` (``/v1``) ─► `store` ─► change rows ─► `changes` ─► caches, grants, sessions

`run` puts the parts together and takes them apart; `core` knows none of the others.
"""
