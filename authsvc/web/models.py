"""The words that all bodies are made of: strict types, keys, text, times. A resource's own bodies stand in its router.

Bodies are strict: an unknown field, a number for a string or a string for a number is a 422, nothing is converted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from authsvc.core.facts import Effect, Rule, RuleAction
from authsvc.core.topics import KEY_PATTERN
from authsvc.web.pages import DEFAULT_LIMIT, MAX_CURSOR_CHARS, MAX_LIMIT
from authsvc.web.problems import CodedValueError

WHOLE_KEY = f"^{KEY_PATTERN}$"
ID_PATTERN = r"^[0-9A-Za-z_-]{1,64}$"
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
MAX_TAGS = 64
MAX_RULES = 256
MAX_TOPIC_CHARS = 1024
MAX_COUNT = 2**31 - 1
MAX_OVERLAP_S = 30 * 86_400

T = TypeVar("T")


class Body(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    def given(self, name: str) -> bool:
        """Tell whether the caller wrote the field, be it as null: RFC 7396 tells the two apart."""
        return name in self.model_fields_set


class Answer(BaseModel):
    """What a caller gets."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


Key = Annotated[str, StringConstraints(pattern=WHOLE_KEY, max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=TEXT_PATTERN)]
Topic = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOPIC_CHARS)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=TEXT_PATTERN)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(lambda tags: list(dict.fromkeys(tags)))]
RoleName = Annotated[str, StringConstraints(pattern=f"^(platform/)?{KEY_PATTERN}$", max_length=73)]
Roles = Annotated[list[RoleName], Field(max_length=MAX_TAGS), AfterValidator(lambda names: list(dict.fromkeys(names)))]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]

KeyInPath = Annotated[str, Path(pattern=WHOLE_KEY, max_length=64)]
IdInPath = Annotated[str, Path(pattern=ID_PATTERN, max_length=64)]

# RFC 3339 5.6; the offset is not optional, the letters may be small, 60 seconds are a leap second (no Unix time has it)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def parse_time(value: object) -> int:
    """Return UTC microseconds of an RFC 3339 time with offset; digits below a microsecond are dropped."""
    found = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise CodedValueError("time_invalid", "not an RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z")
    date, clock, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}+00:00") - _EPOCH
    except ValueError:
        raise CodedValueError("time_invalid", "there is no such day or hour") from None
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise CodedValueError("time_invalid", "there is no such offset")
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    microseconds = (moment - offset) // _US + int(((fraction or "") + "000000")[:6])
    if not 0 < microseconds < _END_US:
        raise CodedValueError("time_out_of_range", "not between the years 1970 and 9999")
    return microseconds


def format_time(value_us: int) -> str:
    """Return RFC 3339 in UTC, ``2030-01-31T12:00:00Z``, with microseconds only where there are some."""
    return (_EPOCH + timedelta(microseconds=value_us)).isoformat().replace("+00:00", "Z")


_END_US = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _US

_TIME_SCHEMA = {"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}
Time = Annotated[int, BeforeValidator(parse_time), WithJsonSchema(_TIME_SCHEMA)]
Instant = Annotated[int, PlainSerializer(format_time, return_type=str), WithJsonSchema(_TIME_SCHEMA)]


class RuleBody(BaseModel):
    """One access rule; the same going in and coming out."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        title="Rule",
        json_schema_extra={
            "examples": [{"effect": "allow", "action": "publish", "topic": "{tenant}/{ground}/{thing}/state/#"}]
        },
    )

    effect: Literal["allow", "deny"]
    action: Literal["publish", "subscribe"]
    topic: Topic
    qos_max: Annotated[int, Field(ge=0, le=2)] | None = None
    retain: bool | None = None

    def rule(self) -> Rule:
        return Rule(
            effect=Effect(self.effect),
            action=RuleAction(self.action),
            topic=self.topic,
            qos_max=self.qos_max,
            retain=self.retain,
        )

    @classmethod
    def of(cls, rule: Rule) -> RuleBody:
        return cls.model_construct(
            effect=rule.effect.value,
            action=rule.action.value,
            topic=rule.topic,
            qos_max=rule.qos_max,
            retain=rule.retain,
        )


Rules = Annotated[list[RuleBody], Field(max_length=MAX_RULES)]


def rules_of(rules: Sequence[Rule]) -> list[RuleBody]:
    """Return stored rules as bodies."""
    return [RuleBody.of(rule) for rule in rules]


class Items(Answer, Generic[T]):
    """One page of a list; `next` is the cursor of the following page, or null."""

    items: list[T]
    next: str | None


Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="how many at most")]
Cursor = Annotated[
    str | None, Query(min_length=1, max_length=MAX_CURSOR_CHARS, description="`next` of the page before")
]
Search = Annotated[
    str | None, Query(min_length=1, max_length=256, pattern=TEXT_PATTERN, description="part of key or name, any case")
]
KeyFilter = Annotated[str | None, Query(pattern=WHOLE_KEY, max_length=64)]
Revoked = Annotated[bool, Query(description="list the revoked ones instead")]
Cascade = Annotated[bool, Query(description="delete what refers to it as well")]

DEFAULT_PAGE = DEFAULT_LIMIT


def or_default(value: T | None, default: T) -> T:
    """Return the value, or the default where the caller wrote null."""
    return default if value is None else value


def merged(body: Body, **defaults: Any) -> dict[str, Any]:
    """Return the fields that a PATCH wrote, null replaced by the field's default (RFC 7396: null removes)."""
    return {name: or_default(getattr(body, name), defaults.get(name)) for name in body.model_fields_set}
