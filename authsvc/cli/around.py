"""Whether the broker behind the gate can be reached around it: what is found is said in words, with the way out.

A TCP listener is knocked at from each address of this machine, without credentials; of a Unix socket the modes on the
way to it tell who may connect. Nothing is changed: a session that is let in is clean and leaves at once.
"""

from __future__ import annotations

import grp
import ipaddress
import itertools
import secrets
import socket
import ssl
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from authsvc.settings import Settings

TIMEOUT_S = 2.0
CLIENT_ID_BYTES = 11

State = Literal["ok", "warn", "fail"]
Door = Literal["shut", "asks", "open"]  # nobody listens, it wants credentials (or is no broker), anybody is let in


@dataclass(frozen=True, slots=True)
class Finding:
    """One way around the gate that was tried."""

    state: State
    detail: str


def ways_around(settings: Settings) -> Iterator[Finding]:
    """Yield what was found for the broker that these settings put behind the gate."""
    mqtt = settings.mqtt
    data = settings.service.data
    if mqtt.upstream:
        path = mqtt.upstream.removeprefix("unix:")
        if path != mqtt.upstream or "/" in path:
            yield from _socket(Path(path))
        else:
            yield from _port(mqtt.upstream, settings)
    elif mqtt.broker == "amqtt":
        yield Finding("ok", "the embedded broker has no listener of its own")
    else:
        managed = [data / "mosquitto" / "mosquitto.sock", data / "rumqttd" / "rumqttd.toml"]
        found = [file for file in managed if file.exists()]
        if not found:
            yield Finding("ok", f"no managed broker has run in `{data}`")
        for file in found:
            yield from _socket(file) if file.suffix == ".sock" else _rumqttd(file)


# --- TCP -------------------------------------------------------------------------------------------------------------


def _port(where: str, settings: Settings) -> Iterator[Finding]:
    host, _, port_text = where.rpartition(":")
    host = host.strip("[]")
    if not port_text.isdigit():
        yield Finding("fail", f"`{where}` is no address of the form HOST:PORT")
        return
    port, tls = int(port_text), settings.mqtt.upstream_tls
    door = knock(host, port, tls=tls)
    if door == "shut":
        yield Finding("warn", f"nobody listens on {where}: start the broker and look again")
        return
    is_here = _is_loopback(host)
    if door == "open" and not is_here:
        yield Finding(
            "fail",
            f"{where} lets anybody in without credentials, and whoever reaches it passes by the gate: "
            "give it a user for the gate (mqtt.upstream_username), or a network that only the gate reaches",
        )
        return
    reached = [
        (address, found)
        for address in other_addresses()
        if not _is_ours(address, port, settings) and (found := knock(address, port, tls=tls)) != "shut"
    ]
    for address, found in reached if is_here else ():
        if found == "open":
            detail = (
                f"the broker also listens on {address}:{port} and lets anybody in: other machines pass by the gate; "
                "bind its listener to 127.0.0.1 (mosquitto: `listener PORT 127.0.0.1`)"
            )
            yield Finding("fail", detail)
        else:
            detail = f"the broker also listens on {address}:{port}; it asks who comes, but bind it to 127.0.0.1"
            yield Finding("warn", detail)
    if door == "open":
        detail = (
            f"{where} lets in every user of this machine, past the gate; a Unix socket in a closed directory "
            "(or mqtt.upstream_username) shuts them out"
        )
        yield Finding("warn", detail)
    elif not reached or not is_here:
        yield Finding("ok", f"{where} asks who comes, and no other address of this machine leads to it")


def knock(host: str, port: int, *, tls: bool = False) -> Door:
    """Return how the address receives a CONNECT of MQTT 3.1.1 without credentials."""
    from broker import wire  # noqa: PLC0415  # not loaded for an operator's other commands

    connect = wire.encode_connect(client_id=secrets.token_hex(CLIENT_ID_BYTES), clean_session=True, keep_alive_s=10)
    try:
        connection = socket.create_connection((host, port), timeout=TIMEOUT_S)
    except OSError:
        return "shut"
    try:
        with connection:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is the door that is looked at
                connection = context.wrap_socket(connection)
            with connection:
                connection.sendall(connect)
                answer = connection.recv(4)
                if answer[:1] == b"\x20" and answer[3:4] == b"\x00":
                    connection.sendall(wire.DISCONNECT_PACKET)
                    return "open"
    except OSError:  # ssl.SSLError among them: it wants a certificate
        return "asks"
    return "asks"


