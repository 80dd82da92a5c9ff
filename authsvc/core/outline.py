"""Outlines: the grant of a whole fleet, compiled once. Its things differ in nothing but their keys.

An outline is made of the two grants that `compile_grant` gives to two keys: where their rules differ is the key's
place, and `grant_of` puts another thing's key there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from authsvc.core.facts import KeySet, Role, ThingDefinition
from authsvc.core.policy import CompiledRule, Grant, compile_grant, uses_client_variable
from authsvc.core.topics import RenderedFilter, SetLevel, is_key

_KEYS: Final = ("0", "1")
_new = tuple.__new__  # a named tuple's own constructor is a Python call, which a fleet makes for each of its rules

_Levels = tuple[str | SetLevel, ...]


class _Mould(NamedTuple):
    """One rule: as it is for every thing (`before` None), or all of it around the level that is the thing's key."""

    rule: CompiledRule
    before: _Levels | None = None
    after: _Levels = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """What the grants of a fleet have in common. `outline_of` makes it."""

    _moulds: tuple[_Mould, ...]
    _pattern: Grant

    def grant_of(
        self, thing: str, *, principal: str, sets: Mapping[SetLevel, KeySet], expires_at_us: int | None
    ) -> Grant | None:
        """Return what `compile_grant` would give to this thing of the fleet; None if it should be asked itself.

        `sets` must hold the sets that it would be given.
        """
        if not is_key(thing) or not sets.keys() >= self._pattern.sets.keys():
            return None
        own = (thing,)
        return Grant(
            principal=principal,
            tenant=self._pattern.tenant,
            ground=self._pattern.ground,
            thing=thing,
            definition=self._pattern.definition,
            client_id="",
            rules=tuple(
                [
                    rule if before is None else _with_filter(rule, before + own + after)
                    for rule, before, after in self._moulds
                ]
            ),
            sets={level: sets[level] for level in self._pattern.sets},
            expires_at_us=expires_at_us,
            left_out=self._pattern.left_out,
        )


def outline_of(
    *,
    tenant: str,
    ground: str,
    definition: ThingDefinition | None,
    roles: Sequence[Role] = (),
    modules: KeySet | None = None,
    members: KeySet | None = None,
) -> Outline | None:
    """Return the outline of all things in the ground with this definition and these roles.

    None where more than one level of a filter is each thing's own, or where rules use the client id. Of the sets it
    matters only whether there are any. Raises ValueError as `compile_grant` does.
    """
    if uses_client_variable(definition, roles):
        return None
    pattern, other = (
        compile_grant(
            principal="",
            tenant=tenant,
            ground=ground,
            thing=key,
            definition=definition,
            roles=roles,
            modules=modules,
            members=members,
            client_id="",
            expires_at_us=None,
        )
        for key in _KEYS
    )
    moulds = [_mould(mine, theirs) for mine, theirs in zip(pattern.rules, other.rules, strict=True)]
    if None in moulds:
        return None
    return Outline(tuple([mould for mould in moulds if mould is not None]), pattern)


def _mould(mine: CompiledRule, theirs: CompiledRule) -> _Mould | None:
    """Return what two things' renderings of one rule have in common."""
    pairs = enumerate(zip(mine.filter.levels, theirs.filter.levels, strict=True))
    own = [index for index, (level, other) in pairs if level != other]
    if not own:
        return _Mould(mine)
    if len(own) > 1:
        return None
    levels = mine.filter.levels
    return _Mould(mine, levels[: own[0]], levels[own[0] + 1 :])


def _with_filter(rule: CompiledRule, levels: _Levels) -> CompiledRule:
    id_, effect, action, filter_, qos_max, retain = rule
    rendered = _new(RenderedFilter, (levels, filter_[1]))
    return _new(CompiledRule, (id_, effect, action, rendered, qos_max, retain))
