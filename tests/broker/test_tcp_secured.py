"""A broker behind that wants TLS and credentials, and whether it speaks MQTT 5.0: asked, not guessed."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.tcp import TcpUpstream
from broker.tcp.dial import Dial
from broker.upstream import Hello
from tests.broker.certificates import write_certificate
from tests.broker.link_owner import Owner, connected, subscribe
from tests.broker.mosquitto import BINARY, Mosquitto, free_port


@pytest.fixture
async def secured(tmp_path: Path):
    """A Mosquitto with TLS that knows one user; yields (port, CA file)."""
    if BINARY is None:
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(tmp_path)
    certificate, key = write_certificate(tmp_path)
    passwords = tmp_path / "passwords"
    passwords.write_text("gate:a secret\n")
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, capture_output=True)
    port = free_port()
    plain = broker._config.read_text().replace("allow_anonymous true", "")
    broker._config.write_text(
        f"per_listener_settings true\n{plain}allow_anonymous true\n"
        f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
        f"allow_anonymous false\npassword_file {passwords}\n"
    )
    await broker.start()
    yield port, certificate
    await broker.stop()


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    context.hostname_checks_common_name = False
    return context


async def test_messages_go_through_tls_with_credentials(secured):
    """The service connection too; the upstream is asked for 5.0 with the same credentials."""
    port, certificate = secured
    upstream = TcpUpstream(dial=Dial(port=port, tls=trusting(certificate), username="gate", password=b"a secret"))
    await upstream.start()
    assert upstream.reachable
    assert upstream.capabilities.mqtt5
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 1))
    await upstream.publish("x", b"m", qos=1, retain=False)
    assert (await owner.published())[0].payload == b"m"
    link.close()
    await link.wait_closed()
    await upstream.stop()


@pytest.mark.parametrize("wrong", ["password", "nobody", "certificate", "name", "plain"])
async def test_what_is_wrong_is_an_error_without_the_password(secured, wrong):
    """A certificate that nobody vouches for, another's name, plain text to a TLS port, bad credentials."""
    port, certificate = secured
    dial = {
        "password": Dial(port=port, tls=trusting(certificate), username="gate", password=b"guessed"),
        "nobody": Dial(port=port, tls=trusting(certificate)),
        "certificate": Dial(port=port, tls=ssl.create_default_context(), username="gate", password=b"a secret"),
        "name": Dial(host="localhost", port=port, tls=trusting(certificate), username="gate", password=b"a secret"),
        "plain": Dial(port=port, username="gate", password=b"a secret"),
    }[wrong]
    upstream = TcpUpstream(dial=dial, connect_timeout_s=2)
    with pytest.raises(UpstreamUnavailable) as caught:
        await upstream.connect(Owner(), "A" * 22, clean=True)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(dial)
    assert "guessed" not in repr(dial)


async def test_mosquitto_speaks_5_and_a_session_of_5_works(tmp_path):
    """Found by asking; an answer of 5.0 is read with its properties."""
    broker = Mosquitto(tmp_path)
    await broker.start()
    upstream = TcpUpstream("127.0.0.1", broker.port)
    assert not upstream.capabilities.mqtt5
    await upstream.start()
    assert upstream.capabilities.mqtt5
    owner = Owner()
    hello = Hello(level=wire.MQTT_5_0, session_expiry_s=60, receive_maximum=5)
    link = await upstream.connect(owner, "A" * 22, clean=False, hello=hello)
    assert link.connack.code == 0
    codec = wire.codec_of(5)
    link.write(codec.encode_subscribe(1, [("x", 1)]))
    await owner.until(lambda: bool(owner.of(wire.SUBACK)))
    link.abort()
    await link.wait_closed()
    link = await upstream.connect(Owner(), "A" * 22, clean=False, hello=hello)
    assert link.session_present
    await upstream.stop()
    await broker.stop()


class Answers(asyncio.Protocol):
    """A broker that answers a CONNECT of each level with these bytes, or by closing."""

    said: dict[int, bytes] = {}

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data[0] == wire.PINGREQ:
            self.transport.write(wire.PINGRESP_PACKET)
        elif data[0] == wire.CONNECT:
            answer = self.said[data[8]]
            self.transport.write(answer) if answer else self.transport.close()


@pytest.mark.parametrize(
    ("answer", "speaks"),
    [
        (bytes.fromhex("20 02 00 01"), False),
        (bytes.fromhex("20 03 00 84 00"), False),
        (b"", False),
        (bytes.fromhex("20 03 00 00 00"), True),
        (bytes.fromhex("20 06 00 00 03 22 00 0A"), True),
    ],
    ids=["3.1.1-refusal", "5.0-refusal", "closed", "yes", "yes-with-properties"],
)
async def test_a_broker_is_believed_what_it_answers(answer, speaks):
    """Whatever it takes to say no."""

    class Broker(Answers):
        said = {4: wire.encode_connack(0), 5: answer}

    server = await asyncio.get_running_loop().create_server(Broker, "127.0.0.1", 0)
    upstream = TcpUpstream("127.0.0.1", server.sockets[0].getsockname()[1])
    await upstream.start()
    assert upstream.reachable
    assert upstream.capabilities.mqtt5 is speaks
    await upstream.stop()
    server.close()


@pytest.mark.parametrize("code", [0x88, 0x97, 0x9F])
async def test_a_broker_that_is_full_or_busy_has_not_said_that_it_does_not_speak_5(code):
    """What was known of it stays."""

    class Broker(Answers):
        said = {4: wire.encode_connack(0), 5: bytes.fromhex("20 03 00 00 00")}

    server = await asyncio.get_running_loop().create_server(Broker, "127.0.0.1", 0)
    upstream = TcpUpstream("127.0.0.1", server.sockets[0].getsockname()[1])
    await upstream.start()
    Broker.said = {5: bytes((0x20, 3, 0, code, 0))}
    await upstream._ask_mqtt5()
    assert upstream.capabilities.mqtt5
    await upstream.stop()
    server.close()


@pytest.mark.parametrize(("setting", "speaks"), [("yes", True), ("no", False)])
async def test_a_setting_is_believed_without_asking(setting, speaks):
    """For brokers that answer 5.0 with something else than they mean."""
    upstream = TcpUpstream("127.0.0.1", free_port(), mqtt5=setting)
    assert upstream.capabilities.mqtt5 is speaks
    await upstream._ask_mqtt5()
    assert upstream.capabilities.mqtt5 is speaks
