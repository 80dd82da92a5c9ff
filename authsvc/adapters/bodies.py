"""The bodies of hook requests: whole, bounded, and in time."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive

from authsvc.adapters.adapter import MalformedHook
from authsvc.adapters.strict import MAX_HOOK_BYTES

BODY_S: Final = 5.0  # brokers give up on a whole request after about that
TICK_S: Final = 0.5  # and this much later at most
_TOO_SLOW: Final = "the body came too slowly"


class Bodies:
    """Reads bodies and gives up on those that come too slowly; `run` it as a task.

    Nearly every body is there when it is asked for: one watch over all that are being read costs less than a timer for
    each.
    """

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[object], float] = {}  # whoever reads, the oldest first

    async def read(self, receive: Receive) -> bytes:
        """Return the whole body. Raises MalformedHook for one that is too long or too slow, or whose caller left."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._since[task] = loop.time()
        try:
            body: bytes = b""
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise MalformedHook("the caller left before its request was whole")
                body += message.get("body", b"")
                if len(body) > MAX_HOOK_BYTES:
                    raise MalformedHook(f"the body has more than {MAX_HOOK_BYTES} bytes")
                if not message.get("more_body", False):
                    return body
        except asyncio.CancelledError as error:
            if error.args != (_TOO_SLOW,) or task.uncancel() > 0:
                raise
            raise MalformedHook(_TOO_SLOW) from None
        finally:
            del self._since[task]

    async def run(self) -> None:
        """Watch, for ever; owned by the caller's task group."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            late = loop.time() - BODY_S
            for task, since in self._since.items():
                if since > late:
                    break
                task.cancel(_TOO_SLOW)
