"""The OpenAPI document is true: generated requests, valid and invalid, over a real server find no contradiction.

Runs for about AUTHSVC_TEST_SECONDS (25 by default, more on a busy machine), spread evenly over the operations.
"""

import asyncio
import os
import socket
import time
import warnings

import hypothesis
import pytest
import requests

from authsvc.web.server import make_server
from tests.web.test_access import operations, path_of

SECONDS = float(os.environ.get("AUTHSVC_TEST_SECONDS", "25"))
ORDER = ("GET", "PATCH", "POST", "DELETE")


@pytest.fixture
async def url(tenants):
    """The base URL of the populated world behind a real server."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = make_server(tenants.app, sock=sock)
    serving = asyncio.create_task(server.serve(), name="http")
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await serving


def parameters_of(template, world):
    """Return path parameters of objects that exist; for deletions of a tenant or key, of such that nobody misses."""
    names, values = template.split("/"), path_of(template, world).split("/")
    return {name[1:-1]: value for name, value in zip(names, values, strict=True) if name.startswith("{")}


def attack(schema, label, *, fixed, key, seconds, session):
    """Send generated requests of one operation until the time is over; raise what the checks find. Return how many."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        ignored_auth,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
        unsupported_method,
    )

    assert schemathesis.__version__ >= "4"
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        negative_data_rejection,
        unsupported_method,
    ]
    method, path = label.split(" ", 1)
    operation = schema[path][method]
    modes = [(GenerationMode.POSITIVE, [*checks, ignored_auth])]
    if list(operation.iter_parameters()) or operation.body:
        modes.append((GenerationMode.NEGATIVE, checks))
    return sum(_requests(operation, mode, more, fixed, key, seconds / 2, session) for mode, more in modes)


def _requests(operation, mode, checks, fixed, key, seconds, session):
    from schemathesis.generation import GenerationMode

    sent = 0
    until = time.monotonic() + seconds
    path_parameters = fixed if mode is GenerationMode.POSITIVE else None

    @hypothesis.settings(
        max_examples=max(4, int(seconds * 24)),
        deadline=None,
        database=None,
        derandomize=SECONDS <= 25,  # the default suite says the same twice
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(mode, path_parameters=path_parameters))
    def run(case):
        nonlocal sent
        if time.monotonic() > until:
            return
        sent += 1
        case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, checks=checks, session=session, timeout=10)

    run()
    return sent


@pytest.mark.timeout(max(240, SECONDS * 3))
async def test_generated_requests_find_no_error_no_lie_and_no_open_door(tenants, url):
    """No 5xx, no answer outside the document, no invalid request accepted, no operation without its key."""
    import schemathesis

    await tenants.ok("POST", "/v1/tenants", json={"key": "scratch"})
    document = (await tenants.client.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    found = await operations(tenants)
    found.sort(key=lambda one: ORDER.index(one[1]))
    seconds = SECONDS / len(found)

    def everything():
        total, failures = 0, []
        with requests.Session() as session, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for label, _, template, _ in found:
                fixed = parameters_of(template, tenants)
                if label == "DELETE /v1/tenants/{tenant}":
                    fixed = {"tenant": "scratch"}
                try:
                    total += attack(
                        schema, label, fixed=fixed, key=tenants.keys["owner"], seconds=seconds, session=session
                    )
                except BaseException as error:  # noqa: BLE001
                    failures.append(f"{label}: {error}"[:3000])
        return total, failures

    total, failures = await asyncio.to_thread(everything)
    assert not failures, "\n\n".join(failures)
    assert total > 4 * len(found)
    print(f"{total} generated requests for {len(found)} operations")
