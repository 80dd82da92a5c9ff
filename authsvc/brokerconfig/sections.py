"""The part of authsvc's own settings that belongs to a broker's configuration."""

from __future__ import annotations

import json
from typing import Final

from authsvc.brokerconfig.installation import Installation

# Where each broker's own management interface is unless its configuration says otherwise, and who authsvc is there.
MANAGEMENT: Final = {
    "emqx": "http://127.0.0.1:18083",
    "vernemq": "http://127.0.0.1:8888",
    "rabbitmq": "http://127.0.0.1:15672",
}
_MANAGERS: Final = {"emqx": "API-KEY", "rabbitmq": "authsvc-manager"}


def settings_lines(installation: Installation) -> str:
    """Return the ``[brokers.NAME]`` section, TOML, that belongs to the rendered files; "" where there is none."""
    if installation.kind == "mosquitto":
        return f"[mqtt]\nupstream = {quoted(installation.bind)}\n"
    kind = "goauth" if installation.kind == "mosquitto-go-auth" else installation.kind
    lines = [f"[brokers.{installation.name}]"]
    if installation.name != kind:
        lines.append(f"kind = {quoted(kind)}")
    if installation.secret_file:
        lines.append(f"secret_file = {quoted(installation.secret_file)}")
    management = installation.management_url or MANAGEMENT.get(installation.kind, "")
    if management:
        lines.append(f"management_url = {quoted(management)}")
        if user := _MANAGERS.get(installation.kind, ""):
            lines.append(f"management_user = {quoted(user)}")
        lines.append(f"management_password_file = {quoted(f'/etc/authsvc/{installation.name}.management')}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a string of JSON, which HOCON, TOML and JavaScript take as it is."""
    return json.dumps(text, ensure_ascii=False)
