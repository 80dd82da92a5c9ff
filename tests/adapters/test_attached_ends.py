"""What ends a session ends it at the broker too: every consequence, how fast, in which order with a CONNECT."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from authsvc.adapters.attached import SETTLED_US
from authsvc.core.facts import GroundAccess
from authsvc.core.reasons import Reason
from tests.adapters.conftest import HookWorld
from tests.service.conftest import T

pytestmark = pytest.mark.alone  # it measures time

SETTLED_S = SETTLED_US / 1_000_000 + 1
ENDINGS = {
    "token revoked": ("DELETE", "app-tokens/{token}", None),
    "secret regenerated": ("POST", "app-tokens/{token}/regenerate", {"overlap_s": 0}),
    "thing blocked": ("PATCH", "things/gw1", {"state": "blocked"}),
    "thing deleted": ("DELETE", "things/gw1", None),
    "tenant suspended": ("PATCH", "", {"state": "suspended"}),
    "thing moved": ("PATCH", "things/gw1", {"ground": "g2"}),
    "session kicked": ("DELETE", "sessions/{session}", None),
    "client id reset": ("DELETE", "things/gw1/client-id", None),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_ends_a_session_ends_the_connection_at_the_broker(hooked: HookWorld, ending: str) -> None:
    """The API call has answered, and the broker is told to end that client and no other."""
    token, secret = await hooked.app_token()
    _, other = await hooked.device_token_of("gw9")
    await hooked.authn(secret, "gw1")
    await hooked.authn(other, "", client_id="c9")
    await hooked.store.grounds.create(T, "g2")
    session = hooked.attached().session("c1").id
    method, path, body = ENDINGS[ending]
    url = f"/v1/tenants/{T}/{path.format(token=token.id, session=session)}".rstrip("/")
    answer = await hooked.call(method, url, json=body)
    assert answer.status_code in (200, 204), answer.text
    await hooked.rest.until_kicked(1 if ending != "tenant suspended" else 2)
    assert "c1" in hooked.rest.kicked_ids()
    assert ("c9" in hooked.rest.kicked_ids()) is (ending == "tenant suspended")
    assert hooked.attached().session("c1") is None
    await hooked.until(lambda: hooked.attached().rows.get("c1") is None)
    assert await hooked.authz("c1", "publish", f"{T}/default/gw1/state/x") == "deny"


async def test_an_expired_token_ends_the_connection(hooked: HookWorld) -> None:
    """The broker was told when; it is kicked all the same."""
    expires_at_us = hooked.clock.now_us() + 400_000
    _, secret = await hooked.app_token(expires_at_us=expires_at_us)
    assert (await hooked.authn(secret, "gw1"))["expire_at"] == expires_at_us // 1_000_000
    await hooked.rest.until_kicked(1)
    assert hooked.service.sessions.ended[Reason.TOKEN_EXPIRED] == 1


async def test_a_change_that_takes_nothing_away_kicks_nobody(hooked: HookWorld) -> None:
    """A new name, a tag, one more allow: what the broker was told is still right, the rest it asks."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    await hooked.call("PATCH", f"/v1/tenants/{T}/things/gw1", json={"name": "n", "tags": ["x"]})
    definition = (await hooked.call("GET", f"/v1/tenants/{T}/thing-definitions/thing")).json()
    rules = [*definition["rules"], {"effect": "allow", "action": "publish", "topic": "{tenant}/more/#"}]
    answer = await hooked.call("PATCH", f"/v1/tenants/{T}/thing-definitions/thing", json={"rules": rules})
    assert answer.status_code == 200
    assert await hooked.authz("c1", "publish", f"{T}/more/x") == "allow"
    assert hooked.rest.kicks == []
    less = await hooked.call("PATCH", f"/v1/tenants/{T}/thing-definitions/thing", json={"rules": rules[1:]})
    assert less.status_code == 200
    await hooked.rest.until_kicked(1)


