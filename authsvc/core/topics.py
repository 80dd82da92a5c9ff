"""Topic names, filters and templates, and the three relations between them, exact (MQTT 3.1.1 section 4.7).

`matches` asks about one topic, `covers` whether one filter contains another, `overlaps` whether two share a topic.
The `levels_…` forms take filters that are already split, and whose levels may also be a `KeySet`: such a *set level*
matches by membership (`{module}`, `{member}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from authsvc.core.errors import InvalidInput
from authsvc.core.facts import KeySet

MAX_TOPIC_BYTES: Final = 65_535  # 1.5.3: the length of a string travels in two bytes
MAX_FILTER_LEVELS: Final = 32  # ours: a deeper filter is refused (0x80), it is not malformed
RESERVED_TENANT: Final = "me"  # will stand for a device's own place at the beginning of a topic

Level: TypeAlias = str | KeySet

KEY_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # the whole key; `check_key` says what else holds
_KEY: Final = re.compile(KEY_PATTERN)
# MQTT-1.5.3-1, -2: no surrogates, no NUL. The other control characters "SHOULD NOT" be there; here they must not.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE: Final = re.compile("[+#/\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_key(kind: str, key: str) -> str:
    """Return `key` if it may name a `kind` (``tenant``, ``thing`` …): safe as one topic level and in a URL's path.

    Raises InvalidInput ``key_invalid``; the tenant key `me` is reserved.
    """
    if not _KEY.fullmatch(key):
        detail = (
            f"{kind} key `{printable(key)}` must be 1 to 64 of `A-Z a-z 0-9 . _ -` and begin with a letter or digit"
        )
        raise InvalidInput("key_invalid", detail, field="key")
    if kind == "tenant" and key == RESERVED_TENANT:
        raise InvalidInput("key_invalid", f"tenant key `{key}` is reserved; choose another", field="key")
    return key


def is_key(key: str) -> bool:
    """Return whether `key` has the form that every key must have."""
    return _KEY.fullmatch(key) is not None


def safe_level(value: str) -> bool:
    """Return whether `value` may stand for one level of a filter: not empty, no `+ # /`, no control character."""
    return value != "" and _UNSAFE.search(value) is None


def printable(text: str, limit: int = 80) -> str:
    """Return `text` shortened and with everything escaped that could forge or garble a line of an error or a log."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def check_topic_name(topic: str) -> str:
    """Return `topic` if it is a valid topic name to publish to. Raises InvalidInput ``topic_invalid``."""
    _check_text(topic, "topic")
    if "+" in topic or "#" in topic:  # MQTT-3.3.2-2, MQTT-4.7.1-1
        raise InvalidInput("topic_invalid", f"topic `{printable(topic)}` holds a wildcard", field="topic")
    return topic


def check_topic_filter(filter_: str, *, max_levels: int | None = MAX_FILTER_LEVELS) -> str:
    """Return `filter_` if it is a valid topic filter of at most `max_levels` levels (None: any number).

    Raises InvalidInput ``topic_invalid`` when it is malformed and ``topic_too_deep`` when it only has too many levels.
    """
    _check_text(filter_, "topic filter")
    levels = filter_.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):  # MQTT-4.7.1-2
            detail = f"topic filter `{printable(filter_)}`: `#` must fill the last level"
            raise InvalidInput("topic_invalid", detail, field="topic")
        if "+" in level and level != "+":  # MQTT-4.7.1-3
            detail = f"topic filter `{printable(filter_)}`: `+` must fill a whole level"
            raise InvalidInput("topic_invalid", detail, field="topic")
    if max_levels is not None and len(levels) > max_levels:
        detail = f"topic filter `{printable(filter_)}` has {len(levels)} levels; at most {max_levels} are allowed"
        raise InvalidInput("topic_too_deep", detail, field="topic")
    return filter_


def _check_text(text: str, what: str) -> None:
    if text == "":  # MQTT-4.7.3-1
        raise InvalidInput("topic_invalid", f"the {what} is empty", field="topic")
    if _FORBIDDEN.search(text):
        detail = f"{what} `{printable(text)}` holds a control character or a surrogate"
        raise InvalidInput("topic_invalid", detail, field="topic")
    if len(text) > MAX_TOPIC_BYTES // 4 and len(text.encode()) > MAX_TOPIC_BYTES:  # MQTT-4.7.3-3
        raise InvalidInput("topic_invalid", f"the {what} is longer than {MAX_TOPIC_BYTES} bytes", field="topic")


