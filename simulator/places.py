"""Where a run happens: the broker's door, and the topics of its tenant and grounds in the native layout."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The address of the MQTT listener."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One ground of one tenant."""

    tenant: str
    ground: str

    @property
    def everything(self) -> str:
        return f"{self.tenant}/{self.ground}/#"

    def topic(self, thing: str, suffix: str) -> str:
        return f"{self.tenant}/{self.ground}/{thing}/{suffix}"
