"""Sans-I/O PROXY protocol version 2: who connects, as a proxy in front says it, and as we say it to a broker behind.

Source: "The PROXY protocol, versions 1 & 2" of HAProxy (doc/proxy-protocol.txt), section 2.2. Version 1, a line of
text, is refused: whoever may say who the client is should not have two ways to say it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES: Final = 16  # signature, version and command, family and protocol, length
# Of what follows: addresses take 216 bytes at most, TLVs come after them. 2.2 wants room for 520; some carry a
# certificate's names.
MAX_LENGTH: Final = 2_048

_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyProtocolError(ValueError):
    """What came is no header that is believed; the message says why, without bytes of the peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header. `source` is the client's (address, port); None where the connection's own address holds.

    That is so for LOCAL, which a proxy says of its own health checks, and for families without an IP address.
    """

    source: tuple[str, int] | None
    size: int  # in bytes, of the whole header


def network_of(text: str) -> Network:
    """Return the network of an address or ``address/prefix``. Raises ValueError; also for all addresses at once."""
    network = ipaddress.ip_network(text)
    if network.prefixlen == 0:
        raise ValueError(f"`{text}` is everybody, and anybody could then claim any address; name the proxies")
    return network


def check_trusted(address: str, proxies: Sequence[Network]) -> None:
    """Raise ProxyProtocolError unless a connection from that address may carry a header."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not any(ip.version == network.version and ip in network for network in proxies):
        raise ProxyProtocolError("only the addresses in `proxy-protocol` may connect to this listener")


def missing(buffer: bytes) -> int:
    """Return how many more bytes certainly belong to the header, 0 when it is whole: no byte after it is asked for.

    Raises:
        ProxyProtocolError: as soon as the bytes cannot become a header that is taken.
    """
    if not SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
        if buffer[:5] == b"PROXY":
            raise ProxyProtocolError("a header of version 1; let the proxy send version 2 (haproxy: send-proxy-v2)")
        raise ProxyProtocolError("no header: what came does not begin with the signature of version 2")
    if len(buffer) > 12 and buffer[12] not in {_LOCAL, _PROXY}:
        raise ProxyProtocolError(f"version and command {buffer[12]:#04x}; known are 0x20 and 0x21")
    if len(buffer) < FIXED_BYTES:
        return FIXED_BYTES - len(buffer)
    length = int.from_bytes(buffer[14:16], "big")
    if length > MAX_LENGTH:
        raise ProxyProtocolError(f"{length} bytes of addresses and extensions; {MAX_LENGTH} are taken at most")
    return max(0, FIXED_BYTES + length - len(buffer))


def parse(buffer: bytes) -> Header:
    """Return the header that `buffer` begins with; it must be whole (`missing` is 0).

    Extensions (TLVs) are checked for their lengths and skipped.

    Raises:
        ProxyProtocolError: cut, of another protocol than TCP, or lengths that do not fit.
    """
    if missing(buffer):
        raise ProxyProtocolError("the header is cut")
    size = FIXED_BYTES + int.from_bytes(buffer[14:16], "big")
    body = buffer[FIXED_BYTES:size]
    if buffer[12] == _LOCAL:  # 2.2: the address block is to be discarded, whatever its family
        return Header(source=None, size=size)
    family = buffer[13]
    if family not in _ADDRESS_BYTES:
        raise ProxyProtocolError(f"family and protocol {family:#04x}; known are 0x00, 0x11, 0x21 and 0x31 (TCP)")
    taken = _ADDRESS_BYTES[family]
    if len(body) < taken:
        raise ProxyProtocolError(f"{len(body)} bytes where the addresses alone take {taken}")
    if family != _UNSPEC:  # without a family the rest has no form either
        _skip_extensions(body, taken)
    if family == _TCP4:
        return Header(source=(str(ipaddress.IPv4Address(body[0:4])), int.from_bytes(body[8:10], "big")), size=size)
    if family == _TCP6:
        address = ipaddress.IPv6Address(body[0:16])
        shown = address.ipv4_mapped or address
        return Header(source=(str(shown), int.from_bytes(body[32:34], "big")), size=size)
    return Header(source=None, size=size)


def _skip_extensions(body: bytes, position: int) -> None:
    """2.2.1: a byte of type, two of length, the value; nothing may be left over."""
    while position < len(body):
        end = position + 3 + int.from_bytes(body[position + 1 : position + 3], "big")
        if end > len(body):
            raise ProxyProtocolError("an extension that reaches beyond the header")
        position = end


def encode(source: tuple[str, int] | None) -> bytes:
    """Return the header for a connection on behalf of `source`; LOCAL for None, and for what is no IP address.

    The destination, which the gate's own listener has for many addresses, is given as the unspecified one, port 0.
    """
    try:
        address = ipaddress.ip_address(source[0].partition("%")[0]) if source is not None else None
    except ValueError:
        address = None
    if address is None or source is None:
        return SIGNATURE + bytes((_LOCAL, _UNSPEC, 0, 0))
    family = _TCP4 if address.version == 4 else _TCP6
    ports = source[1].to_bytes(2, "big") + bytes(2)
    body = address.packed + bytes(len(address.packed)) + ports
    return SIGNATURE + bytes((_PROXY, family)) + len(body).to_bytes(2, "big") + body