class SharedFilter(NamedTuple):
    """A shared subscription: `group` receives in turn what matches `inner`, and `inner` is what is decided on."""

    group: str
    inner: str


def shared_filter(filter_: str) -> SharedFilter | None:
    """Return the parts of ``$share/group/inner``, or None when `filter_` is no shared subscription.

    Raises InvalidInput ``topic_invalid`` when it begins like one but has no group, a group with a wildcard, or no
    inner filter (MQTT 5 section 4.8.2; 3.1.1 brokers that know the form take it from there).
    """
    if filter_ != "$share" and not filter_.startswith("$share/"):
        return None
    _, _, rest = filter_.partition("/")
    group, _, inner = rest.partition("/")
    if not safe_level(group) or inner == "":
        detail = f"`{printable(filter_)}` is no shared subscription; the form is `$share/group/filter`"
        raise InvalidInput("topic_invalid", detail, field="topic")
    return SharedFilter(group, inner)


def matches(topic: str, filter_: str) -> bool:
    """Return whether the topic name `topic` is one that `filter_` asks for."""
    return levels_match(topic.split("/"), filter_.split("/"))


def covers(*, allowed: str, requested: str) -> bool:
    """Return whether every topic that matches `requested` also matches `allowed`."""
    return levels_cover(allowed=allowed.split("/"), requested=split_filter(requested))


def overlaps(a: str, b: str) -> bool:
    """Return whether some topic matches both filters."""
    return levels_overlap(split_filter(a), split_filter(b))


def split_filter(filter_: str) -> list[str]:
    """Return the levels of `filter_`, with `#` spelled `+/#` and `/#` spelled `/+/#`.

    `x/#` also matches `x` (4.7.1.2), but no topic is empty (MQTT-4.7.3-1): so `#` asks for exactly what `+/#` does and
    `/#` for what `/+/#` does. These two are the only filters with more than one spelling.
    """
    if filter_ == "#":
        return ["+", "#"]
    if filter_ == "/#":
        return ["", "+", "#"]
    return filter_.split("/")


def levels_match(topic: Sequence[str], filter_: Sequence[Level]) -> bool:
    """Return whether `topic` (split) matches `filter_` (split, perhaps with set levels)."""
    if topic[0].startswith("$") and (filter_[0] == "+" or filter_[0] == "#"):  # MQTT-4.7.2-1
        return False
    depth = len(topic)
    for index, wanted in enumerate(filter_):
        if wanted == "#":
            return True  # 4.7.1.2: at index == depth this is the parent level
        if index == depth:
            return False
        if wanted != "+" and not _is_in(topic[index], wanted):
            return False
    return depth == len(filter_)


def levels_cover(*, allowed: Sequence[Level], requested: Sequence[str], widen_sets: bool = False) -> bool:
    """Return whether `allowed` contains `requested`, which must come from `split_filter`.

    A literal is contained in a set level of which it is a member. With `widen_sets` a `+` counts as contained in a set
    level too, because somebody else will filter what it lets through; a `#` that begins at a set level never does.
    """
    if requested[0].startswith("$") and (allowed[0] == "+" or allowed[0] == "#"):  # MQTT-4.7.2-1
        return False
    depth = len(requested)
    for index, have in enumerate(allowed):
        if have == "#":
            return True
        if index == depth:
            return False
        wanted = requested[index]
        if wanted == "#":
            return False  # asks for all depths from here; `allowed` has one level at least more to say
        if have == "+":
            continue
        if wanted == "+":
            if not widen_sets or isinstance(have, str):
                return False
        elif not _is_in(wanted, have):
            return False
    return depth == len(allowed)


