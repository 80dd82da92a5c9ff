"""The fields of a CONNECT: every combination of username and password gives one credential or one refusal."""

from itertools import count

import pytest

from authsvc.core import tokens
from authsvc.core.credentials import ConnectRequest, Credential, WillMessage, credential_of
from authsvc.core.facts import Refusal, TokenKind
from authsvc.core.reasons import Reason

TOKEN = {kind: tokens.mint(kind, lambda n: bytes(range(100, 100 + n))) for kind in TokenKind}
APP, DEVICE, GROUND = TOKEN[TokenKind.APP], TOKEN[TokenKind.DEVICE], TOKEN[TokenKind.GROUND]
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


def request(username, password, **fields):
    """Return a CONNECT with these two fields."""
    raw = password.encode() if isinstance(password, str) else password
    return ConnectRequest(**{"client_id": "c1", "clean_session": True, "username": username, "password": raw, **fields})


@pytest.mark.parametrize(
    ("username", "password", "kind", "thing_key"),
    [
        ("gw-1", APP, TokenKind.APP, "gw-1"),
        ("gw-1", DEVICE, TokenKind.DEVICE, "gw-1"),
        ("", DEVICE, TokenKind.DEVICE, None),
        (None, DEVICE, TokenKind.DEVICE, None),
        ("anything at/all +#", GROUND, TokenKind.GROUND, None),
        ("", GROUND, TokenKind.GROUND, None),
        (None, GROUND, TokenKind.GROUND, None),
    ],
)
def test_a_token_in_the_password_is_the_credential(username, password, kind, thing_key):
    """The username says which thing, where the token does not."""
    credential = credential_of(request(username, password))
    assert credential == Credential(
        kind=kind, digest=tokens.digest(password), prefix=password[:10], thing_key=thing_key
    )


MALFORMED = [
    (None, None),
    ("", ""),
    ("gw-1", None),
    ("gw-1", ""),
    ("gw-1", "secret"),
    (APP, None),
    (APP, ""),
    (APP, "ignored"),
    (APP, DEVICE),
    (DEVICE, APP),
    (APP, APP),
    (GROUND, GROUND),
    (f" {APP}", DEVICE),
    (APP[:-1], DEVICE),
    (APP.lower(), GROUND),
    (TOKEN[TokenKind.ADMIN], GROUND),
    ("gw-1", APP + " "),
    ("gw-1", " " + APP),
    ("gw-1", APP + "\n"),
    ("gw-1", APP + "="),
    ("gw-1", APP.upper()),
    ("gw-1", APP.lower()),
    ("gw-1", APP + "\0"),
    ("gw-1", b"\xff\xfe" + APP.encode()),
    ("gw-1", APP.encode("utf-16")),
    ("Auth:JWT", JWT),
    ("gw-1", JWT),
    (JWT, APP),
    (JWT, None),
    ("gw-1", JWT + "="),
    ("gw-1", TOKEN[TokenKind.ADMIN]),
    ("gw-1", TOKEN[TokenKind.REFRESH]),
    ("gw-1", TOKEN[TokenKind.SECRET]),
]


@pytest.mark.parametrize(("username", "password"), MALFORMED, ids=count())
def test_anything_else_is_a_malformed_credential(username, password):
    """Nothing is trimmed, folded, guessed at or taken from the other field."""
    refusal = credential_of(request(username, password))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.MALFORMED_CREDENTIAL


@pytest.mark.parametrize(
    ("username", "password", "says"),
    [
        ("gw-1", JWT, "JWT"),
        ("gw-1", None, "no password"),
        ("gw-1", "x", "no token"),
        (APP, DEVICE, "username holds a token"),
        ("gw-1", TOKEN[TokenKind.ADMIN], "asadm_"),
    ],
)
def test_a_refusal_tells_the_operator_what_was_sent(username, password, says):
    """The client sees one code; the operator sees the mistake."""
    assert says in credential_of(request(username, password)).detail


@pytest.mark.parametrize(
    "username", [None, "", "a/b", "+", "#", "a b", "gw\0", "x" * 65, ".", "..", "é", "' OR 1=1--", "A1 "], ids=ascii
)
def test_an_app_token_needs_a_valid_thing_key(username):
    """Thing keys can never carry a wildcard, a separator or a control character."""
    assert credential_of(request(username, APP)).reason is Reason.THING_KEY_INVALID


@pytest.mark.parametrize("client_id", [APP, f"x{DEVICE}y", DEVICE[:-9], JWT], ids=["own", "within", "cut", "jwt"])
def test_a_token_in_the_client_id_is_refused(client_id):
    """A client id is shown in lists, bound to the thing and stored: with a valid password beside it, it would stay."""
    refusal = credential_of(request("gw-1", APP, client_id=client_id))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.MALFORMED_CREDENTIAL
    assert "client id holds a token" in refusal.detail


def test_a_device_token_with_an_impossible_key_is_refused_too():
    """A key that no thing can have is not silently left out."""
    assert credential_of(request("a/b", DEVICE)).reason is Reason.THING_KEY_INVALID


@pytest.mark.parametrize(
    ("username", "password"), [*MALFORMED, ("gw-1", APP), ("a/b", APP), (None, DEVICE)], ids=count()
)
def test_no_repr_and_no_refusal_shows_a_secret(username, password):
    """Neither the request, nor the credential, nor the detail of a refusal."""
    asked = request(
        username, password, client_id=f"x{APP}", will=WillMessage(topic="t", payload=b"hush", qos=1, retain=False)
    )
    shown = f"{asked!r} {credential_of(asked)!r} {credential_of(request(username, password))!r}"
    for token in TOKEN.values():
        assert token[12:40].lower() not in shown.lower()
    assert JWT not in shown
    assert "hush" not in shown
    assert "password=" in shown


def test_the_repr_of_a_request_still_tells_what_is_no_secret():
    """Whoever reads a trace needs the client id and the username."""
    assert repr(ConnectRequest(client_id="c1", clean_session=False)) == (
        "ConnectRequest(client_id='c1', clean_session=False, "
        "username=None, password=none, will=None, keep_alive_s=0, level=4, session_expiry_s=None)"
    )
    assert "username='gw-1', password=hidden" in repr(request("gw-1", APP))
    assert repr(credential_of(request("gw-1", APP))) == (
        f"Credential(kind={TokenKind.APP!r}, prefix={tokens.prefix(APP)!r}, thing_key='gw-1')"
    )


@pytest.mark.parametrize(
    ("clean", "expiry_s", "persistent"),
    [(True, None, False), (False, None, True), (True, 0, False), (False, 0, False), (True, 1, True), (False, 1, True)],
)
def test_what_outlives_its_connection_is_told_by_clean_session_in_3_and_by_expiry_in_5(clean, expiry_s, persistent):
    """MQTT 3.1.1, 3.1.2.4; MQTT 5.0, 3.1.2.11.2: clean start says only how a session begins."""
    assert request("u", APP, clean_session=clean, session_expiry_s=expiry_s).persistent is persistent
