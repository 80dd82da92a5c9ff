"""The gate in front of an MQTT broker, and the brokers behind it.

    socket ─► listeners (tls, websocket) ─► gate ─► connection: arrival ─► admission ─► flow
    flow:   client ─► inbound ─► upstream.Link ─► embedded | tcp ─► outbound ─► client      (`stream` scans both ways)

Packets are read and written by `wire`; wills, retained messages, clearings and limits have a module each. `plugin`
stands alone: it serves an amqtt that somebody else runs, without the gate.
"""
