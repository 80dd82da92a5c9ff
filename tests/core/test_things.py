"""Which thing a token speaks for, admits and registers, and what becomes of client ids."""

from dataclasses import replace

import pytest

from authsvc.core.facts import (
    BindClientId,
    Ground,
    Refusal,
    Thing,
    ThingDefinition,
    ThingState,
    Token,
    TokenKind,
)
from authsvc.core.reasons import Reason
from authsvc.core.things import (
    Bind,
    Plan,
    admits,
    binding_of,
    check_client_id,
    plan_registration,
    registration_ground,
    thing_key_of,
)

APP = Token(
    id="tok1", tenant="acme", kind=TokenKind.APP, name="fleet", definition="gateway", ground="hall", license="lic",
    tags=("a",), security_tags=("s",), auto_register=True, max_things=5, registered=5,
)  # fmt: skip
DEVICE = Token(id="tok2", tenant="acme", kind=TokenKind.DEVICE, name="one", thing="gw-1")
GROUND_TOKEN = Token(id="tok3", tenant="acme", kind=TokenKind.GROUND, name="hall", ground="hall")
THING = Thing(tenant="acme", key="gw-1", name="gw-1", definition="gateway", ground="hall", token_id="tok1")
DEFINITION = ThingDefinition(tenant="acme", key="gateway", name="gateway")
HALL = Ground(tenant="acme", key="hall", name="hall")


def reason_of(answer):
    """Return the reason of a refusal, None for anything else."""
    return answer.reason if isinstance(answer, Refusal) else None


@pytest.mark.parametrize(
    ("token", "presented", "expected"),
    [
        (APP, "gw-9", "gw-9"),
        (APP, None, Reason.THING_KEY_INVALID),
        (DEVICE, None, "gw-1"),
        (DEVICE, "gw-1", "gw-1"),
        (DEVICE, "GW-1", Reason.THING_KEY_MISMATCH),
        (DEVICE, "gw-2", Reason.THING_KEY_MISMATCH),
        (GROUND_TOKEN, None, None),
        (GROUND_TOKEN, "gw-1", None),
    ],
)
def test_the_thing_that_a_token_speaks_for(token, presented, expected):
    """An app token speaks for whom the username names, a device token for its thing, a ground token for none."""
    answer = thing_key_of(token, presented)
    assert (reason_of(answer) or answer) == expected


@pytest.mark.parametrize(
    ("token", "changes", "reason"),
    [
        (APP, {}, None),
        (APP, {"ground": "yard"}, None),  # registered by it, moved since
        (APP, {"token_id": "other"}, None),  # in its ground
        (APP, {"token_id": "other", "ground": "yard"}, Reason.THING_OUT_OF_SCOPE),
        (APP, {"token_id": "", "ground": "yard"}, Reason.THING_OUT_OF_SCOPE),
        (replace(APP, ground=""), {"token_id": "other", "ground": "yard"}, None),
        (replace(APP, ground=""), {"token_id": "other", "tenant": "evil"}, Reason.THING_UNKNOWN),
        (APP, {"tenant": "evil"}, Reason.THING_UNKNOWN),
        (APP, {"state": ThingState.BLOCKED}, Reason.THING_BLOCKED),
        (APP, {"state": ThingState.BLOCKED, "token_id": "x", "ground": "yard"}, Reason.THING_OUT_OF_SCOPE),
        (DEVICE, {}, None),
        (DEVICE, {"ground": "yard", "token_id": "other"}, None),
        (DEVICE, {"key": "gw-2"}, Reason.THING_KEY_MISMATCH),
        (DEVICE, {"tenant": "evil"}, Reason.THING_UNKNOWN),
        (DEVICE, {"state": ThingState.BLOCKED}, Reason.THING_BLOCKED),
        (GROUND_TOKEN, {}, Reason.THING_OUT_OF_SCOPE),
    ],
)
def test_which_existing_things_a_token_admits(token, changes, reason):
    """What it registered, what is in its ground, without a ground all of its tenant; never past the tenant's wall."""
    assert reason_of(admits(token, replace(THING, **changes))) == reason


def plan(token=APP, key="gw-9", definition=DEFINITION, ground=HALL):
    """Return the plan for a thing that does not exist yet, at 1,000 µs."""
    return plan_registration(token, key, definition=definition, ground=ground, now_us=1000)


def test_a_plan_holds_the_thing_as_the_token_says_it_should_be():
    """Definition, ground, tags, security tags, licence and quota come from the token, never from the client."""
    assert plan() == Plan(
        thing=Thing(
            tenant="acme", key="gw-9", name="gw-9", definition="gateway", ground="hall",
            tags=("a",), security_tags=("s",), token_id="tok1", license="lic",
            first_seen_us=1000, last_seen_us=1000, created_at_us=1000,
        ),
        license="lic",
        max_things=5,
        token_id="tok1",
    )  # fmt: skip


def test_quota_and_seats_are_left_to_the_transaction():
    """A count read a moment ago decides nothing: the plan carries the limits, and the store settles the race."""
    assert isinstance(plan(replace(APP, registered=10_000)), Plan)


