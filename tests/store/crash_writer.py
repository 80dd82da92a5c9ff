"""A process that writes without pause until it is killed, and tells on stdout what was answered, line by line."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from pathlib import Path

from authsvc.core.facts import Thing
from authsvc.core.things import Plan
from authsvc.store import Store

LANES = 8  # writers at once: their works share commits


async def main(path: Path, round_: str) -> None:
    store = await Store.open(path, now_us=lambda: time.time_ns() // 1000)
    if not (await store.tenants.list(q="acme")).items:
        await store.tenants.create("acme")
        await store.licenses.create("acme", "pool", seats=10**9)
    digest = hashlib.sha256(round_.encode()).digest()
    written = await store.app_tokens.create(
        "acme", name=round_, digest=digest, prefix="asapp_abcd", definition="gateway", license="pool"
    )
    token = written.value

    async def lane(number: int) -> None:
        count = 0
        while True:
            key = f"r{round_}-{number}-{count}"
            thing = Thing(tenant="acme", key=key, name=key, definition="gateway", ground="default")
            plan = Plan(thing=thing, license="pool", max_things=None, token_id=token.id)
            registered = await store.register(plan, bind_client_id=key)
            assert isinstance(registered.value, Thing)
            print("registered", key, registered.position, flush=True)
            if count % 5 == 0:
                await store.things.delete("acme", key)
                print("deleted", key, 0, flush=True)
            count += 1

    await asyncio.gather(*(lane(number) for number in range(LANES)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
