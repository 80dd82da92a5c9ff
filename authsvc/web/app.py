"""The HTTP face: a Starlette root with probes and the OpenAPI document, and FastAPI mounted for ``/v1``."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.applications import Starlette

if TYPE_CHECKING:
    from authsvc.service import Service

MAX_BODY_BYTES = 256 * 1024  # the largest honest body is a definition of some hundred rules, about 50 KiB

Check = Callable[[], str | None]


def create_app(
    service: Service,
    *,
    now_us: Callable[[], int],
    random: Callable[[int], bytes] = secrets.token_bytes,
    readiness: Mapping[str, Check] = MappingProxyType({}),
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Starlette:
    """Return the application; nothing is opened or started by it.

    `readiness` maps a name ("upstream", "listeners") to a check that returns what is wrong, or None; the store and the
    change feed are checked without being named. Raises nothing.
    """
    raise NotImplementedError
