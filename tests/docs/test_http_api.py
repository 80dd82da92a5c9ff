"""docs/http-api.md holds every call and every reason, and none that there is not."""

from __future__ import annotations

import re

from fastapi import FastAPI

from authsvc.core.reasons import Reason, connack_code, connack_code5
from authsvc.web.admin import ROUTERS
from authsvc.web.openapi import document
from tests.docs.pages import text_of, without_blocks

PAGE = text_of("docs/http-api.md")
METHODS = {"GET", "POST", "PATCH", "DELETE"}


def _document() -> dict:
    api = FastAPI(openapi_url=None)
    for router in ROUTERS:
        api.router.routes.extend(router.routes)
    return document(api)


def _served() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, calls in _document()["paths"].items() for method in calls}


def _described() -> set[tuple[str, str]]:
    found = set()
    rows = re.findall(r"^\| (`(?:GET|POST|PATCH|DELETE).*?) \| .* \|$", PAGE, re.MULTILINE)
    for row in rows:
        base = ""
        for words in (code.split() for code in re.findall(r"`([^`]+)`", row)):
            path = words[-1].replace("…", base)
            if re.match(r"T(/|$)", path):
                path = "/v1/tenants/{tenant}" + path[1:]
            base = base or path
            found |= {(method, path) for method in words[:-1]}
    return found


def _words() -> set[str]:
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", without_blocks(PAGE)))))


def test_the_table_of_calls_is_that_of_the_program():
    """Every route of the OpenAPI document stands in the table, and every line of the table is a route."""
    served = {*_served(), ("GET", "/openapi.json")}
    assert _described() == served
    assert {method for method, _ in served} <= METHODS


def test_every_query_parameter_is_described():
    """Filters and switches are on the page by name."""
    names = {
        parameter["name"]
        for calls in _document()["paths"].values()
        for call in calls.values()
        for parameter in call.get("parameters", ())
        if parameter["in"] == "query"
    }
    words = _words()
    assert names <= words, names - words


def test_every_field_of_a_body_is_described():
    """What can be sent is on the page by name."""
    schemas = _document()["components"]["schemas"]
    sent: set[str] = set()
    for calls in _document()["paths"].values():
        for call in calls.values():
            for content in call.get("requestBody", {}).get("content", {}).values():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                sent |= schemas.get(name, {}).get("properties", {}).keys()
    words = _words()
    assert sent
    assert sent <= words, sent - words


def test_the_table_of_reasons_is_the_enum():
    """Each reason once, with the codes that clients of 3.1.1 and of 5.0 see where it is one."""
    table = PAGE[PAGE.index("## Reasons") :]
    shown: dict[str, str] = {}
    for cells in re.findall(r"^\| (`[^|]+) \| ([^|]*) \| ([^|]*) \|", table, re.MULTILINE):
        for reason in re.findall(r"`(\w+)`", cells[0]):
            assert reason not in shown, reason
            shown[reason] = cells[1].strip()
            if re.fullmatch(r"0x\w\w", cells[2].strip()):
                assert connack_code5(Reason(reason)) == int(cells[2], 16), reason
    assert shown.keys() == {reason.value for reason in Reason}
    for reason, code in shown.items():
        if code.isdigit():
            assert connack_code(Reason(reason)) == int(code), reason
