"""Answers the GET requests of users from the table (docs/api.md, docs/openapi.yaml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from notebook_ssh.adapters.table import STATUS, Table
from notebook_ssh.http_api import views
from notebook_ssh.http_api.handling import (
    JSON,
    TEXT,
    HttpError,
    Response,
    header,
    json_text,
    notebook_name,
    refuse_while_paused,
    require_spelling,
)
from notebook_ssh.http_api.views import Connection
from notebook_ssh.model.record import Record
from notebook_ssh.model.status import status_of, ways
from notebook_ssh.settings import Settings

Event = Mapping[str, Any]

LIST_MAX_AGE_S = 10
"""Seconds for which the records of all notebooks are kept: any principal of the account may ask for them at any rate."""

_fleets: dict[str, tuple[int, tuple[Record, ...]]] = {}
"""By table, when its records were read (epoch seconds), and the fields of them that a list shows."""


def forget() -> None:
    """Empty what this process keeps, for tests."""
    _fleets.clear()


def respond(event: Event, settings: Settings, now: int) -> Response:
    """The response to a GET request at `now` (epoch seconds). Raises HttpError for what is not served."""
    route = ROUTES.get((event.get("httpMethod", ""), event.get("resource", "")))
    if route is None:
        raise HttpError(404, "no-such-route", "There is no such path: docs/api.md lists them.")
    refuse_while_paused(settings)
    return route(event, settings, now)


def _list(event: Event, settings: Settings, now: int) -> Response:
    entries = [views.list_entry(record, now, settings) for record in _fleet(settings, now)]
    return Response(json_text(entries))


def _fleet_ssh_config(event: Event, settings: Settings, now: int) -> Response:
    return _text(views.ssh_config(_connections(settings, now), settings.stack))


def _fleet_known_hosts(event: Event, settings: Settings, now: int) -> Response:
    return _text("\n".join(views.fleet_known_hosts(_connections(settings, now))))


def _plan(event: Event, settings: Settings, now: int) -> Response:
    from notebook_ssh.http_api.plan import plan_text  # no other answer needs it

    return _text(plan_text(_fleet(settings, now), now, settings, dry_run=settings.dry_run))


def _details(event: Event, settings: Settings, now: int) -> Response:
    return Response(json_text(views.details(_record(event, settings), now, settings)))


def _ssh(event: Event, settings: Settings, now: int) -> Response:
    return _text(views.ssh_command(_connection(event, settings, now)))


def _address(event: Event, settings: Settings, now: int) -> Response:
    return _text(views.address_line(_connection(event, settings, now)))


def _ssh_config(event: Event, settings: Settings, now: int) -> Response:
    return _text(views.ssh_config([_connection(event, settings, now)], settings.stack))


def _known_hosts(event: Event, settings: Settings, now: int) -> Response:
    return _text("\n".join(views.known_hosts(_connection(event, settings, now))))


def _doctor(event: Event, settings: Settings, now: int) -> Response:
    """Text, or JSON when the Accept header requests it: there are no query strings, which versions of curl sign differently."""
    from notebook_ssh.http_api.diagnosis import doctor_json, doctor_text
    from notebook_ssh.model.checks import run_checks  # no other answer needs it

    diagnosis = run_checks(_record(event, settings), now, settings)
    if JSON in header(event, "Accept"):
        return Response(json_text(doctor_json(diagnosis)))
    return _text(doctor_text(diagnosis))


ROUTES: dict[tuple[str, str], Callable[[Event, Settings, int], Response]] = {
    ("GET", "/notebooks"): _list,
    ("GET", "/ssh-config"): _fleet_ssh_config,
    ("GET", "/known-hosts"): _fleet_known_hosts,
    ("GET", "/plan"): _plan,
    ("GET", "/notebooks/{name}"): _details,
    ("GET", "/notebooks/{name}/ssh"): _ssh,
    ("GET", "/notebooks/{name}/address"): _address,
    ("GET", "/notebooks/{name}/ssh-config"): _ssh_config,
    ("GET", "/notebooks/{name}/known-hosts"): _known_hosts,
    ("GET", "/notebooks/{name}/doctor"): _doctor,
}
"""API Gateway has matched the path already, so a dict is enough of a router: Powertools' resolver adds 181 million
instructions to a cold start of about 850 million, and 40 µs to every call."""


def _record(event: Event, settings: Settings) -> Record:
    name = notebook_name(event)
    record = Table(settings.table).record(name)
    if record is None:
        raise HttpError(
            404,
            "unknown-notebook",
            f"No notebook {name} is known here: tag it {ways(settings.tag_key)}, and wait a minute.",
        )
    require_spelling(event, record.name)
    return record


def _connection(event: Event, settings: Settings, now: int) -> Connection:
    record = _record(event, settings)
    connection = views.connection_for(record, now, settings)
    if connection is None:
        status = status_of(record, now, settings.sync_seconds, settings.tag_key)
        body = views.status_json(status)
        raise HttpError(409, "no-address", f"{body.pop('message')} {status.next_step}", **body)
    return connection


def _connections(settings: Settings, now: int) -> Iterator[Connection]:
    for record in _fleet(settings, now):
        connection = views.connection_for(record, now, settings)
        if connection:
            yield connection


def _fleet(settings: Settings, now: int) -> tuple[Record, ...]:
    """Return the record of each notebook, at most LIST_MAX_AGE_S old. Statuses are computed for `now` in any case."""
    read_at, records = _fleets.get(settings.table, (0, ()))
    if not 0 <= now - read_at < LIST_MAX_AGE_S:
        fields = (*STATUS, "report.host_keys", "planned")
        records = tuple(Table(settings.table).records(only=fields, on_unreadable=_log_unreadable))
        _fleets[settings.table] = now, records
    return records


def _log_unreadable(error: Exception) -> None:
    from aws_lambda_powertools import Logger  # on demand: see functions/lookup_api/handler.py

    Logger(child=True).warning("record left out", extra={"reason": str(error)})


def _text(text: str) -> Response:
    return Response(text + "\n" if text else "", content_type=TEXT)
