"""A broker that `authsvc up --broker mosquitto|rumqttd` runs by itself, as a child that nobody else reaches.

    choice (which, and why) ─► mosquitto | rumqttd (a configuration in a 0700 directory, a `ManagedUpstream`)
    upstream: child.Child starts, watches, restarts and stops it by `launch` ─► tcp.TcpUpstream connects to it

The child dies with this process, however that dies, and there are never two on one directory.
"""
