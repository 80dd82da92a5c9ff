"""amqtt in this process, behind the gate: no socket between the two, and no listener that anybody else could reach.

What the gate writes to an `upstream` link waits in its `inbox`. By `feeding` it goes into amqtt through `memory`, a few
packets a turn (PUBLISH past it, by `broker` and `filters`), and what amqtt's `session` writes comes back through the
`link` to its owner. `bounds` holds what amqtt leaves without a bound; `packets` knows where packets end.
"""

from broker.embedded.upstream import AmqttUpstream

__all__ = ["AmqttUpstream"]