def levels_overlap(a: Sequence[Level], b: Sequence[str]) -> bool:
    """Return whether a topic exists that matches both; both come from `split_filter`, only `a` may have set levels.

    A set level shares a topic with a literal that is its member now, and with every wildcard, even while the set is
    empty: who asks will hold the wildcard longer than the set stays as it is.
    """
    if _starts_in_dollar(a) and b[0] in ("+", "#"):  # MQTT-4.7.2-1
        return False
    if b[0].startswith("$") and a[0] in ("+", "#"):
        return False
    for have, wanted in zip(a, b, strict=False):
        if have == "#" or wanted == "#":
            return True
        if have != "+" and wanted != "+" and not _is_in(wanted, have):
            return False
    if len(a) > len(b):
        return a[len(b)] == "#"
    return len(a) == len(b) or b[len(a)] == "#"


def _starts_in_dollar(levels: Sequence[Level]) -> bool:
    first = levels[0]
    return isinstance(first, str) and first.startswith("$")


def _is_in(literal: str, level: Level) -> bool:
    return literal == level if isinstance(level, str) else literal in level.keys


class Variable(Enum):
    """A variable of a template that stands for one value."""

    TENANT = "tenant"
    GROUND = "ground"
    THING = "thing"
    DEFINITION = "definition"
    CLIENT = "client"


class SetLevel(Enum):
    """A variable of a template that stands for a changing set of keys."""

    MODULE = "module"  # each module bound to this gateway
    MEMBER = "member"  # each thing of the ground


_VARIABLES: Final[Mapping[str, Variable | SetLevel]] = {
    **{"{" + variable.value + "}": variable for variable in Variable},
    **{"{" + level.value + "}": level for level in SetLevel},
}


class RenderedFilter(NamedTuple):
    """A template with its values in place: literals, `+`, `#`, and set levels by name. Plain data for adapters."""

    levels: tuple[str | SetLevel, ...]
    sets: tuple[SetLevel, ...] = ()  # those among `levels`, in order of appearance

    @property
    def text(self) -> str:
        """The filter, set levels shown as ``{module}``: a topic filter of MQTT only when `sets` is empty."""
        return "/".join([level if isinstance(level, str) else "{" + level.value + "}" for level in self.levels])


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicTemplate:
    """A topic filter with variables for whole levels, as rules store it."""

    levels: tuple[str | Variable | SetLevel, ...]
    slots: tuple[tuple[int, str], ...]  # level and name of each single-valued variable
    sets: tuple[SetLevel, ...]

    @staticmethod
    @lru_cache(maxsize=4096)  # every CONNECT compiles the same few templates; a pure function may remember
    def parse(text: str) -> TopicTemplate:
        """Return the template. Raises InvalidInput ``topic_invalid`` or ``topic_too_deep``, field ``topic``."""
        levels = tuple([_parse_level(level, text) for level in check_topic_filter(text).split("/")])
        return TopicTemplate(
            levels=levels,
            slots=tuple((index, level.value) for index, level in enumerate(levels) if isinstance(level, Variable)),
            sets=tuple(level for level in levels if isinstance(level, SetLevel)),
        )

    def render(self, values: Mapping[str, str]) -> RenderedFilter:
        """Return the filter with `values` (variable name to value) in place of the single-valued variables.

        Raises InvalidInput ``variable_missing`` when a value is not given, and ``value_unsafe`` when one holds
        `+ # /`, NUL or a control character, is empty, or would begin the topic with `$`.
        """
        levels: list[Any] = list(self.levels)
        for index, name in self.slots:
            value = values.get(name)
            if value is None:
                raise InvalidInput("variable_missing", f"there is no value for `{{{name}}}` here", field="topic")
            if not safe_level(value) or (index == 0 and value.startswith("$")):
                detail = f"`{printable(value)}` cannot stand for `{{{name}}}`: it is empty or would change the filter"
                raise InvalidInput("value_unsafe", detail, field="topic")
            levels[index] = value
        return RenderedFilter(tuple(levels), self.sets)


def _parse_level(level: str, text: str) -> str | Variable | SetLevel:
    if "{" not in level and "}" not in level:
        return level
    variable = _VARIABLES.get(level)
    if variable is None:
        known = " ".join(_VARIABLES)
        where = f"topic template `{printable(text)}`"
        detail = f"{where}: `{printable(level)}` is no variable; known, each for a whole level: {known}"
        raise InvalidInput("topic_invalid", detail, field="topic")
    return variable
