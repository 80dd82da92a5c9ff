"""A broker behind the gate over TCP, Mosquitto for example, on a private listener that only the gate reaches.

Each client has a `link` of its own: CONNECT goes out, the broker's CONNACK comes back, then bytes both ways as they
are. A `service` connection beside them wipes sessions and clears retained messages; `upstream` opens and counts both.
"""

from broker.tcp.upstream import TcpUpstream

__all__ = ["TcpUpstream"]
