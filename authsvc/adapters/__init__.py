"""How brokers that stand by themselves ask: their HTTP hooks, answered from the same grants as the gate's packets.

    broker ─► routes (caller, strict parsing) ─► an adapter's handler ─► Attached.connect / decide ─► the answer in the
    broker's own words                    change, expiry, kick ─► HookConnection ─► Kicks ─► Management ─► the broker

`adapter` says what a module such as ``emqx`` gives; `attached` is one attached broker; `rows` is what is remembered of
its sessions over a restart.
"""
