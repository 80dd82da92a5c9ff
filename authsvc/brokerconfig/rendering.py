"""The complete, safe configuration of each broker, from one template per file."""

from __future__ import annotations

from dataclasses import dataclass

from authsvc.brokerconfig.installation import Installation

KINDS = ("emqx", "vernemq", "rabbitmq", "nanomq", "mosquitto-go-auth", "mosquitto", "rumqttd", "aedes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One file of a broker: the name that it has in ``config/``, and its whole text."""

    name: str
    text: str


def render(installation: Installation) -> tuple[Rendered, ...]:
    """Return the files that the broker of `installation` needs, the main one first."""
    raise NotImplementedError(installation.kind)


def settings_lines(installation: Installation) -> str:
    """Return the ``[brokers.NAME]`` section, TOML, that belongs to the rendered files."""
    raise NotImplementedError(installation.kind)
