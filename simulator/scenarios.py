"""Scenarios: TOML files in, typed values out. An unknown key is an error that names it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

KEY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"  # shorter than the service's keys: suffixes are added to it


class ScenarioInvalid(Exception):  # noqa: N818  # says what is wrong with the file, for the person who wrote it
    """The scenario cannot be read or is not well-formed; the text names file and key."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """An access rule, as the HTTP API takes it; the service judges it."""

    effect: Literal["allow", "deny"]
    action: Literal["publish", "subscribe"]
    topic: str
    qos_max: int | None = None
    retain: bool | None = None


class Fleet(_Strict):
    gateways: int = Field(ge=1, le=100_000)
    modules: int = Field(default=0, ge=0, le=100)
    interval_s: float = Field(default=1.0, gt=0)
    payload_bytes: int = Field(default=120, ge=80, le=65_536)
    lost: int = Field(default=0, ge=0)
    rules: tuple[Rule, ...] | None = None


class Application(_Strict):
    commands: int = Field(default=1, ge=0)


class Device(_Strict):
    reports: int = Field(default=5, ge=1)


class AttackKind(StrEnum):
    WRONG_TOKEN = "wrong_token"  # noqa: S105  # the name of an attack
    WILDCARD_GRAB = "wildcard_grab"
    FORBIDDEN_WILL = "forbidden_will"


class WrongToken(_Strict):
    kind: Literal[AttackKind.WRONG_TOKEN]
    attempts: int = Field(default=6, ge=1)


class WildcardGrab(_Strict):
    kind: Literal[AttackKind.WILDCARD_GRAB]
    filters: tuple[str, ...] = Field(min_length=1)


class ForbiddenWill(_Strict):
    kind: Literal[AttackKind.FORBIDDEN_WILL]
    attempts: int = Field(default=3, ge=1)


Attacker = Annotated[WrongToken | WildcardGrab | ForbiddenWill, Field(discriminator="kind")]


class Scenario(_Strict):
    """One scenario. `name` begins the keys of everything that a run creates."""

    name: str = Field(pattern=KEY)
    title: str = ""
    seed: int = 0
    duration_s: float = Field(default=6.0, gt=0, le=86_400)
    fleet: Fleet
    application: Application = Application()
    device: Device = Device()
    attackers: tuple[Attacker, ...] = ()

    @property
    def ground(self) -> str:
        return self.name

    @property
    def other_ground(self) -> str:
        return f"{self.name}-other"

    @property
    def definition(self) -> str:
        return f"{self.name}-gateway"


def load(path: Path) -> Scenario:
    """Return the scenario of a file; `name` defaults to the file's stem.

    Raises:
        ScenarioInvalid: see there.

    """
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Scenario).validate_python({"name": path.stem, **read})
    except OSError as error:
        raise ScenarioInvalid(f"`{path}` cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioInvalid(f"`{path}` is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(level) for level in first["loc"])
        raise ScenarioInvalid(f"`{path}`: `{place}`: {first['msg'].lower()}") from None


def find(name: str) -> Path:
    """Return the file that `name` means: a path, or a scenario that `available` lists."""
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    for known in available():
        if known.stem == name:
            return known
    names = ", ".join(known.stem for known in available())
    raise ScenarioInvalid(f"no scenario `{name}`; there are: {names or 'none here'}")


def available() -> Iterator[Path]:
    """Yield the scenarios of ``config/scenarios`` here, else of the source tree or the installed package."""
    installed = Path(str(resources.files("simulator")))
    for folder in (
        Path("config/scenarios"),
        installed.parent / "config" / "scenarios",
        installed / "installed_scenarios",
    ):
        found = sorted(folder.glob("*.toml"))
        if found:
            yield from found
            return
