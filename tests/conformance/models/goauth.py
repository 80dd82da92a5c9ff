"""Mosquitto 2.0 with mosquitto-go-auth 3, set up by the file that `authsvc config mosquitto-go-auth` prints.

`Plugin` asks as the plugin's HTTP backend does, `GoAuth` applies its verdicts as Mosquitto does. Paths are of
iegomez/mosquitto-go-auth (archived in June 2025) and of eclipse-mosquitto/mosquitto, branch release/2.0.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from enum import Enum
from urllib.parse import quote_plus

import httpx

from tests.conformance.driver import Closed
from tests.conformance.models.mini import Link, MiniBroker, matches

READ, WRITE, SUBSCRIBE = 1, 2, 4  # include/mosquitto_plugin.h: MOSQ_ACL_READ, _WRITE, _SUBSCRIBE
NOT_AUTHORIZED = {3: 5, 4: 5, 5: 0x87}  # src/handle_connect.c: CONNACK_REFUSED_NOT_AUTHORIZED, MQTT_RC_NOT_AUTHORIZED
IDENTIFIER_REJECTED = 2
AGENT = "mosquitto-2.0.20"  # backends/http.go: defaultUserAgent and Mosquitto's version


class Verdict(Enum):
    """go-auth.go: AuthRejected, AuthGranted, AuthError. auth-plugin.c makes an error of Mosquitto of the last one."""

    REJECTED = 0
    GRANTED = 1
    ERROR = 2


def options_of(conf: str) -> dict[str, str]:
    """Return what a mosquitto.conf sets, by key."""
    lines = [line.split(" ", 1) for line in conf.splitlines() if line and not line.startswith("#")]
    return {key: value for key, value in lines}


class Plugin:
    """The plugin with one backend, `http`, and without its cache: whatever is asked of it, it asks."""

    def __init__(self, http: httpx.AsyncClient, options: Mapping[str, str]) -> None:
        self._http = http
        self._options = {key.removeprefix("auth_opt_"): value for key, value in options.items()}
        for key, value in {
            "backends": "http",
            "cache": "false",
            "retry_count": "0",
            "use_clientid_as_username": "false",
            "check_prefix": "false",
            "http_method": "POST",
            "http_with_tls": "false",
        }.items():
            assert self._options[key] == value, f"`{key}` otherwise than {value} is not modelled"
        self._checks = {check.strip() for check in self._options["http_register"].split(",")}
        if self._options.get("disable_superuser") == "true":  # backends/backends.go, setCheckers
            self._checks.discard("superuser")

    async def unpwd_check(self, username: str | None, password: str, client_id: str) -> Verdict:
        """auth-plugin.c, mosquitto_auth_unpwd_check; backends/http.go, GetUser."""
        if username is None:
            return Verdict.REJECTED
        return await self._ask("getuser", {"username": username, "password": password, "clientid": client_id})

    async def acl_check(self, username: str, client_id: str, topic: str, access: int) -> Verdict:
        """backends/backends.go, checkSuperuserThenACL; backends/http.go, GetSuperuser and CheckAcl."""
        failed = Verdict.REJECTED
        if "superuser" in self._checks and "http_superuser_uri" in self._options:
            failed = await self._ask("superuser", {"username": username})
            if failed is Verdict.GRANTED:
                return failed
        fields: dict[str, str | int] = {"username": username, "clientid": client_id, "topic": topic, "acc": access}
        verdict = await self._ask("aclcheck", fields)
        return Verdict.ERROR if verdict is Verdict.REJECTED and failed is Verdict.ERROR else verdict

    async def _ask(self, what: str, fields: Mapping[str, str | int]) -> Verdict:
        """backends/http.go, httpRequest. User and password before the host become Basic authentication, as in Go."""
        options = self._options
        url = f"http://{options['http_host']}:{options['http_port']}{options[f'http_{what}_uri']}"
        if options.get("http_params_mode") == "form":
            content, headers = _form(fields), {"content-type": "application/x-www-form-urlencoded"}
        else:
            content, headers = _json(fields), {"content-type": "application/json", "user-agent": AGENT}
        try:
            answer = await self._http.post(url, content=content, headers=headers)
        except httpx.TransportError:
            return Verdict.ERROR
        if not 200 <= answer.status_code < 300:
            return Verdict.ERROR if answer.status_code >= 500 else Verdict.REJECTED
        mode = options.get("http_response_mode")
        if mode == "text":
            return Verdict.GRANTED if answer.text == "ok" else Verdict.REJECTED
        if mode == "json":
            try:
                said = json.loads(answer.text)
            except ValueError:
                return Verdict.ERROR
            return Verdict.GRANTED if said.get("ok") is True else Verdict.REJECTED
        return Verdict.GRANTED


def _json(fields: Mapping[str, str | int]) -> str:
    """Go's encoding/json: keys in order, no spaces, `<`, `>` and `&` escaped, other letters as they are."""
    text = json.dumps(dict(sorted(fields.items())), separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _form(fields: Mapping[str, str | int]) -> str:
    """Go's url.Values.Encode: keys in order, a space as `+`."""
    return "&".join(f"{key}={quote_plus(str(value))}" for key, value in sorted(fields.items()))


class GoAuth:
    """The policy of Mosquitto, which asks the plugin at CONNECT, publish, SUBSCRIBE and each delivery.

    One question after the other, of all clients: Mosquitto has one thread. The model lets those of several cases go
    side by side, since no case knows another.
    """

    # src/handle_connect.c, connect__on_authorised: "This must be done *after* any security checks"
    takes_over_before_asking = False
    will_on_kick = delayed_will_on_kick = True  # nobody kicks
    will_delays = True  # src/context.c, context__send_will: will_delay__add
    # src/handle_subscribe.c: a denied filter is not subscribed; `qos` becomes 0x80 for mosq_p_mqtt311 and 0x87 for
    # mosq_p_mqtt5 only, and is what the SUBACK says
    denies_silently = frozenset({3})

    def __init__(self, http: httpx.AsyncClient, conf: str) -> None:
        options = options_of(conf)
        for key, value in {"per_listener_settings": "false", "check_retain_source": "false"}.items():
            assert options[key] == value, f"`{key}` otherwise than {value} is not modelled"
        self._plugin = Plugin(http, options)
        self.broker = MiniBroker(self)

    async def admit(self, link: Link) -> int:
        """src/handle_connect.c, handle__connect: reads, then mosquitto_unpwd_check."""
        hello = link.hello
        username: str | None = hello.username
        if _is_malformed(hello.client_id):
            raise Closed
        if not hello.client_id:
            if link.level == 3 or (link.level == 4 and not hello.clean):
                return IDENTIFIER_REJECTED
            link.client_id = f"auto-{uuid.uuid4()}"  # client_id_gen, before the question
        if _is_malformed(hello.username):
            if link.level != 3:
                raise Closed  # "username flag but no username"
            username = None  # "Username flag given, but no username. Ignore."
        verdict = await self._plugin.unpwd_check(username, hello.password, link.client_id)
        if verdict is Verdict.ERROR:
            raise Closed  # MOSQ_ERR_UNKNOWN: no CONNACK
        return 0 if verdict is Verdict.GRANTED else NOT_AUTHORIZED[link.level]

    async def admit_will(self, link: Link) -> int:
        """Not asked at CONNECT: will__read checks its form."""
        return 0

    async def will_may_fire(self, link: Link) -> bool:
        """src/context.c, context__send_will: MOSQ_ACL_WRITE when it is sent."""
        assert link.hello.will is not None
        return await self._may(link, link.hello.will[0], WRITE)

    async def may_publish(self, link: Link, topic: str, payload: str, *, qos: int, retain: bool) -> bool:
        """src/handle_publish.c: MOSQ_ACL_WRITE. The plugin tells the backend neither QoS nor the retain flag."""
        return await self._may(link, topic, WRITE)

    def denied(self, link: Link) -> int | None:
        """src/handle_publish.c, process_bad_message: PUBACK or PUBREC, before MQTT 5 without a code."""
        return 0x87 if link.level == 5 else 0

    async def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> list[int]:
        """src/handle_subscribe.c: MOSQ_ACL_SUBSCRIBE for each filter by itself, a shared one as it stands."""
        refused = 0x87 if link.level == 5 else 0x80
        return [qos if await self._may(link, topic_filter, SUBSCRIBE) else refused for topic_filter, qos in filters]

    async def may_receive(self, link: Link, topic: str) -> bool:
        """MOSQ_ACL_READ for each delivery, also for a client that is away.

        src/subs.c, subs__send (of a shared subscription after its turn: subs__shared_process does not look for
        another); src/retain.c, retain__process; src/handle_connect.c, connection_check_acl for what is queued.
        """
        return await self._may(link, topic, READ)

    async def left(self, link: Link, *, keeps: bool) -> None:
        """The plugin has no such call."""

    async def _may(self, link: Link, topic: str, access: int) -> bool:
        """src/security.c, mosquitto_acl_check: acl__check_dollar and acl__check_single come before the plugin."""
        if topic.startswith("$SYS") and access == WRITE and not matches("$SYS/broker/connection/+/state", topic):
            return False
        if topic.startswith("$share") and access != SUBSCRIBE:
            return False
        if set("+#") & set(link.client_id + link.hello.username):  # `auth_plugin_deny_special_chars`, true by default
            return False
        verdict = await self._plugin.acl_check(link.hello.username, link.client_id, topic, access)
        assert verdict is not Verdict.ERROR, "Mosquitto would end the connection"
        return verdict is Verdict.GRANTED


def _is_malformed(text: str) -> bool:
    """lib/utf8_mosq.c, mosquitto_validate_utf8: control characters too (`codepoint <= 0x001F || … 0x007F … 0x009F`)."""
    return any(ord(letter) <= 0x1F or 0x7F <= ord(letter) <= 0x9F for letter in text)
