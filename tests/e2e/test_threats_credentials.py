"""Attacks on CONNECT: credentials that are none, and identities that are somebody else's (threats CRED, TOK, WRS)."""

from __future__ import annotations

import asyncio

import pytest

from authsvc.core import tokens
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import BindClientId, TokenKind
from authsvc.core.reasons import Reason
from broker import wire
from tests.e2e.system import PUBLISH, SUBSCRIBE, System, allow, own


def _spoilt(secret: str) -> list[str]:
    return [
        f" {secret}",
        f"{secret} ",
        f"{secret}\n",
        f"{secret}\t",
        f"{secret}=",
        f"{secret}\0",
        secret.upper(),
        secret.swapcase(),
        secret[:-1],
        secret[:-1] + ("0" if secret[-1] != "0" else "1"),
        "asdev_" + secret[6:-6] + "000000",
        secret.replace("asdev", "asapp"),
    ]


async def test_a_token_that_is_not_exactly_the_token_is_refused(system: System) -> None:
    """Blanks, padding, case, a cut end, another kind in front."""
    for wrong in _spoilt(system.secret["A1"]):
        assert await system.code("A1", wrong, username="A1") == 4, repr(wrong)
    assert len(system.service.sessions) == 0


async def test_no_combination_of_missing_fields_gets_in(system: System) -> None:
    """Nothing at all, a username only, empty fields, an unknown but well-formed token."""
    assert await system.code("A1", None) == 4
    assert await system.code("A1", None, username="A1") == 4
    assert await system.code("A1", "", username="") == 4
    assert await system.code("A1", tokens.mint(TokenKind.DEVICE), username="A1") == 4
    assert await system.code("", None, clean=False) == 2


async def test_two_tokens_never_add_up(system: System) -> None:
    """A token in the username is refused, alone and beside another."""
    a1, b1 = system.secret["A1"], system.secret["B1"]
    assert await system.code("A1", b1, username=a1) == 4
    assert await system.code("A1", "", username=a1) == 4
    assert await system.code("A1", None, username=a1) == 4


async def test_a_device_token_speaks_for_its_own_thing_only(system: System) -> None:
    """Another thing's key beside it is refused, with the reason for the operator only."""
    assert await system.code("A2", system.secret["A1"], username="A2") == 4
    assert Reason.THING_KEY_MISMATCH in system.reasons()


@pytest.mark.parametrize("kind", [TokenKind.ADMIN, TokenKind.REFRESH, TokenKind.SECRET])
async def test_a_token_of_another_door_does_not_open_this_one(system: System, kind: TokenKind) -> None:
    """Admin keys, refresh tokens and application secrets are no credentials for MQTT."""
    assert await system.code("A1", tokens.mint(kind), username="A1") == 4


async def test_unknown_expired_and_revoked_look_alike_from_outside(system: System) -> None:
    """Promise 8: one code for all three; the operator reads which it was."""
    await system.device_token("old", "t1", "A1", expires_at_us=1)
    await system.device_token("gone", "t1", "A1")
    await system.do(system.store.device_tokens.delete("t1", "A1", system.token_id["gone"]))
    assert await system.code("A1", system.secret["old"], username="A1") == 4
    assert await system.code("A1", system.secret["gone"], username="A1") == 4
    assert await system.code("A1", tokens.mint(TokenKind.DEVICE), username="A1") == 4
    assert {Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED} <= set(system.reasons())


@pytest.mark.parametrize(
    "client_id",
    [".*", "^", "' OR 1=1--", "%", "_", "A1' ", "A%00", "\ufeffA1", "a/b", "#", "+", "é", "x" * 256],
    ids=ascii,
)
async def test_an_odd_client_id_is_a_session_of_its_own(system: System, client_id: str) -> None:
    """Whatever MQTT allows is a label, never a pattern, and never A1's session."""
    a1 = await system.client("A1", "A1", clean=False)
    await a1.subscribe((f"{own('A1')}/q", 1))
    other = await system.client("A1", client_id, clean=False)
    assert not other.session_present
    await a1.ping()
    assert len(system.service.sessions) == 2


async def test_a_client_id_over_the_limit_is_refused(system: System) -> None:
    """256 bytes, counted as bytes."""
    assert await system.code("x" * 257, system.secret["A1"], username="A1") == 2
    assert await system.code("é" * 129, system.secret["A1"], username="A1") == 2


@pytest.mark.parametrize("client_id", ["#", "+", "a/b", "A2/x/#", "\x01", "a\x7f", "../A2"], ids=ascii)
async def test_a_client_id_cannot_enter_a_rule(system: System, client_id: str) -> None:
    """CVE-2017-7650: where the definition uses `{client}`, an id that is no plain level is refused."""
    rules = (allow(PUBLISH, "{tenant}/by-client/{client}/#"), allow(SUBSCRIBE, "{tenant}/by-client/{client}/#"))
    await system.do(system.store.definitions.update("t1", "dev", rules=rules))
    assert await system.code(client_id, system.secret["A1"], username="A1") == 2
    fine = await system.client("A1", "plain")
    assert await fine.subscribe("t1/by-client/plain/#", "t1/by-client/#", "t1/by-client/+/x") == [0, 0x80, 0x80]
    await system.do(
        system.store.definitions.update(
            "t1",
            "dev",
            rules=(allow(PUBLISH, "{tenant}/{ground}/{thing}/#"), allow(SUBSCRIBE, "{tenant}/{ground}/{thing}/#")),
        )
    )