async def test_revocation_reaches_the_broker_within_its_bound(hooked: HookWorld) -> None:
    """Promise 9 with a thousand live sessions: p99 under 100 ms from the answered call to the kick's request."""
    tokens_of = {}
    for number in range(20):  # those that are revoked, each by a token of its own
        token, secret = await hooked.app_token()
        tokens_of[f"r{number}"] = token.id
        await hooked.authn(secret, f"r{number}", client_id=f"r{number}")
    _, crowd = await hooked.app_token()
    await asyncio.gather(*(hooked.authn(crowd, f"t{n}", client_id=f"t{n}") for n in range(980)))
    assert len(hooked.service.sessions) == 1000
    delays = []
    for client_id, token_id in tokens_of.items():
        answer = await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token_id}")
        answered = time.perf_counter()
        assert answer.status_code == 204
        await hooked.rest.until_kicked(len(delays) + 1)
        at, kicked = hooked.rest.kicks[-1]
        assert kicked == client_id
        delays.append(at - answered)
    assert sorted(delays)[math.ceil(0.99 * len(delays)) - 1] < 0.1, delays


async def test_all_of_a_ground_are_kicked_and_nobody_else(hooked: HookWorld) -> None:
    """Three hundred clients of one ground token: every one is told, within the bound for a crowd."""
    token, secret = await hooked.ground_token("default", GroundAccess.READ)
    _, other = await hooked.app_token()
    await hooked.authn(other, "gw1")
    await asyncio.gather(*(hooked.authn(secret, client_id=f"g{n}") for n in range(300)))
    await hooked.call("DELETE", f"/v1/tenants/{T}/grounds/default/tokens/{token.id}")
    await hooked.rest.until_kicked(300)
    assert set(hooked.rest.kicked_ids()) == {f"g{n}" for n in range(300)}


async def test_a_connect_that_a_revoke_overtakes_is_refused(hooked: HookWorld) -> None:
    """The revoke commits while the row is written: no session, no row, whatever the broker was about to hear."""
    token, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(SETTLED_S)
    await hooked.attached().gone("c1", keeps_session=False)
    await hooked.attached().rows.flush()
    keep = hooked.store.attached_sessions.keep

    async def overtaken(row: object, **more: object) -> object:
        written = await keep(row, **more)
        await hooked.store.app_tokens.delete(T, token.id)
        await hooked.settle()
        return written

    hooked.store.attached_sessions.keep = overtaken
    assert (await hooked.authn(secret, "gw1"))["result"] == "deny"
    assert len(hooked.service.sessions) == 0
    await hooked.attached().rows.flush()
    assert list(await hooked.store.attached_sessions.all("emqx")) == []


async def test_connects_that_race_a_revoke_leave_nobody_connected(hooked: HookWorld) -> None:
    """Whoever was answered with yes is a session that ended, and the broker was told."""
    token, secret = await hooked.app_token()
    for n in range(30):
        await hooked.authn(secret, f"t{n}", client_id=f"c{n}")
    connects = [asyncio.create_task(hooked.authn(secret, f"t{n}", client_id=f"c{n}")) for n in range(30)]
    await asyncio.sleep(0)
    await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token.id}")
    answers = [await connect for connect in connects]
    assert len(hooked.service.sessions) == 0, answers
    await hooked.until(lambda: set(hooked.rest.kicked_ids()) == {f"c{n}" for n in range(30)})


async def test_a_kick_never_hits_the_newer_connection(hooked: HookWorld) -> None:
    """The kick is under way: the CONNECT waits for it, and only then is answered."""
    first, secret = await hooked.app_token()
    _, again = await hooked.device_token_of("gw1", register_by=secret)
    await hooked.authn(secret, "gw1")
    hooked.rest.hold = asyncio.Event()
    await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{first.id}")
    connect = asyncio.create_task(hooked.authn(again, "gw1"))
    await asyncio.sleep(0.2)
    assert not connect.done()
    assert hooked.rest.kicks == []
    hooked.rest.hold.set()
    assert (await connect)["result"] == "allow"
    await asyncio.sleep(0.1)
    assert hooked.rest.kicked_ids() == ["c1"]
    assert "c1" in hooked.rest.connected
    assert hooked.attached().session("c1") is not None


