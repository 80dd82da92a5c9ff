"""NanoMQ 0.24 and newer with `auth_http`, as `authsvc config nanomq` sets it up; its management cannot end a client.

Paths are of nanomq/nanomq and nanomq/NanoNNG, August 2026.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from tests.conformance.models.mini import Link, MiniBroker

REFUSED = {3: 5, 4: 5, 5: 0x87}  # NanoNNG src/sp/protocol/mqtt/nmq_mqtt.c: "send connack with reason code 0x05"
STATUS = "$SYS/brokers/client_status/"


class NanoMQ:
    """The policy of NanoMQ: `auth_req` and `acl_req`, no `super_req`, `cache_ttl = 0`, no ACL file."""

    # NanoNNG src/sp/transport/mqtt/broker_tcp.c calls nni_pipe_set_pid when the CONNECT is parsed, and src/core/pipe.c
    # there closes the pipe of the same client id; auth_req is asked later, in nmq_mqtt.c
    takes_over_before_asking = True
    will_on_kick = delayed_will_on_kick = True  # nobody kicks
    will_delays = True
    denies_silently = frozenset[int]()

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.broker = MiniBroker(self)

    async def admit(self, link: Link) -> int:
        """NanoNNG src/sp/protocol/mqtt/auth_http.c, nmq_auth_http_connect: 200 allows, everything else refuses."""
        body = {
            "clientid": link.client_id,
            "username": link.hello.username,
            "password": link.hello.password,
            "ipaddress": "127.0.0.1",
        }
        if not await self._ask("auth", body):
            return REFUSED[link.level]
        # nanomq/apps/broker.c publishes the client's status in its name, which goes through acl_req as well
        await self._ask("acl", {"clientid": link.client_id, "access": "2", "topic": STATUS + link.client_id})
        return 0

    async def admit_will(self, link: Link) -> int:
        """Not asked at CONNECT."""
        return 0

    async def will_may_fire(self, link: Link) -> bool:
        """nanomq/apps/broker.c: the will goes through handle_pub, which asks acl_req."""
        assert link.hello.will is not None
        topic, payload, qos, retain, _ = link.hello.will
        return await self.may_publish(link, topic, payload, qos=qos, retain=retain)

    async def may_publish(self, link: Link, topic: str, payload: str, *, qos: int, retain: bool) -> bool:
        """nanomq/pub_handler.c: acl_req of access 2; QoS and retain are not told."""
        return await self._ask("acl", {"clientid": link.client_id, "access": "2", "topic": topic})

    async def may_receive(self, link: Link, topic: str) -> bool:
        """Not asked: acl_req knows publish and subscribe."""
        return True

    def denied(self, link: Link) -> int | None:
        """nanomq/apps/broker.c: a code other than SUCCESS of handle_pub sets the work's state to CLOSE."""
        return None

    async def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> list[int]:
        """nanomq/sub_handler.c: all filters in one question, joined by commas, and one answer for all of them."""
        topics = ",".join(topic_filter for topic_filter, _ in filters)
        if await self._ask("acl", {"clientid": link.client_id, "access": "1", "topic": topics}):
            return [qos for _, qos in filters]
        return [0x80] * len(filters)  # NMQ_AUTH_SUB_ERROR

    async def left(self, link: Link, *, keeps: bool) -> None:
        """Tells nobody by these hooks."""

    async def _ask(self, path: str, form: dict[str, str]) -> bool:
        """auth_http.c writes a form as it is, nothing escaped; JSON is what the printed configuration uses."""
        return (await self._http.post(path, json=form)).status_code == 200