def other_addresses() -> list[str]:
    """Return this machine's addresses that are not loopback, as far as the system tells (proc(5))."""
    found: set[str] = set()
    try:
        lines = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
        for line, after in itertools.pairwise(lines):
            if "|--" in line and "/32 host LOCAL" in after:
                found.add(line.rpartition(" ")[2])
        for row in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(row.split()[0]))))
    except (OSError, ValueError):
        for _, _, _, _, address in _resolved(socket.gethostname()):
            found.add(str(address[0]))
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    return sorted(str(ip) for ip in addresses if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified))


def _resolved(name: str) -> list[tuple[object, object, object, object, tuple[object, ...]]]:
    try:
        return list(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except OSError:
        return []


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_ours(address: str, port: int, settings: Settings) -> bool:
    """Whether the gate itself is expected to listen there."""
    host, _, bound = settings.mqtt.bind.rpartition(":")
    return bound == str(port) and host.strip("[]") in {address, "0.0.0.0", "::"}  # noqa: S104  # compared


# --- a Unix socket ---------------------------------------------------------------------------------------------------


def _socket(path: Path) -> Iterator[Finding]:
    """Who may connect: whoever may write the socket and search every directory on the way (unix(7))."""
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
        parents = [(folder, folder.stat()) for folder in real.parents]
    except OSError as error:
        yield Finding("warn", f"`{path}`: {(error.strerror or 'cannot be looked at').lower()}")
        return
    if not stat.S_ISSOCK(mode):
        yield Finding("fail", f"`{path}` is no socket")
        return
    nearest, about = parents[0]
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        detail = f"everybody may put another socket in the place of `{path}`; chmod 700 {nearest}"
        yield Finding("fail", detail)
    if mode & stat.S_IWOTH and all(entry.st_mode & stat.S_IXOTH for _, entry in parents):
        detail = (
            f"every user of this machine may connect to `{path}` ({stat.S_IMODE(mode):04o}), past the gate; "
            f"chmod 700 {nearest}, and let the broker and the gate run as its owner"
        )
        yield Finding("fail", detail)
    elif mode & stat.S_IWGRP and all(entry.st_mode & (stat.S_IXGRP | stat.S_IXOTH) for _, entry in parents):
        detail = f"the members of group `{_group(real.stat().st_gid)}` may connect to `{path}`, past the gate"
        yield Finding("warn", detail)
    else:
        yield Finding("ok", f"`{path}` is reached by its owner only")


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


# --- a managed rumqttd -----------------------------------------------------------------------------------------------


def _rumqttd(config: Path) -> Iterator[Finding]:
    """Its configuration has the password of the gate, and says where it listens."""
    try:
        mode = stat.S_IMODE(config.stat().st_mode)
        content = tomllib.loads(config.read_text(encoding="utf-8"))
        listens = [str(content[version]["1"]["listen"]) for version in ("v4", "v5")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding("warn", f"`{config}` cannot be read ({type(error).__name__}): run doctor as the service's user")
        return
    if mode & 0o077:
        detail = f"`{config}` ({mode:04o}) has the gate's password and is readable by others; chmod 600"
        yield Finding("fail", detail)
    for where in listens:
        host, _, port = where.rpartition(":")
        door = knock(host, int(port))
        if door == "open" or not _is_loopback(host):
            detail = f"{where} is not for the gate alone; end what listens there and restart authsvc"
            yield Finding("fail", detail)
        else:
            said = "asks who comes" if door == "asks" else "is not listened on"
            yield Finding("ok", f"rumqttd's {where} {said}")
