"""One body, one content type, one meaning: a hook request that could be read in two ways is refused.

A repeated parameter or JSON key would be the first to one reader and the last to another; so would text that is not
UTF-8. `MalformedHook` is raised with the field's name and never its value: it may be a password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from authsvc.adapters.adapter import MalformedHook

MAX_HOOK_BYTES: Final = 256 * 1024  # an authz request holds a topic of at most 64 KiB, escaped to three times that
MAX_FIELDS: Final = 64

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object of the body. Raises MalformedHook."""
    try:
        value = _value(body.decode("utf-8"))
        if b"\\u" in body:  # the one way to half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, _RepeatedError) else "the body is not JSON in UTF-8"
        raise MalformedHook(detail) from None
    if not isinstance(value, dict):
        raise MalformedHook("the body is no JSON object")
    return value


def parse_form(text: bytes) -> dict[str, str]:
    """Return the parameters of a form body or a query string. Raises MalformedHook."""
    fields: dict[str, str] = {}
    if not text:
        return fields
    if _BAD_ESCAPE.search(text):
        raise MalformedHook("a percent escape is incomplete")
    parts = text.split(b"&")
    if len(parts) > MAX_FIELDS:
        raise MalformedHook(f"more than {MAX_FIELDS} parameters")
    for part in parts:
        name, equals, value = part.partition(b"=")
        if not equals:
            raise MalformedHook("a parameter has no `=`")
        key = _decoded(name)
        if key in fields:
            raise MalformedHook(f"parameter `{key[:40]}` is repeated")
        fields[key] = _decoded(value)
    return fields


def parse_raw_form(text: bytes, names: frozenset[str]) -> dict[str, str]:
    """Return the parameters of a form whose sender escapes nothing: `names`, each once. Raises MalformedHook.

    Who hides a parameter in a value, behind an `&`, makes one that is repeated, unknown, or has no `=`.
    """
    fields: dict[str, str] = {}
    for part in text.split(b"&", len(names)):
        name, equals, value = part.partition(b"=")
        key = name.decode("latin-1")
        if not equals or key not in names or key in fields:
            raise MalformedHook("a form without escapes holds what may be read in two ways")
        try:
            fields[key] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedHook("a parameter is not UTF-8") from None
    if b"&" in part or len(fields) != len(names):
        raise MalformedHook("a form without escapes must hold every parameter, and nothing else")
    return fields


def parse(
    method: str, content_types: list[str], query: bytes, body: bytes, *, raw_form: frozenset[str] | None = None
) -> Mapping[str, Any]:
    """Return the fields of a request: the body of a POST, or the query of a GET; never both. Raises MalformedHook.

    `raw_form` names the parameters of a form in which nothing is escaped (`parse_raw_form`).
    """
    if method == "GET":
        if body:
            raise MalformedHook("a GET with a body")
        return parse_form(query)
    if query:
        raise MalformedHook("a POST with a query string")
    if len(content_types) != 1:
        raise MalformedHook("a request needs one content type")
    media_type, _, parameters = content_types[0].partition(";")
    charset = parameters.strip().lower()
    if charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise MalformedHook("the charset must be utf-8")
    media_type = media_type.strip().lower()
    if media_type == _JSON:
        return parse_json(body)
    if media_type == _FORM:
        return parse_form(body) if raw_form is None else parse_raw_form(body, raw_form)
    raise MalformedHook(f"the content type must be {_JSON} or {_FORM}")


class _RepeatedError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedError("a key is repeated")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)  # `loads` makes one a call


def _value(text: str) -> Any:
    """Return the JSON value; `decode` looks for space around it first, and a broker's object has none."""
    if text.startswith("{") and text.endswith("}"):
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    return _DECODER.decode(text)


def _decoded(text: bytes) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedHook("a parameter is not UTF-8") from None
