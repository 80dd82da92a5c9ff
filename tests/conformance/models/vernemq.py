"""VerneMQ 2 with its webhooks, as `authsvc config vernemq` sets it up. Paths are of vernemq/vernemq, August 2026."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from tests.conformance.models.mini import Link, MiniBroker

REFUSED = {3: 5, 4: 5, 5: 0x87}  # apps/vmq_server/src/vmq_mqtt_fsm.erl: CONNACK_AUTH; vmq_mqtt5_fsm.erl: NOT_AUTHORIZED


class VerneMQ:
    """The policy of VerneMQ: `allow_anonymous = off`, six webhooks, nothing cached."""

    takes_over_before_asking = False  # vmq_mqtt_fsm.erl, check_user/2: auth_on_register, then register_subscriber
    # vmq_queue.erl, force_disconnect with cleanup ends the queue; vmq_mqtt_fsm.erl, queue_down_terminate/2, terminate/2
    # and maybe_publish_last_will/2, which spares a client's own DISCONNECT only
    will_on_kick = True
    delayed_will_on_kick = False  # it waits in the queue process, which the clean-up ends: vmq_queue.erl, terminate/3
    # vmq_mqtt5_fsm.erl, schedule_last_will_msg/1; vmq_server.schema: `max_last_will_delay` is the client's by default
    will_delays = True
    denies_silently = frozenset[int]()

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.broker = MiniBroker(self)

    async def admit(self, link: Link) -> int:
        """apps/vmq_webhooks/src/vmq_webhooks_plugin.erl, auth_on_register/5 and auth_on_register_m5/6."""
        hello = link.hello
        body: dict[str, Any] = {
            "peer_addr": "127.0.0.1",
            "peer_port": 40000,
            "mountpoint": "",
            "client_id": hello.client_id,
            "username": hello.username,
            "password": hello.password,
        }
        if link.level == 5:
            expiry = {"p_session_expiry_interval": hello.expiry_s} if hello.expiry_s else {}
            body |= {"clean_start": hello.clean, "properties": expiry}
        else:
            body["clean_session"] = hello.clean
        answer = await self._ask(link, "auth_on_register", body)
        if answer.get("result") != "ok":
            return REFUSED[link.level]
        lifetime_s = _modifiers(answer).get("max_connection_lifetime", 0)
        if lifetime_s:
            self.broker.spawn(self._expire(link, lifetime_s))
        return 0

    async def _expire(self, link: Link, lifetime_s: float) -> None:
        """vmq_mqtt5_fsm.erl, `disconnect_max_conn_lifetime`: an administrative action; the will is published."""
        await asyncio.sleep(lifetime_s)
        await self.broker.end(link, code=0x98, will=True)

    async def admit_will(self, link: Link) -> int:
        """vmq_mqtt_fsm.erl, check_will/3: auth_on_publish, once, after the subscriber is registered."""
        assert link.hello.will is not None
        topic, payload, qos, retain, _ = link.hello.will
        allowed = await self.may_publish(link, topic, payload, qos=qos, retain=retain)
        return 0 if allowed else REFUSED[link.level]

    async def will_may_fire(self, link: Link) -> bool:
        """vmq_mqtt_fsm.erl, maybe_publish_last_will/2: published without asking again."""
        return True

    async def may_publish(self, link: Link, topic: str, payload: str, *, qos: int, retain: bool) -> bool:
        """vmq_mqtt_fsm.erl, connected(PUBLISH): a topic that begins with `$` is dropped, without a word to anybody."""
        if topic.startswith("$"):
            return False
        body: dict[str, Any] = {  # `no_payload = on`
            "username": link.hello.username,
            "mountpoint": "",
            "client_id": link.client_id,
            "qos": qos,
            "topic": topic,
            "retain": retain,
        }
        if link.level == 5:
            body["properties"] = {}
        answer = await self._ask(link, "auth_on_publish", body)
        return answer.get("result") == "ok" and not _modifiers(answer)

    async def may_receive(self, link: Link, topic: str) -> bool:
        """vmq_plugin: on_deliver can change a message, not withhold it; it is not used."""
        return True

    def denied(self, link: Link) -> int | None:
        """dispatch_publish_qos1/3: 3.1 is told that all is well, 3.1.1 ends; vmq_mqtt5_fsm.erl: 0x87."""
        return {3: 0, 4: None, 5: 0x87}[link.level]

    async def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> list[int]:
        """auth_on_subscribe: the raw filters; the answer's topics replace them, 128 (m5: 135) for a refused one."""
        body: dict[str, Any] = {
            "username": link.hello.username,
            "mountpoint": "",
            "client_id": link.client_id,
            "topics": [{"topic": topic_filter, "qos": qos} for topic_filter, qos in filters],
        }
        if link.level == 5:
            body["properties"] = {}
        answer = await self._ask(link, "auth_on_subscribe", body)
        refused = 0x87 if link.level == 5 else 0x80
        if answer.get("result") != "ok":
            return [refused] * len(filters)
        topics = (_modifiers(answer) if link.level == 5 else answer).get("topics")
        if not topics:
            return [qos for _, qos in filters]
        assert [each["topic"] for each in topics] == [topic_filter for topic_filter, _ in filters]
        return [each["qos"] if each["qos"] in (0, 1, 2) else refused for each in topics]

    async def left(self, link: Link, *, keeps: bool) -> None:
        """The printed configuration sets none of the hooks that would tell."""

    async def manage(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """apps/vmq_server/src/vmq_info_cli.erl over vmq_http_mgmt_api.erl: session disconnect and session show."""
        (client_id,) = query.get("client-id") or query.get("--client_id") or [""]
        if path.endswith("/session/disconnect"):
            await self.broker.kick(client_id, wipe="--cleanup" in query)
            return 200, {"type": "text", "text": "Done"}
        if path.endswith("/session/show"):
            online = [True] if query.get("--is_online") == ["true"] else [True, False]
            shown = [
                {"client_id": kept.client_id, "is_online": kept.link is not None}
                for kept in self.broker.sessions.values()
                if client_id in ("", kept.client_id) and (kept.link is not None) in online
            ]
            return 200, {"type": "table", "table": shown}
        return 404, None

    async def _ask(self, link: Link, hook: str, body: dict[str, Any]) -> dict[str, Any]:
        """vmq_webhooks_plugin.erl: POST, JSON, header `vernemq-hook`; all but 200 with JSON refuses."""
        name = f"{hook}_m5" if link.level == 5 else hook
        answer = await self._http.post(str(self._http.base_url).rstrip("/"), json=body, headers={"vernemq-hook": name})
        if answer.status_code != 200:
            return {}
        # a cached answer would outlive the right it speaks of: nothing but register may be kept, and that not at all
        assert "max-age=" not in answer.headers.get("cache-control", "") or answer.headers["cache-control"].endswith(
            "=0"
        )
        parsed = answer.json()
        assert isinstance(parsed, dict)
        return parsed


def _modifiers(answer: dict[str, Any]) -> dict[str, Any]:
    found = answer.get("modifiers") or {}
    assert isinstance(found, dict)
    return found
