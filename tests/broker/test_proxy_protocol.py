"""PROXY protocol version 2: headers of the specification, what is skipped, and what is refused as early as can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import proxy_protocol
from broker.proxy_protocol import MAX_LENGTH, SIGNATURE, ProxyProtocolError, check_trusted, encode, missing, network_of

# The twelve bytes of section 2.2 as the specification prints them.
PRINTED = bytes.fromhex("0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A")
TCP4 = bytes.fromhex("C0A80001 0A000001 DCDB 075B")  # 192.168.0.1:56539 to 10.0.0.1:1883
TCP6 = bytes.fromhex("20010DB8000000000000000000000001 20010DB8000000000000000000000002 1F90 075B")
MAPPED = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1)) + bytes(16) + bytes.fromhex("0001 0002")
NOOP = bytes.fromhex("04 0003 000000")  # PP2_TYPE_NOOP, 2.2.3
AUTHORITY = bytes.fromhex("02 0009") + b"localhost"  # PP2_TYPE_AUTHORITY


def header(command: int, family: int, body: bytes = b"") -> bytes:
    return PRINTED + bytes((command, family)) + len(body).to_bytes(2, "big") + body


def test_the_signature_is_that_of_the_specification():
    """Byte for byte."""
    assert SIGNATURE == PRINTED


@pytest.mark.parametrize(
    ("given", "source"),
    [
        (header(0x21, 0x11, TCP4), ("192.168.0.1", 56539)),
        (header(0x21, 0x21, TCP6), ("2001:db8::1", 8080)),
        (header(0x21, 0x21, MAPPED), ("192.0.2.1", 1)),
        (header(0x21, 0x11, TCP4 + NOOP + AUTHORITY), ("192.168.0.1", 56539)),
        (header(0x21, 0x11, TCP4 + bytes((0xE0, 0, 0))), ("192.168.0.1", 56539)),
        (header(0x21, 0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")), None),
        (header(0x21, 0x00), None),
        (header(0x21, 0x00, b"anything"), None),
        (header(0x20, 0x00), None),
        (header(0x20, 0x11, TCP4), None),
        (header(0x20, 0x00, b"\xff\xff"), None),
        (header(0x20, 0x00, bytes(MAX_LENGTH)), None),
    ],
    ids=[
        *("tcp4", "tcp6", "mapped", "extensions", "empty-extension"),
        *("unix", "unspec", "unspec-body", "local", "local-with-addresses", "local-body", "longest"),
    ],
)
def test_a_header_is_read_whole_and_no_byte_further(given, source):
    """Its size is exact, and byte by byte no more is asked for than belongs to it."""
    read = proxy_protocol.parse(given + b"\x10rest")
    assert (read.source, read.size) == (source, len(given))
    buffer = b""
    while wanted := missing(buffer):
        assert len(buffer) + wanted <= len(given)
        buffer = given[: len(buffer) + 1]
    assert buffer == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "version 1.*send-proxy-v2"),
        (b"\x10\x0c\x00\x04MQTT", "no header"),
        (b"\x16\x03\x01\x02\x00", "no header"),
        (SIGNATURE[:11] + b"\x0b", "no header"),
        (SIGNATURE + b"\x11\x11", "0x11"),
        (SIGNATURE + b"\x22\x11", "0x22"),
        (SIGNATURE + b"\x31\x11", "0x31"),
        (SIGNATURE + bytes((0x21, 0x11)) + (MAX_LENGTH + 1).to_bytes(2, "big"), "taken at most"),
        (SIGNATURE + bytes((0x20, 0x00)) + b"\xff\xff", "taken at most"),
    ],
    ids=["v1", "mqtt", "tls", "last-byte", "version-1-binary", "command-2", "version-3", "long", "long-local"],
)
def test_what_cannot_become_a_header_is_refused_at_the_first_byte_that_settles_it(given, said):
    """No waiting for what would not be believed."""
    with pytest.raises(ProxyProtocolError, match=said):
        missing(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (header(0x21, 0x12, TCP4), "0x12"),
        (header(0x21, 0x22, TCP6), "0x22"),
        (header(0x21, 0x10, TCP4), "0x10"),
        (header(0x21, 0x41, TCP4), "0x41"),
        (header(0x21, 0x11, TCP4[:-1]), "11 bytes where the addresses alone take 12"),
        (header(0x21, 0x21, TCP4), "take 36"),
        (header(0x21, 0x31, TCP4), "take 216"),
        (header(0x21, 0x11, TCP4 + b"\x04"), "extension"),
        (header(0x21, 0x11, TCP4 + b"\x04\x00"), "extension"),
        (header(0x21, 0x11, TCP4 + b"\x04\x00\x01"), "extension"),
        (header(0x21, 0x11, TCP4 + NOOP + b"\x02\xff\xff" + b"x" * 9), "extension"),
        (header(0x21, 0x11, TCP4)[:-1], "cut"),
    ],
    ids=[
        *("udp4", "udp6", "unspec-transport", "unknown-family", "short4", "short6", "short-unix"),
        *("tlv-type", "tlv-length", "tlv-value", "tlv-beyond", "cut"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(given, said):
    """UDP, unknown families, addresses and extensions cut short."""
    with pytest.raises(ProxyProtocolError, match=said):
        proxy_protocol.parse(given)


@given(st.binary(max_size=80), st.booleans())
def test_whatever_comes_is_read_or_refused(data, signed):
    """No other exception, and never more wanted than the limit."""
    buffer = (SIGNATURE if signed else b"") + data
    try:
        assert missing(buffer) <= 16 + MAX_LENGTH
        if missing(buffer) == 0:
            assert proxy_protocol.parse(buffer).size <= len(buffer)
    except ProxyProtocolError:
        pass


@pytest.mark.parametrize(
    "source", [("192.0.2.7", 1234), ("2001:db8::7", 65535), ("fe80::1%eth0", 1), None, ("unix", 0)]
)
def test_what_is_written_is_read_back(source):
    """An address as it was, without its zone; what is none as LOCAL."""
    written = encode(source)
    assert missing(written) == 0
    expected = None if source in {None, ("unix", 0)} else (source[0].partition("%")[0], source[1])
    assert proxy_protocol.parse(written).source == expected


@pytest.mark.parametrize(
    ("address", "trusted"),
    [("10.0.0.5", True), ("10.0.0.6", False), ("::ffff:10.0.0.5", True), ("fd00::9%eth0", True), ("fd01::9", False)],
)
def test_only_addresses_that_are_named_are_believed(address, trusted):
    """IPv4 mapped into IPv6 is IPv4."""
    proxies = (network_of("10.0.0.5"), network_of("fd00::/64"))
    if trusted:
        check_trusted(address, proxies)
    else:
        with pytest.raises(ProxyProtocolError):
            check_trusted(address, proxies)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "10.0.0.5/8", "proxy.example", ""])
def test_everybody_is_no_proxy(text):
    """Nor is a name, or a network with host bits."""
    with pytest.raises(ValueError):
        network_of(text)