@pytest.mark.parametrize("key", ["#", "+", "a/b", "", " A3", "A3 ", "A\x003", "x" * 65, ".hidden", "é"], ids=ascii)
async def test_a_thing_key_cannot_enter_a_rule(system: System, key: str) -> None:
    """Promise 6: an app token registers nothing whose key is not safe as one topic level."""
    await system.app_token("APP", "t1", ground="g1")
    try:
        code = await system.code("c", system.secret["APP"], username=key)
    except ValueError:
        return
    assert code in (4, 5, None)
    assert len(system.service.sessions) == 0


async def test_a_refused_connect_changes_nothing(system: System) -> None:
    """Promise 1: fifty of them with a known client id and a will, clean and not."""
    spy = await system.spy()
    a1 = await system.client("A1", clean=False)
    await a1.subscribe((f"{own('A1')}/#", 1))
    position = await system.store.last_position()
    will = WillMessage(topic=f"{own('A1')}/will", payload=b"no", qos=1, retain=True)
    wrong = tokens.mint(TokenKind.DEVICE)
    codes = await asyncio.gather(
        *(system.code("A1", wrong, username="A1", clean=bool(n % 2), will=will) for n in range(50))
    )
    assert set(codes) == {4}
    assert await system.store.last_position() == position
    await a1.ping()
    await a1.publish(f"{own('A1')}/x", b"mine", qos=1)
    assert (await a1.delivery()).payload == b"mine"
    assert await system.seen_by(spy) == [(f"{own('A1')}/x", b"mine")]


async def test_a_valid_token_of_another_is_no_way_to_a_session(system: System) -> None:
    """A2, B1, Z1 and a ground token with A1's client id get sessions of their own, and A1 notices nothing."""
    a1 = await system.client("A1", clean=False)
    await a1.subscribe((f"{own('A1')}/#", 1))
    for who in ("A2", "B1", "Z1", "GT1"):
        other = await system.client(who, "A1", clean=False)
        assert not other.session_present
        clean = await system.client(who, "A1", clean=True)
        await clean.ping()
    await a1.publish(f"{own('A1')}/x", b"mine", qos=1)
    assert (await a1.delivery()).payload == b"mine"


async def test_a_binding_holds_until_it_is_reset(system: System) -> None:
    """The first client id of a thing by an app token is its only one; another is refused and changes nothing."""
    await system.do(system.store.definitions.create("t1", "bound", bind_client_id=BindClientId.APP_TOKEN))
    await system.app_token("APP", "t1", ground="g1", definition="bound")
    first = await system.client("APP", "first", username="N1")
    assert await system.code("second", system.secret["APP"], username="N1") == 5
    assert await system.code("", system.secret["APP"], username="N1") == 5
    assert Reason.CLIENT_ID_MISMATCH in system.reasons()
    await first.ping()
    await system.do(system.store.things.reset_client_id("t1", "N1"))
    assert await first.closed()
    await system.client("APP", "second", username="N1")
    assert await system.code("first", system.secret["APP"], username="N1") == 5


async def test_fifty_first_connections_of_one_key_make_one_thing(system: System) -> None:
    """One thing, one live connection, and no accident."""
    await system.app_token("APP", "t1", ground="g1")
    clients = [await system.open() for _ in range(50)]
    codes = await asyncio.gather(*(c.connect("N1", system.secret["APP"], username="N1") for c in clients))
    assert set(codes) == {0}
    assert len(system.service.sessions.find("t1", thing="N1")) == 1
    page = await system.store.things.list("t1", q="N1")
    assert len(page.items) == 1


async def test_a_quota_admits_exactly_as_many_however_they_race(system: System) -> None:
    """Of fifty new things five are registered, and those five may come again."""
    await system.app_token("APP", "t1", ground="g1", max_things=5)

    async def attempt(n: int) -> int | None:
        return await system.code(f"N{n}", system.secret["APP"], username=f"N{n}")

    codes = await asyncio.gather(*(attempt(n) for n in range(50)))
    assert sorted(codes) == [0] * 5 + [5] * 45
    admitted = [n for n, code in enumerate(codes) if code == 0]
    assert await asyncio.gather(*(attempt(n) for n in admitted)) == [0] * 5


async def test_a_packet_of_another_protocol_is_not_admitted(system: System) -> None:
    """A surrogate in the username closes the connection, nothing else."""
    packet = bytearray(wire.encode_connect(client_id="A1", username="xyz", password=b"p"))
    at = packet.index(b"xyz")
    packet[at : at + 3] = b"\xed\xa0\x80"
    client = await system.open()
    await client.send(bytes(packet))
    assert await client.closed(1.0)
