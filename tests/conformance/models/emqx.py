"""EMQX 5.8 and newer, as `authsvc config emqx` sets it up: HTTP authenticator, HTTP authorizer, nothing else allowed.

Paths are of emqx/emqx, branch master of August 2026.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.conformance.models.mini import Link, MiniBroker, matches

CLIENTS = "/api/v5/clients"
NOT_AUTHORIZED = {3: 5, 4: 5, 5: 0x87}  # emqx_reason_codes:compat/2
OLD_REFUSAL = 0x80  # of a SUBACK before MQTT 5: emqx_reason_codes:compat(suback, …)


@dataclass
class Admitted:
    """What the connection keeps of the authenticator's answer, for as long as it lives."""

    rules: list[dict[str, Any]]
    expire_at: int | None


class Emqx:
    """The policy of EMQX."""

    # apps/emqx/src/emqx_channel.erl, handle_in(CONNECT): authenticate first, then emqx_cm:open_session
    takes_over_before_asking = False
    # emqx_channel.erl, process_kick/1: maybe_publish_will_msg(kicked, …), "the will message MUST be published"
    will_on_kick = True
    delayed_will_on_kick = True  # the same: "if the willmsg timer is scheduled but not fired"
    will_delays = True  # emqx_channel.erl, maybe_publish_will_msg/2: the timer `will_message`
    denies_silently = frozenset[int]()

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.broker = MiniBroker(self)

    async def admit(self, link: Link) -> int:
        """apps/emqx_auth_http/src/emqx_authn_http.erl: only 200 with `allow` lets in."""
        hello = link.hello
        body = {
            "clientid": hello.client_id,
            "username": hello.username,
            "password": hello.password,
            "peerhost": "127.0.0.1",
        }
        answer = await self._ask("authn", body)
        if answer.get("result") != "allow" or answer.get("is_superuser"):
            assert not answer.get("is_superuser"), "nobody is above the rules"
            return NOT_AUTHORIZED[link.level]
        expire_at = answer.get("expire_at")
        if expire_at is not None and (type(expire_at) is not int or expire_at < int(time.time())):
            # expire_sec/1 throws: bad_username_or_password
            return 4 if link.level < 5 else 0x86
        link.state = Admitted(answer.get("acl", []), expire_at)
        if expire_at is not None:
            # emqx_channel.erl, handle_timeout `connection_auth_expire`: DISCONNECT not authorized, the will sent
            self.broker.spawn(self._expire(link, expire_at))
        return 0

    async def _expire(self, link: Link, expire_at: int) -> None:
        await asyncio.sleep(max(0.0, expire_at - time.time()))
        await self.broker.end(link, code=0x87, will=True)

    async def admit_will(self, link: Link) -> int:
        """emqx_channel.erl: the will is kept after authentication and looked at only when it is published."""
        return 0

    async def may_publish(self, link: Link, topic: str, payload: str, *, qos: int, retain: bool) -> bool:
        return await self._authorized(link, "publish", topic, qos=qos, retain=retain)

    async def will_may_fire(self, link: Link) -> bool:
        """emqx_channel.erl, prepare_will_message_for_publishing/2: authorized as a publish by the connection's acl."""
        assert link.hello.will is not None
        topic, _, qos, retain, _ = link.hello.will
        return await self._authorized(link, "publish", topic, qos=qos, retain=retain)

    async def may_receive(self, link: Link, topic: str) -> bool:
        """emqx_channel.erl asks at SUBSCRIBE only."""
        return True

    def denied(self, link: Link) -> int | None:
        """emqx_channel.erl, process_publish/2 with `authorization.deny_action = ignore`: PUBACK or PUBREC 0x87.

        Before MQTT 5 an acknowledgement has no code.
        """
        return 0x87 if link.level == 5 else 0

    async def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> list[int]:
        """emqx_channel.erl, do_check_sub_authzs2/3: each by itself, of a shared one the real topic; no lower QoS."""
        codes = []
        for topic_filter, qos in filters:
            real = topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter
            allowed = await self._authorized(link, "subscribe", real, qos=qos, retain=False)
            codes.append(qos if allowed else 0x87 if link.level == 5 else OLD_REFUSAL)
        return codes

    async def left(self, link: Link, *, keeps: bool) -> None:
        """EMQX tells nobody by these hooks."""

    async def manage(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """apps/emqx_management/src/emqx_mgmt_api_clients.erl: look at, list and kick clients, those at rest included.

        A kick destroys the session (emqx_channel.erl, process_kick/1).
        """
        if path == f"{CLIENTS}/kickout/bulk" and method == "POST":
            for client_id in body:
                await self.broker.kick(client_id, wipe=True)
            return 204, None
        if path.startswith(f"{CLIENTS}/"):
            client_id = path.removeprefix(f"{CLIENTS}/")
            if method == "DELETE":
                found = await self.broker.kick(client_id, wipe=True)
                return (204, None) if found else (404, {"code": "CLIENTID_NOT_FOUND"})
            kept = self.broker.sessions.get(client_id)
            return (200, self._shown(client_id)) if kept else (404, {"code": "CLIENTID_NOT_FOUND"})
        if path == CLIENTS:
            connected = query.get("conn_state") == ["connected"]
            listed = [
                self._shown(client_id)
                for client_id, kept in self.broker.sessions.items()
                if not connected or kept.link is not None
            ]
            limit = int(query.get("limit", ["100"])[0])
            page = int(query.get("page", ["1"])[0])
            part = listed[(page - 1) * limit : page * limit]
            meta = {"page": page, "limit": limit, "count": len(listed), "hasnext": page * limit < len(listed)}
            return 200, {"data": part, "meta": meta}
        return 404, {"code": "NOT_FOUND"}

    def _shown(self, client_id: str) -> dict[str, Any]:
        return {"clientid": client_id, "connected": self.broker.sessions[client_id].link is not None}

    async def _authorized(self, link: Link, action: str, topic: str, *, qos: int, retain: bool) -> bool:
        """apps/emqx_auth/src/emqx_authz: the acl of the answer first, then HTTP, then `no_match = deny`."""
        held = link.state
        assert isinstance(held, Admitted)
        # sources/emqx_authz_client_info.erl, check/2: an acl that expired denies everything
        if held.expire_at is not None and held.expire_at < int(time.time()):
            return False
        for rule in held.rules:  # first match wins; no match falls through
            if _says(rule, action, topic, qos=qos, retain=retain):
                return bool(rule["permission"] == "allow")
        body = {
            "clientid": link.client_id,
            "username": link.hello.username,
            "action": action,
            "topic": topic,
            "qos": str(qos),
            "retain": str(retain).lower(),
        }
        return (await self._ask("authz", body)).get("result") == "allow"

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Anything but 200 with JSON is `ignore`, which at the end of the chain is a no (emqx_authn_http.erl)."""
        answer = await self._http.post(path, json=body)
        if answer.status_code != 200 or not answer.headers.get("content-type", "").startswith("application/json"):
            return {}
        parsed = answer.json()
        assert isinstance(parsed, dict)
        return parsed


def _says(rule: dict[str, Any], action: str, topic: str, *, qos: int, retain: bool) -> bool:
    """emqx_authz_rule.erl, match_action/2, match_topics/3. A filter of a SUBSCRIBE is matched as a topic."""
    if rule["action"] not in (action, "all"):
        return False
    if "qos" in rule and qos not in _numbers(rule["qos"]):
        return False
    if action == "publish" and rule.get("retain", "all") not in ("all", retain):
        return False
    return any(_matched(wanted, topic) for wanted in [*rule.get("topics", []), *filter(None, [rule.get("topic")])])


def _matched(wanted: str, topic: str) -> bool:
    if wanted.startswith("eq "):
        return wanted.removeprefix("eq ") == topic
    return matches(wanted, topic)  # emqx_topic:match/2: `#` and `+` do not match a first level with `$`


def _numbers(value: Any) -> list[int]:
    return [int(one) for one in (value if isinstance(value, list) else str(value).split(","))]
