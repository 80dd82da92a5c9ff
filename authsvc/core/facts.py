"""The records that decisions are made of: what the store keeps, as frozen values. Times are UTC microseconds (`_us`).

Nothing here decides anything. `Name` is how a change, a cache entry and a session's footing speak of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from authsvc.core.reasons import Reason

PLATFORM_PREFIX: Final = "platform/"  # by which tokens name platform roles; no tenant's role key holds a slash


class Kind(StrEnum):
    """The kinds of record that changes speak of."""

    TENANT = "tenant"
    GROUND = "ground"
    DEFINITION = "thing_definition"
    ROLE = "role"
    PLATFORM_ROLE = "platform_role"
    LICENSE = "license"
    TOKEN = "token"
    SECRET = "secret"
    THING = "thing"
    ADMIN_KEY = "admin_key"
    CLEARING = "clearing"

    __hash__ = str.__hash__  # Enum's own is a Python call, and names are hashed several times in a CONNECT


class Name(NamedTuple):
    """One record: its kind, its tenant ("" for platform records), its key or id."""

    kind: Kind
    tenant: str
    key: str


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class RuleAction(StrEnum):
    """What a rule speaks of; `subscribe` covers asking and receiving."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One access rule as stored: a template with variables, not yet rendered for anybody."""

    effect: Effect
    action: RuleAction
    topic: str
    qos_max: int | None = None
    retain: bool | None = None


class TenantState(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    key: str
    name: str
    state: TenantState = TenantState.ACTIVE
    created_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    tenant: str
    key: str
    name: str
    created_at_us: int = 0


class ThingKind(StrEnum):
    THING = "thing"
    GATEWAY = "gateway"
    MODULE = "module"


class BindClientId(StrEnum):
    APP_TOKEN = "app_token"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulePolicy:
    """What the gateways of a definition may register behind themselves."""

    definition: str
    auto_register: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingDefinition:
    tenant: str
    key: str
    name: str
    kind: ThingKind = ThingKind.THING
    rules: tuple[Rule, ...] = ()
    bind_client_id: BindClientId = BindClientId.APP_TOKEN
    modules: ModulePolicy | None = None
    created_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A tenant's role, or a platform role when `tenant` is empty (only those may leave the tenant's wall)."""

    tenant: str
    key: str
    name: str
    rules: tuple[Rule, ...] = ()
    permissions: tuple[str, ...] = ()
    created_at_us: int = 0

    @property
    def platform(self) -> bool:
        return self.tenant == ""


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    tenant: str
    key: str
    seats: int
    used: int = 0
    created_at_us: int = 0


class TokenKind(StrEnum):
    """The part after ``as`` in the visible prefix of a token."""

    APP = "app"
    DEVICE = "dev"
    GROUND = "gnd"
    ADMIN = "adm"
    REFRESH = "ref"
    SECRET = "sec"


class GroundAccess(StrEnum):
    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An app, device or ground token without its secret. Fields of other kinds keep their defaults.

    `roles` holds tenant role keys and ``platform/{key}``. `definition` is the thing definition of app tokens.
    `ground` is the app token's registration ground ("" when it names none) or the ground token's ground.
    """

    id: str
    tenant: str
    kind: TokenKind
    name: str
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    created_at_us: int = 0
    prefix: str = ""
    definition: str = ""
    ground: str = ""
    roles: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    security_tags: tuple[str, ...] = ()
    license: str = ""
    auto_register: bool = False
    max_things: int | None = None
    registered: int = 0
    thing: str = ""
    access: GroundAccess = GroundAccess.READ


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret of a token: only its SHA-256 digest is kept. A regenerate adds one and ends the older."""

    id: str
    token_id: str
    digest: bytes = field(repr=False)
    expires_at_us: int | None = None
    revoked_at_us: int | None = None


class ThingState(StrEnum):
    ACTIVE = "active"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One registered device, gateway or module. `token_id` registered it ("" when an operator did)."""

    tenant: str
    key: str
    name: str
    definition: str
    ground: str
    tags: tuple[str, ...] = ()
    security_tags: tuple[str, ...] = ()
    state: ThingState = ThingState.ACTIVE
    token_id: str = ""
    license: str = ""
    gateway: str = ""
    client_id: str | None = None
    first_seen_us: int | None = None
    last_seen_us: int | None = None
    created_at_us: int = 0


class Retired(Enum):
    """Stands where a thing would: its key is remembered as deleted, and only an operator brings it back."""

    RETIRED = "retired"


RETIRED: Final = Retired.RETIRED


class AdminRole(StrEnum):
    OWNER = "owner"
    OPERATOR = "operator"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """A key for the HTTP API; `tenant` None is a platform key that sees every tenant."""

    id: str
    name: str
    tenant: str | None
    role: AdminRole
    prefix: str = ""
    created_at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One recorded fact of the feed, in the order of `position`. `detail` holds plain JSON values, never a secret."""

    position: int
    at_us: int
    name: Name
    op: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a CONNECT was not admitted. `detail` is for the operator and holds no secret."""

    reason: Reason
    detail: str = ""


class KeySet:
    """A changing set of thing keys that a grant refers to (`{module}`, `{member}`); `version` grows with each change.

    Whoever memoises a decision compares the version before trusting it.
    """

    __slots__ = ("__weakref__", "keys", "version")  # whoever shares them keeps no more than are in use

    def __init__(self, keys: frozenset[str] | set[str] = frozenset()) -> None:
        self.keys: set[str] = set(keys)
        self.version = 0

    def add(self, key: str) -> None:
        if key not in self.keys:
            self.keys.add(key)
            self.version += 1

    def discard(self, key: str) -> None:
        if key in self.keys:
            self.keys.discard(key)
            self.version += 1

    def replace(self, keys: set[str] | frozenset[str]) -> None:
        if keys != self.keys:
            self.keys = set(keys)
            self.version += 1

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def __len__(self) -> int:
        return len(self.keys)
