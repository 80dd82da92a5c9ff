"""Opaque tokens: their exact form, what is refused without a look-up, and when a known one is no longer good."""

import hashlib
import re
import zlib
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.core import tokens
from authsvc.core.facts import Secret, Token, TokenKind
from authsvc.core.reasons import Reason

SCANNER = re.compile(r"as(app|dev|gnd|adm|ref|sec)_[0-9A-Za-z]{49}")  # the published pattern
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
GOOD = tokens.mint(TokenKind.APP, lambda n: bytes(range(n)))


def base62_value(text):
    """Return the number that a base62 text spells."""
    number = 0
    for char in text:
        number = number * 62 + ALPHABET.index(char)
    return number


@pytest.mark.parametrize("kind", TokenKind)
@pytest.mark.parametrize(
    "random", [bytes, lambda n: b"\xff" * n, lambda n: bytes(range(n))], ids=["zeros", "ones", "count"]
)
def test_a_minted_token_has_the_published_form_and_is_parsed_back(kind, random):
    """43 base62 characters of the 32 random bytes, then 6 of the CRC-32 of all before; always 55 in all."""
    text = tokens.mint(kind, random)
    assert SCANNER.fullmatch(text)
    assert base62_value(text[6:49]) == int.from_bytes(random(32), "big")
    assert base62_value(text[49:]) == zlib.crc32(text[:49].encode())
    parsed = tokens.parse(text)
    assert parsed == tokens.parse(text.encode())
    assert (parsed.kind, parsed.digest, parsed.prefix) == (kind, hashlib.sha256(text.encode()).digest(), text[:10])
    assert (parsed.digest, parsed.prefix) == (tokens.digest(text), tokens.prefix(text))


def test_minting_asks_for_32_random_bytes_and_the_default_never_repeats():
    """256 bits from the system's generator."""
    asked = []
    tokens.mint(TokenKind.APP, lambda n: asked.append(n) or bytes(n))
    assert asked == [32]
    assert len({tokens.mint(TokenKind.DEVICE) for _ in range(100)}) == 100


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_one_wrong_character_anywhere_is_refused_without_a_look_up(place):
    """The checksum covers kind and random part; a typo costs no query."""
    for char in "0aZ_":
        if char != GOOD[place]:
            assert tokens.parse(GOOD[:place] + char + GOOD[place + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        "", GOOD[:-1], GOOD + "a", GOOD + "=", GOOD + "\n", GOOD + " ", " " + GOOD, "\t" + GOOD, GOOD.upper(),
        GOOD.lower(), GOOD.swapcase(), GOOD + "\0", "\ufeff" + GOOD, GOOD.replace("asapp", "asdev"), GOOD + GOOD,
        "é" * 55, "\ud800" * 55, b"", b"\xff" * 55, GOOD.encode() + b"\n", GOOD.encode("utf-16"),
    ],
    ids=count(),
)  # fmt: skip
def test_variants_of_a_token_are_not_the_token(text):
    """White space, case, padding, a byte-order mark, another kind: refused, never normalised."""
    assert tokens.parse(text) is None


def test_digits_and_letters_of_other_scripts_are_not_base62():
    """`[0-9]` must not mean every digit of Unicode."""
    assert tokens.parse("asapp_" + "٣" * 49) is None


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_parse_takes_anything_and_raises_nothing(text):
    """Whatever a client sends is a token or None."""
    assert tokens.parse(text) is None


def test_the_repr_of_a_parsed_token_shows_no_secret_and_no_digest():
    """Only kind and prefix are for eyes."""
    parsed = tokens.parse(GOOD)
    assert GOOD not in repr(parsed)
    assert "digest" not in repr(parsed)
    assert parsed.prefix in repr(parsed)


