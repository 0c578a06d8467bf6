"""Answers who was let in where, to those who may read that (docs/access.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notebook_ssh.adapters import access_log
from notebook_ssh.adapters.table import Table
from notebook_ssh.http_api.handling import HttpError, Response, json_text, notebook_name
from notebook_ssh.model.access import entries
from notebook_ssh.model.spelling import is_spelled
from notebook_ssh.settings import Settings

ROUTES = {("GET", "/access"): False, ("GET", "/notebooks/{name}/access"): True}
"""The routes, and whether each is about one notebook."""


def respond(event: Mapping[str, Any], settings: Settings) -> Response:
    """The response to a GET request. Raises HttpError for what is not served.

    A notebook that is gone is answered like any other: what was is what is asked.
    """
    of_one = ROUTES.get((event.get("httpMethod", ""), event.get("resource", "")))
    if of_one is None:
        raise HttpError(404, "no-such-route", "There is no such path: docs/api.md lists them.")
    notebook = notebook_name(event) if of_one else None
    # IAM has compared the path as it was sent: another spelling may have got past the policy that denies this route.
    if not is_spelled(event.get("path") or "", event["resource"], notebook or ""):
        raise HttpError(
            404, "no-such-route", "Ask for this path as docs/api.md writes it, without escapes or a slash at the end."
        )
    return Response(json_text(entries(access_log.read(Table(settings.table), notebook))))
