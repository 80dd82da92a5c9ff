"""Fleets of gateways, modules and applications, honest and hostile, over real connections, judged by the far end.

    scenarios  TOML ─► Scenario        provision  what a run needs, made through the public HTTP API
    shape      Scenario + seed ─► Plan (ids, payloads, times: the same for the same seed)
    runner     plays the Plan: gateways and attackers on `client`, applications and witnesses on aiomqtt
    ledger     what was sent, acknowledged, received, refused and lost, with monotonic times
    oracle     Plan + ledger ─► expectations, each beside what was observed
    report     the verdict as a table and as JSON

Nobody judges his own work: a message counts as delivered when a witness with its own connection has received it.
"""