def test_a_token_without_a_ground_registers_into_default():
    """Every tenant has it."""
    token = replace(APP, ground="")
    assert registration_ground(token) == "default"
    assert plan(token, ground=replace(HALL, key="default")).thing.ground == "default"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"token": replace(APP, auto_register=False)}, Reason.THING_UNKNOWN),
        ({"token": replace(APP, definition="")}, Reason.THING_UNKNOWN),
        ({"token": replace(DEVICE, auto_register=True, definition="gateway")}, Reason.THING_UNKNOWN),
        ({"token": replace(GROUND_TOKEN, auto_register=True, definition="gateway")}, Reason.THING_UNKNOWN),
        ({"key": "a/b"}, Reason.THING_KEY_INVALID),
        ({"key": ""}, Reason.THING_KEY_INVALID),
        ({"key": "+"}, Reason.THING_KEY_INVALID),
        ({"definition": None}, Reason.DEFINITION_MISSING),
        ({"definition": replace(DEFINITION, tenant="evil")}, Reason.DEFINITION_MISSING),
        ({"definition": replace(DEFINITION, key="other")}, Reason.DEFINITION_MISSING),
        ({"ground": None}, Reason.DEFINITION_MISSING),
        ({"ground": replace(HALL, tenant="evil")}, Reason.DEFINITION_MISSING),
        ({"ground": replace(HALL, key="yard")}, Reason.DEFINITION_MISSING),
    ],
)
def test_why_nothing_is_registered(arguments, reason):
    """Only an app token that may, a valid key, and records of the same tenant that are still there."""
    assert reason_of(plan(**arguments)) == reason


@pytest.mark.parametrize(
    ("client_id", "clean", "in_rules", "reason"),
    [
        ("c1", False, False, None),
        ("", True, False, None),
        ("", True, True, None),
        ("", False, False, Reason.CLIENT_ID_INVALID),
        ("x" * 256, True, True, None),
        ("x" * 257, True, False, Reason.CLIENT_ID_INVALID),
        ("ü" * 128, True, False, None),
        ("ü" * 129, True, False, Reason.CLIENT_ID_INVALID),
        ("\ud800" * 100, True, False, Reason.CLIENT_ID_INVALID),
        ("a/+/#\n", True, False, None),
        ("a/b", True, True, Reason.CLIENT_ID_INVALID),
        ("+", True, True, Reason.CLIENT_ID_INVALID),
        ("#", True, True, Reason.CLIENT_ID_INVALID),
        ("a\n", True, True, Reason.CLIENT_ID_INVALID),
        (".*' OR 1=1--", True, True, None),
    ],
    ids=ascii,
)
def test_which_client_ids_can_be_used(client_id, clean, in_rules, reason):
    """Anything up to 256 bytes; where rules use `{client}`, nothing that would change a filter."""
    assert reason_of(check_client_id(client_id, clean_session=clean, uses_client_variable=in_rules)) == reason


NEVER, ALWAYS, APP_ONLY = BindClientId.NEVER, BindClientId.ALWAYS, BindClientId.APP_TOKEN
BIND, MISMATCH = Bind(client_id="c1"), Reason.CLIENT_ID_MISMATCH


@pytest.mark.parametrize(
    ("policy", "kind", "bound", "client_id", "expected"),
    [
        (APP_ONLY, TokenKind.APP, None, "c1", BIND),
        (APP_ONLY, TokenKind.APP, "c1", "c1", None),
        (APP_ONLY, TokenKind.APP, "c2", "c1", MISMATCH),
        (APP_ONLY, TokenKind.APP, None, "", None),
        (APP_ONLY, TokenKind.APP, "c2", "", MISMATCH),
        (APP_ONLY, TokenKind.DEVICE, None, "c1", None),
        (APP_ONLY, TokenKind.DEVICE, "c2", "c1", None),
        (APP_ONLY, TokenKind.DEVICE, "c2", "", None),
        (ALWAYS, TokenKind.APP, None, "c1", BIND),
        (ALWAYS, TokenKind.DEVICE, None, "c1", BIND),
        (ALWAYS, TokenKind.DEVICE, "c1", "c1", None),
        (ALWAYS, TokenKind.DEVICE, "c2", "c1", MISMATCH),
        (ALWAYS, TokenKind.DEVICE, "c2", "", MISMATCH),
        (ALWAYS, TokenKind.DEVICE, None, "", None),
        (NEVER, TokenKind.APP, None, "c1", None),
        (NEVER, TokenKind.APP, "c2", "c1", None),
        (NEVER, TokenKind.APP, "c2", "", None),
        (NEVER, TokenKind.DEVICE, "c2", "c1", None),
    ],
)
def test_the_binding_of_client_ids(policy, kind, bound, client_id, expected):
    """Bound once, then only that one; a fresh id for an empty one is never bound and never passes for a bound one."""
    answer = binding_of(
        definition=replace(DEFINITION, bind_client_id=policy),
        token_kind=kind,
        thing=replace(THING, client_id=bound),
        client_id=client_id,
    )
    assert (reason_of(answer) or answer) == expected


def test_a_thing_about_to_be_registered_is_bound_with_its_registration():
    """The first connection by an app token binds, and without a definition the default policy holds."""
    assert binding_of(definition=None, token_kind=TokenKind.APP, thing=None, client_id="c1") == BIND


def test_a_mismatch_does_not_tell_the_bound_client_id():
    """The holder of a shared token must not learn the id that would let him pass."""
    answer = binding_of(
        definition=DEFINITION, token_kind=TokenKind.APP, thing=replace(THING, client_id="secret-id"), client_id="c1"
    )
    assert "secret-id" not in answer.detail