async def test_a_kick_that_a_connect_had_done_is_not_sent_again(hooked: HookWorld) -> None:
    """The CONNECT was first in the queue and did the kick itself: the one behind it would hit the newer connection."""
    first, secret = await hooked.app_token()
    _, again = await hooked.device_token_of("gw1", register_by=secret)
    await hooked.authn(secret, "gw1")
    async with hooked.service.sessions.lock("", "c1", broker="emqx"):
        connect = asyncio.create_task(hooked.authn(again, "gw1"))
        await asyncio.sleep(0.1)
        await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{first.id}")
        await asyncio.sleep(0.05)
        assert hooked.rest.kicks == []
    assert (await connect)["result"] == "allow"
    await asyncio.sleep(0.1)
    assert hooked.rest.kicked_ids() == ["c1"]
    assert "c1" in hooked.rest.connected


async def test_what_could_not_be_wiped_is_not_inherited(hooked: HookWorld) -> None:
    """The management is away: a revoked session's queue waits there, so its client id does too. Then it is wiped."""
    first, secret = await hooked.app_token()
    _, again = await hooked.device_token_of("gw1", register_by=secret)
    await hooked.authn(secret, "gw1")
    hooked.rest.down = True
    await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{first.id}")
    assert (await hooked.authn(again, "gw1"))["result"] == "deny"
    assert hooked.service.refusals.last(T, thing="")[0].reason is Reason.BROKER_UNAVAILABLE
    hooked.rest.down = False
    assert (await hooked.authn(again, "gw1"))["result"] == "allow"
    assert hooked.rest.kicked_ids() == ["c1"]


async def test_a_kick_is_tried_again_until_the_broker_says_yes(hooked: HookWorld) -> None:
    """Down for a moment: the kick comes after it, without anybody asking."""
    token, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.rest.down = True
    await hooked.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token.id}")
    await hooked.until(lambda: hooked.attached().kicks.failing)
    hooked.rest.down = False
    await hooked.rest.until_kicked(1)
    await hooked.until(lambda: not hooked.attached().kicks.failing)


async def test_a_take_over_is_the_brokers_own_affair(hooked: HookWorld) -> None:
    """The same principal connects again, by another token: nobody is kicked, the older session has ended."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    before = hooked.attached().session("c1")
    _, device = await hooked.device_token("gw1")
    await hooked.authn(device, "gw1")
    assert before.ending is Reason.TAKEN_OVER
    await asyncio.sleep(0.05)
    assert hooked.rest.kicks == []


async def test_a_session_made_under_narrower_rights_is_wiped_before_it_is_resumed(hooked: HookWorld) -> None:
    """The rights of subscribing changed while the client was away: what it had subscribed must not go on."""
    _, secret = await hooked.app_token()
    await hooked.authn(secret, "gw1")
    hooked.clock.move(SETTLED_S)
    await hooked.attached().gone("c1", keeps_session=True)
    rules = [{"effect": "allow", "action": "publish", "topic": "{tenant}/{ground}/{thing}/state/#"}]
    await hooked.call("PATCH", f"/v1/tenants/{T}/thing-definitions/thing", json={"rules": rules})
    assert hooked.rest.kicks == []
    assert (await hooked.authn(secret, "gw1"))["result"] == "allow"
    assert hooked.rest.kicked_ids() == ["c1"]
    assert (await hooked.authn(secret, "gw1"))["result"] == "allow"
    assert hooked.rest.kicked_ids() == ["c1"]


async def test_a_broker_that_cannot_be_told_is_denied_everything(bare: HookWorld) -> None:
    """Without a management URL nothing can be kicked: the session has ended all the same, and every question is no."""
    await bare.open("")
    token, secret = await bare.app_token()
    await bare.authn(secret, "gw1")
    assert await bare.authz("c1", "publish", f"{T}/default/gw1/state/x") == "allow"
    await bare.call("DELETE", f"/v1/tenants/{T}/app-tokens/{token.id}")
    assert await bare.authz("c1", "publish", f"{T}/default/gw1/state/x") == "deny"
    await bare.shut()
