"""What a first CONNECT writes, as works: one registration, or all that wait, in a few statements. Races settle inside.

A refusal rolls the work back, so that nothing of it is left; it is a value, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from json import dumps
from operator import attrgetter
from typing import Final

from authsvc.core.facts import Refusal, Thing, ThingState
from authsvc.core.reasons import Reason
from authsvc.core.things import Plan
from authsvc.store.admission import bind_client_id
from authsvc.store.database import RollBack, Row, Transaction, Written
from authsvc.store.endings import thing_name
from authsvc.store.records import thing_of, thing_values

Registration = tuple[Plan, str | None]  # what is planned, and the client id to bind

_OWN: Final = frozenset({"key", "name", "client_id"})  # in which the things of one fleet differ
_TIMES: Final = frozenset({"first_seen_us", "last_seen_us", "created_at_us"})
_SHARED: Final = tuple(field.name for field in fields(Thing) if field.name not in _OWN)
_fleet_of: Final = attrgetter(  # a tuple: thousands a second are told apart by it
    "token_id", "license", *(f"thing.{name}" for name in _SHARED if name not in _TIMES | {"token_id", "license"})
)


def register(tx: Transaction, plan: Plan, client_id: str | None) -> Thing | Refusal:
    """Insert the planned thing, take its seat and its part of the quota, or roll back with the refusal.

    If the key is registered already, that thing is returned as if it had been there; the client id is bound to it only
    if the same token registered it. The caller judges such a thing anew: it may be out of the token's scope.
    """
    thing = _planned(tx, plan, key=plan.thing.key, name=plan.thing.name, client_id=client_id)
    token, tenant, definition, ground, retired = _footing(tx, thing)
    if not token:
        return Refusal(reason=Reason.TOKEN_REVOKED, detail="the token was revoked while it registered")
    if not tenant:
        return Refusal(reason=Reason.TENANT_SUSPENDED)
    if retired:
        return Refusal(reason=Reason.THING_RETIRED, detail=f"thing `{thing.key}` was deleted")
    if not definition or not ground:
        gone = "ground" if definition else "thing definition"
        return Refusal(reason=Reason.DEFINITION_MISSING, detail=f"the token's {gone} is gone")
    if not tx.run("insert_thing", **thing_values(thing)):
        return _already_there(tx, thing, client_id)
    if not tx.run("take_quota", id=plan.token_id, count=1):
        raise RollBack(Refusal(reason=Reason.QUOTA_EXHAUSTED, detail=f"the token's `max_things` is {plan.max_things}"))
    if plan.license and not tx.run("take_seats", tenant=thing.tenant, key=plan.license, count=1):
        raise RollBack(Refusal(reason=Reason.LICENSE_EXHAUSTED, detail=f"licence `{plan.license}` has no free seat"))
    tx.change(thing_name(thing), "registered", _detail(thing))
    return thing


def register_all(tx: Transaction, asked: Sequence[Registration]) -> Sequence[Written[Thing | Refusal] | None]:
    """Register those things that nothing stands in the way of; None for each of the others, for which nothing is done.

    Whoever is answered None asks `register`, which settles it or says why not.
    """
    answers: list[Written[Thing | Refusal] | None] = [None] * len(asked)
    fleets: dict[tuple[object, ...], dict[str, int]] = {}  # what its things share -> key -> who asks for it first
    for number, (plan, client_id) in enumerate(asked):
        if client_id is None or client_id.isprintable():  # they go as JSON, in which SQLite reads a NUL as the end
            fleets.setdefault(_fleet_of(plan), {}).setdefault(plan.thing.key, number)
    for first in fleets.values():
        fleet = _planned(tx, asked[min(first.values())][0], key="", name="", client_id=None)
        *footing, _ = _footing(tx, fleet)
        if not all(footing):
            continue
        taken = {row[0] for row in tx.all("keys_taken", tenant=fleet.tenant, keys=dumps(list(first)))}
        numbers = [number for key, number in first.items() if key not in taken]
        if not numbers or not _take(tx, fleet, len(numbers)):
            continue
        shared = {name: getattr(fleet, name) for name in _SHARED}
        things = [
            Thing(key=plan.thing.key, name=plan.thing.name, client_id=client_id, **shared)
            for plan, client_id in (asked[number] for number in numbers)
        ]
        _insert(tx, fleet, things)
        positions = tx.change_all([thing_name(thing) for thing in things], "registered", _detail(fleet))
        for number, thing, position in zip(numbers, things, positions, strict=True):
            answers[number] = Written(value=thing, position=position, first=position)
    return answers


def _planned(tx: Transaction, plan: Plan, *, key: str, name: str, client_id: str | None) -> Thing:
    return replace(
        plan.thing,
        key=key,
        name=name,
        client_id=client_id,
        license=plan.license,
        token_id=plan.token_id,
        first_seen_us=tx.now_us,
        last_seen_us=tx.now_us,
        created_at_us=tx.now_us,
    )


def _footing(tx: Transaction, thing: Thing) -> Row:
    """Return whether token, tenant, definition and ground are still there, and whether the key is retired."""
    row = tx.one(
        "registration_footing",
        token_id=thing.token_id,
        tenant=thing.tenant,
        definition=thing.definition,
        ground=thing.ground,
        key=thing.key,
    )
    assert row is not None
    return row


def _take(tx: Transaction, fleet: Thing, count: int) -> bool:
    """Take quota and seats for all of them, or for none."""
    if not tx.run("take_quota", id=fleet.token_id, count=count):
        return False
    if fleet.license and not tx.run("take_seats", tenant=fleet.tenant, key=fleet.license, count=count):
        tx.run("free_quota", id=fleet.token_id, count=count)
        return False
    return True


def _insert(tx: Transaction, fleet: Thing, things: Sequence[Thing]) -> None:
    shared = {name: value for name, value in thing_values(fleet).items() if name not in _OWN | _TIMES}
    own = dumps([(thing.key, thing.name, thing.client_id) for thing in things], ensure_ascii=False)
    tx.run("insert_things", **shared, now_us=tx.now_us, things=own)


def _detail(thing: Thing) -> dict[str, str]:
    return {"definition": thing.definition, "ground": thing.ground, "gateway": thing.gateway}


def _already_there(tx: Transaction, planned: Thing, client_id: str | None) -> Thing | Refusal:
    row = tx.one("thing", tenant=planned.tenant, key=planned.key)
    assert row is not None
    thing = thing_of(row)
    if client_id is None or thing.token_id != planned.token_id or thing.state is ThingState.BLOCKED:
        return thing
    return bind_client_id(tx, planned.tenant, planned.key, client_id)
