"""The operator's API under ``/v1``: one module a resource, each with its bodies, its answers and its routes.

A request passes `web.auth` (who), `web.routes` (may it, then the body), the route (checks that need the body, one or
two calls of a repository), the feed (`Call.settled`), and leaves as an answer model. Errors are raised as they come
and turned into problem documents in `web.app`.
"""

from fastapi import APIRouter

from authsvc.web.admin import (
    admin_keys,
    app_tokens,
    definitions,
    device_tokens,
    explaining,
    ground_tokens,
    grounds,
    licenses,
    modules,
    roles,
    sessions,
    tenants,
    things,
)

ROUTERS: tuple[APIRouter, ...] = (
    tenants.router,
    grounds.router,
    definitions.router,
    roles.router,
    licenses.router,
    app_tokens.router,
    things.router,
    device_tokens.router,
    modules.router,
    ground_tokens.router,
    sessions.router,
    explaining.router,
    admin_keys.router,
)