def pair(**changes):
    """Return a token and its secret; keys `token_…` and `secret_…` change them."""
    token = {k[6:]: v for k, v in changes.items() if k.startswith("token_")}
    secret = {k[7:]: v for k, v in changes.items() if k.startswith("secret_")}
    return (
        Token(id="tok1", tenant="acme", kind=TokenKind.APP, name="t", **token),
        Secret(id="sec1", token_id="tok1", digest=tokens.digest(GOOD), **secret),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"token_expires_at_us": 101}, None),
        ({"token_expires_at_us": 100}, Reason.TOKEN_EXPIRED),
        ({"secret_expires_at_us": 101}, None),
        ({"secret_expires_at_us": 100}, Reason.TOKEN_EXPIRED),
        ({"token_revoked_at_us": 1}, Reason.TOKEN_REVOKED),
        ({"token_revoked_at_us": 0}, Reason.TOKEN_REVOKED),
        ({"token_revoked_at_us": 1, "token_expires_at_us": 1}, Reason.TOKEN_REVOKED),
        ({"secret_revoked_at_us": 999}, Reason.TOKEN_REVOKED),
    ],
)
def test_a_known_token_is_good_until_it_or_its_secret_is_revoked_or_expires(changes, reason):
    """At the microsecond of expiry it is over; a revocation holds whatever the clock says."""
    token, secret = pair(**changes)
    refusal = tokens.verify(token, secret, now_us=100)
    assert (refusal and refusal.reason) == reason
    if refusal:
        assert "tok1" in refusal.detail


def test_a_presented_digest_must_be_the_secret_s_own():
    """Where the pair was found by another road, the digest is compared, in constant time."""
    token, secret = pair()
    assert tokens.verify(token, secret, now_us=0, presented=tokens.digest(GOOD)) is None
    assert tokens.verify(token, secret, now_us=0, presented=tokens.digest("x")).reason is Reason.UNKNOWN_TOKEN


def test_an_id_is_22_base62_characters_all_equally_likely():
    """Ids of objects and of upstream sessions: bytes that would favour some characters are passed over."""
    every = bytes(range(256))
    drawn = iter([b"\xff" * 32, *(every[n : n + 32] for n in range(0, 256, 32))])
    assert tokens.new_id(lambda _: next(drawn)) == ALPHABET[:22]
    found = Counter("".join(tokens.new_id(lambda _, at=at: every[at : at + 22]) for at in range(0, 242, 22)))
    assert len(found) == 62
    assert set(found.values()) == {3, 4}
    assert tokens.new_id(bytes) == "0" * 22
    assert re.fullmatch(r"[0-9A-Za-z]{22}", tokens.new_id())


def test_ids_made_in_stock_are_those_of_the_random_bytes_in_order():
    """Every digit is used at most once, and a new stock is drawn when what is left is too short for an id."""
    blocks = [b"\xff" * 10, bytes(range(62)), bytes(range(61, -1, -1))]
    ids = tokens.Ids(lambda _: blocks.pop(0))
    back = ALPHABET[::-1]
    assert [ids.new() for _ in range(4)] == [ALPHABET[:22], ALPHABET[22:44], back[:22], back[22:44]]
    assert blocks == []
    assert len({made for ids in (tokens.Ids(), tokens.Ids()) for made in (ids.new() for _ in range(500))}) == 1_000


@pytest.mark.parametrize("text", [GOOD, f"x {GOOD} y", GOOD[:-3], GOOD.upper(), GOOD + "extra"], ids=count())
def test_whatever_looks_like_a_token_is_hidden_in_text(text):
    """One with a typo or a lost end would give most of the secret away."""
    assert tokens.holds_token(text)
    assert GOOD[12:30].lower() not in tokens.redacted(text).lower()
    assert "asapp_…" in tokens.redacted(text).lower()


@pytest.mark.parametrize("text", ["", "gw-1", "asapp_1", "basapp_"])
def test_ordinary_text_is_left_alone(text):
    """A prefix is not a secret."""
    assert not tokens.holds_token(text)
    assert tokens.redacted(text) == text


def test_the_shortest_that_looks_like_a_token_is_found():
    """The length that is asked before the pattern is not above the pattern's own."""
    shortest = f"eyJ{'a' * 8}.{'b' * 8}."
    assert tokens.holds_token(shortest)
    assert tokens.redacted(shortest) == "…"


@pytest.mark.parametrize("body", ["asapp_" + "x" * 44, "asapp_" + "x" * 42, "asxyz_" + "x" * 43, "asapp_" + "-" * 43])
def test_a_right_checksum_does_not_make_a_token_of_another_form(body):
    """Length, kind and alphabet are exact, whoever computed the checksum."""
    assert tokens.parse(body + tokens._checksum(body.encode())) is None
    assert tokens.parse("asapp_" + "x" * 43 + tokens._checksum(b"asapp_" + b"x" * 43)) is not None
