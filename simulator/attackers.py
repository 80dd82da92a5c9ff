"""Attackers: each does one thing that must not work, and writes down how far it came. The oracle judges."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass

from authsvc.core import tokens
from authsvc.core.credentials import WillMessage
from authsvc.core.facts import TokenKind
from simulator.client import Client, ConnectRefused, NotConnected, connect
from simulator.gateways import WILL_SUFFIX
from simulator.ledger import Ledger
from simulator.places import Door, Place
from simulator.scenarios import Attacker, AttackKind, ForbiddenWill, WildcardGrab, WrongToken
from simulator.shape import GatewayPlan

FOREIGN, OWN = "attack/publish/foreign", "attack/publish/own"
WILL = "attack/will"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the attackers know: the door, a gateway and its place, and one valid credential of another ground."""

    door: Door
    victim: GatewayPlan
    place: Place
    intruder: str
    intruder_place: Place
    intruder_token: str
    seed: int


async def attack(attacker: Attacker, target: Target, ledger: Ledger, stay: asyncio.Event) -> None:
    """Carry out one attack; a connection that it got stays until `stay` is set, in the hope of a message."""
    match attacker:
        case WrongToken():
            await _wrong_token(attacker, target, ledger)
        case WildcardGrab():
            await _wildcard_grab(attacker, target, ledger, stay)
        case ForbiddenWill():
            await _forbidden_will(attacker, target, ledger)


async def _try(actor: str, ledger: Ledger, target: Target, **fields: object) -> Client | None:
    """Connect and write down the CONNACK; None if that was refused."""
    attempts = ledger.attempts.setdefault(actor, [])
    try:
        client = await connect(
            target.door.host,
            target.door.port,
            on_message=lambda topic, payload: ledger.receive(actor, topic, payload),
            **fields,  # type: ignore[arg-type]  # the fields of a CONNECT, as `connect` names them
        )
    except ConnectRefused as refusal:
        attempts.append(refusal.code)
        return None
    except (OSError, TimeoutError) as error:
        ledger.notes.append(f"{actor} could not reach the broker: {type(error).__name__}")
        attempts.append(-1)
        return None
    attempts.append(0)
    return client


async def _wrong_token(attacker: WrongToken, target: Target, ledger: Ledger) -> None:
    """Pose as a live gateway: with clean session to take its session away, without to resume it."""
    guess = random.Random(target.seed).randbytes
    for number in range(attacker.attempts):
        client = await _try(
            attacker.kind,
            ledger,
            target,
            client_id=target.victim.client_id,
            username=target.victim.key,
            token=tokens.mint(TokenKind.APP, guess),
            clean_session=number % 2 == 0,
        )
        if client is not None:
            await client.disconnect()


async def _wildcard_grab(attacker: WildcardGrab, target: Target, ledger: Ledger, stay: asyncio.Event) -> None:
    """Ask for everybody's messages, one filter a SUBSCRIBE, and publish as somebody else; then as itself, allowed."""
    actor = attacker.kind
    client = await _try(
        actor, ledger, target, client_id=f"sim.{target.intruder}", username=target.intruder, token=target.intruder_token
    )
    if client is None:
        return
    try:
        for template in attacker.filters:
            filter_ = template.replace("{tenant}", target.place.tenant).replace("{ground}", target.place.ground)
            (code,) = await client.subscribe([(filter_, 1)])
            ledger.granted.setdefault(actor, []).append((filter_, code))
        foreign = target.place.topic(target.victim.key, "state/temperature")
        own = target.intruder_place.topic(target.intruder, "state/temperature")
        for topic, identity in ((foreign, FOREIGN), (own, OWN)):
            client.publish(topic, _payload(identity), on_ack=lambda: None)
        await stay.wait()
    except (NotConnected, TimeoutError) as error:
        ledger.notes.append(f"{actor}: {error or 'no SUBACK'}")
    finally:
        await client.disconnect()


async def _forbidden_will(attacker: ForbiddenWill, target: Target, ledger: Ledger) -> None:
    """Leave a will on a gateway's topic, and if that is taken, die."""
    will = WillMessage(
        topic=target.place.topic(target.victim.key, WILL_SUFFIX), payload=_payload(WILL), qos=1, retain=False
    )
    for number in range(attacker.attempts):
        client = await _try(
            AttackKind.FORBIDDEN_WILL,
            ledger,
            target,
            client_id=f"sim.{target.intruder}.{number}",
            username=target.intruder,
            token=target.intruder_token,
            will=will,
        )
        if client is not None:
            client.cut()


def _payload(identity: str) -> bytes:
    return json.dumps({"id": identity}).encode()
