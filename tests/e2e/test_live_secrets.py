"""Promise 8 and the log: no secret in any byte that is written, no forged line, no log without bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authsvc.core.credentials import WillMessage
from broker import wire
from tests.broker.raw_client import RawClient
from tests.e2e.process import Process, T, running


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    async with running(tmp_path, log__level="debug", log__form="json") as started:
        await started.open_definition()
        yield started


def _written(process: Process) -> dict[Path, bytes]:
    """Return everything that the process has written: its output and its data directory."""
    return {path: path.read_bytes() for path in (process.log, *process.data.rglob("*")) if path.is_file()}


async def _use_everywhere(process: Process, secret: str) -> None:
    """Put a token wherever a careless client might."""
    await process.code(secret, "wrong")
    await process.code("known", secret, secret)
    await process.code("known", "wrong", f"id-{secret}")
    await process.code(secret, secret)
    client = await RawClient.open(process.address)
    await client.connect("x", None, username=secret)
    client.cut()
    will = WillMessage(topic=f"default/default/known/{secret}", payload=secret.encode(), qos=1, retain=True)
    await process.code("known", "wrong", will=will)
    for path in (f"/v1/tenants/{secret}", f"{T}/things?q={secret}", f"{T}/things/{secret}", f"/{secret}"):
        await process.api.get(path)
    async with process.api_as(secret) as api:
        await api.get("/v1/tenants")
    await process.api.post(f"{T}/things", json={"key": secret + "/", "name": secret, secret: secret})
    await process.api.post(f"{T}/explain", json={"client_id": secret, "action": "publish", "topic": secret})
    await process.api.post("/v1/tenants", content=b'{"key": "' + secret.encode(), headers={"X-Token": secret})


async def test_no_secret_is_in_anything_that_is_written(process: Process) -> None:
    """Neither whole nor without its kind, in no log line at debug, no database page, no answer of the API."""
    await process.post(f"{T}/things", {"key": "known", "thing_definition": "dev"})
    app = await process.app_token()
    device = await process.device_token("known")
    ground = await process.post(f"{T}/grounds/default/tokens", {"name": "r", "access": "read_write"})
    admin = await process.post("/v1/admin-keys", {"name": "second", "tenant": None, "role": "owner"})
    fresh = await process.post(f"{T}/app-tokens/{app['id']}/regenerate", {"overlap_s": 5}, status=200)
    given = [answer["token"] for answer in (app, device, ground, admin, fresh)]
    live = await process.client("known", device["token"])
    await live.publish("default/default/other/x", given[0].encode(), qos=1)
    await live.publish(f"default/default/other/{given[0]}", qos=1)
    for secret in given:
        await _use_everywhere(process, secret)
    told = [
        (await process.api.get(path)).text
        for path in (
            f"{T}/app-tokens",
            f"{T}/app-tokens/{app['id']}",
            f"{T}/app-tokens?revoked=true",
            f"{T}/things/known/tokens",
            f"{T}/grounds/default/tokens",
            f"{T}/refusals?limit=1000",
            f"{T}/sessions",
            "/v1/admin-keys",
            "/openapi.json",
        )
    ]
    await process.device_token("known")
    await process.delete(f"{T}/things/known/tokens/{device['id']}")
    await asyncio.sleep(0)
    await process.terminate()
    places = {str(path): data for path, data in _written(process).items()}
    places |= {f"answer {n}": text.encode() for n, text in enumerate(told)}
    for secret in (*given, process.key):
        heart = secret.partition("_")[2][4:].encode()  # the prefix is the kind and four characters
        for place, data in places.items():
            if not (secret == process.key and place.endswith("admin-token")):
                assert heart not in data, f"a secret is in {place}: {data[data.index(heart) - 80 :][:160]!r}"
    assert "Traceback" not in process.log.read_text()


NASTY = [
    'a\n{"event": "forged"}',
    "a\r\nforged",
    "\x1b[2J\x1b[31mred",
    "a\u2028forged",
    "a\u202egnp",
    "\x9b31m",
    "x" * 256,
]


@pytest.mark.parametrize("form", ["json", "human"])
async def test_no_client_writes_a_log_line_of_its_own(tmp_path: Path, form: str) -> None:
    """New lines, escape sequences and overrides in client ids, keys, topics and paths stay inside one clean line."""
    async with running(tmp_path, log__level="debug", log__form=form) as process:
        await process.open_definition()
        app = (await process.app_token())["token"]
        for text in NASTY:
            await process.code("good", app, text)
            await process.code("good", "wrong", text)
            await process.code(text, app)
            client = await process.client("good", app)
            await client.publish(f"other/{text}".replace("\n", "").replace("\r", ""), qos=0)
            await client.send(wire.encode_subscribe(1, [(f"other/{text}", 0)]))
            await client.closed(0.05)
            await process.api.get(f"{T}/things", params={"q": text})
            async with process.api_as("x") as api:
                await api.get("/v1/tenants", headers={"User-Agent": "a\x1b[31m"})
        log = process.log.read_bytes().decode()
        lines = log.splitlines()
        assert not any(line.lstrip().startswith(("forged", '{"event": "forged"')) for line in lines)
        allowed = {"\n"}
        odd = {
            c for c in log if (ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202e") and c not in allowed
        }
        assert not odd, odd
        if form == "json":
            for line in lines:
                if line.startswith("{"):
                    json.loads(line)
        assert "Traceback" not in log


async def test_a_flood_of_denied_events_does_not_fill_the_disk_or_the_memory(tmp_path: Path) -> None:
    """20 MB of denied publishes; what is logged and kept of them is a small part."""
    async with running(tmp_path) as process:
        await process.open_definition()
        app = (await process.app_token())["token"]
        client = await process.client("a", app)
        before_mb, before_log = process.memory_mb(), process.log.stat().st_size
        payload = b"x" * 100
        sent = 0
        number = 0
        while sent < 20_000_000:
            run = b"".join(wire.encode_publish(f"other/{number + n}", payload) for n in range(500))
            number += 500
            sent += len(run)
            await client.send(run)
        async with asyncio.timeout(30):
            await client.send(wire.PINGREQ_PACKET)
            await client.expect(wire.PINGRESP, 30)
        grown = process.log.stat().st_size - before_log
        print(f"{number} denied publishes: {grown} bytes of log, {process.memory_mb() - before_mb:.0f} MB more memory")
        assert grown < 1_000_000
        assert process.memory_mb() - before_mb < 20
        assert sum(path.stat().st_size for path in process.data.rglob("*") if path.is_file()) < 2_000_000
        entries = (await process.get(f"{T}/refusals?limit=1000"))["items"]
        assert 0 < len(entries) <= 1000
        await process.sound("a", app)
