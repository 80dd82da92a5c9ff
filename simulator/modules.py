"""Modules: things behind a gateway. They have no connection; an operator binds them, their gateway speaks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from simulator.ledger import Ledger
from simulator.provision import Api
from simulator.shape import GatewayPlan


async def bind(api: Api, gateways: Sequence[GatewayPlan], ledger: Ledger) -> int:
    """Bind every module to its gateway, where that has registered; return how many. Raises CommandFailed."""
    there = [gateway for gateway in gateways if ledger.connack.get(gateway.key) == 0]
    await asyncio.gather(*(_bind(api, gateway) for gateway in there))
    return sum(len(gateway.modules) for gateway in there)


async def _bind(api: Api, gateway: GatewayPlan) -> None:
    bound = {module["key"] for module in await api.items(f"/things/{gateway.key}/modules")}
    for module in gateway.modules:
        if module not in bound:
            body = {"key": module, "thing_definition": "module"}
            await api.call("POST", f"/things/{gateway.key}/modules", body=body)
