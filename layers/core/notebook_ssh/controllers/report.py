"""Accepts a notebook's report, and replies with what its agent is to do (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, assert_never

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import access_log, secrets, sqs
from notebook_ssh.adapters.clients import AWS_ERRORS
from notebook_ssh.adapters.secrets import Parameters
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.workers import read_worker
from notebook_ssh.controllers.agent_layer import WorkerProgram
from notebook_ssh.errors import Problem, RetryableError
from notebook_ssh.http_api.handling import (
    HttpError,
    Response,
    body_of,
    forbidden,
    json_text,
    notebook_name,
)
from notebook_ssh.model.caller import role_of_caller
from notebook_ssh.model.record import Record, Report
from notebook_ssh.model.revocation import withdrawn
from notebook_ssh.model.session_ends import withdrawn_users
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.ssh_keys import admitted
from notebook_ssh.model.status import REACHABLE, Code, status_key, status_of
from notebook_ssh.reports.accept import (
    Accepted,
    OutOfOrder,
    RoleMismatch,
    Unregistered,
    accept,
    heartbeat_deadline,
)
from notebook_ssh.reports.parse import ParsedReport, read_report
from notebook_ssh.reports.reply import certificates, reply, reply_paused, reply_unregistered, sessions
from notebook_ssh.reports.tokens import (
    InvalidSecretError,
    Token,
    invalid_secret,
    missing_token,
    not_granted,
    parse_secret,
    token_for,
)
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.requests import ReconcileNotebook, to_message

MAX_ATTEMPTS = 3
"""How often a report is decided about again because another one was stored concurrently."""

logger = Logger(child=True)


def respond(event: Mapping[str, Any], settings: Settings, now: int, worker: Callable[[], WorkerProgram]) -> Response:
    """Store the report in `event`, and reply with what the agent is to do. Raises HttpError or InvalidReportError."""
    name = notebook_name(event)
    role = _role(event, settings)
    parsed = read_report(body_of(event), now, allow_loopback=settings.allow_loopback)
    record = _store(name, role, parsed.report, settings, now)
    if record is None:
        return Response(json_text(reply_unregistered(name, now, settings.sync_seconds)))
    if settings.paused:
        return Response(json_text(reply_paused(record.name, now, settings.sync_seconds)))
    if settings.access_days and (parsed.access or parsed.access_more):
        access_log.save_sessions(
            Table(settings.table), record.name, parsed.access, parsed.access_more, now, settings.access_days
        )
    return Response(json_text(_reply(record, role, parsed, settings, now, worker)))


def _role(event: Mapping[str, Any], settings: Settings) -> str:
    context = event["requestContext"]
    # A changed resource policy may admit principals of another account, where a role may have the same name.
    role = role_of_caller(context["identity"].get("userArn") or "", context["accountId"])
    if role is None:
        raise forbidden(
            settings,
            "not-a-role",
            "Only a notebook reports, with its execution role; this caller has assumed no role of this account.",
        )
    return role


def _store(name: str, role: str, report: Report, settings: Settings, now: int) -> Record | None:
    """Store the report; returns the record with it, or None without a record. One request in the steady state."""
    table = Table(settings.table)
    known = table.save_heartbeat(name, role, report, heard_since=heartbeat_deadline(now, settings.sync_seconds))
    heard = known.record if known.written else None
    if heard and heard.report and heard.notified_status.partition(":")[0] == Code.READY:
        # A heartbeat may have the first session, by which the endpoint is known to lead there.
        unheard = replace(heard.report, sessions=0, active_at=None)
        _request_status_update(replace(heard, report=unheard), heard, settings, now)
    for _ in range(MAX_ATTEMPTS):
        if known.written:
            return known.record
        match accept(known.record, role, report):
            case Unregistered():
                return None
            case RoleMismatch():
                raise forbidden(
                    settings,
                    "other-role",
                    f"{name} reports with its execution role alone, and this caller has assumed {role}.",
                )
            case OutOfOrder(newest):
                raise HttpError(
                    409,
                    "older-report",
                    f"sequence: a report with sequence {newest.sequence} of boot {newest.boot} is known, and this one is not newer.",
                    boot=newest.boot,
                    sequence=newest.sequence,
                )
            case Accepted(changed, before):
                old = known.record
                known = table.replace_report(name, role, changed, before)
                if known.written and known.record and old:
                    _request_status_update(old, known.record, settings, now)
            case verdict:
                assert_never(verdict)
    raise RetryableError(f"the reports of {name} overtake each other")


def _request_status_update(old: Record, new: Record, settings: Settings, now: int) -> None:
    """Request that a change of status is published. Nothing depends on it: the sweep finds what is lost here."""
    heard_at = old.report.received_at if old.report else now
    # What was true when it last spoke, unless it was silent for so long that this was true no more.
    silent = heard_at <= heartbeat_deadline(now, settings.sync_seconds)
    before = status_of(old, now if silent else heard_at, settings.sync_seconds, settings.tag_key)
    status = status_of(new, now, settings.sync_seconds, settings.tag_key)
    if status_key(before) == status_key(status):
        return
    logger.info("reported", extra={"notebook": new.name, "before": before.code, "status": status.code})
    if before.code is Code.STARTING and status.code in REACHABLE and before.since is not None:
        waited = max(0, now - before.since)
        logger.info("connected", extra={"notebook": new.name, "seconds_to_connect": waited})
    request = to_message(ReconcileNotebook(new.name, "status"), now, logger.get_correlation_id() or "")
    try:
        sqs.send(settings.notebook_queue, [request])
    except AWS_ERRORS:
        logger.exception("no reconciliation was requested for the new status of %s", new.name)


def _reply(
    record: Record,
    role: str,
    parsed: ParsedReport,
    settings: Settings,
    now: int,
    worker: Callable[[], WorkerProgram],
) -> dict[str, Any]:
    modes = record.spec.effective_modes(now)
    token, problem = _token(record.name, role, settings, now) if Mode.NGROK in modes else (None, None)
    users = record.spec.users if modes else ()
    stored = _parameters(settings, now) if users or (modes and settings.certificate_authorities) else Parameters()
    keys = admitted(users, stored.keys, settings.keys_path, record.name)
    granted = certificates(record, now, settings.stack, settings.certificate_authorities, stored.revocations)
    gone = withdrawn(stored.revocations, withdrawn_users(users, stored.keys))
    ends = sessions(record, now, settings.end_sessions, gone)
    logged = {"access_log": True} if settings.access_days else {}
    usual = reply(
        record,
        now,
        sync_seconds=settings.sync_seconds,
        bastion=settings.bastion,
        token=token,
        held_version=parsed.token_version,
        keys=keys.lines,
        problem=problem or keys.problem,
        worker=_worker(parsed.worker, settings, worker()) if parsed.worker and modes else None,
    )
    return usual | granted | ends | logged


def _parameters(settings: Settings, now: int) -> Parameters:
    return secrets.parameters(settings.keys_path, settings.sync_seconds, now)


def _worker(sha256: str, settings: Settings, current: WorkerProgram) -> str | None:
    """Return the worker's program that the agent's block vouches for, of this version or an earlier one; None without it."""
    if sha256 == current.sha256:
        return current.text
    program = read_worker(Table(settings.table), sha256)
    if program is None:
        logger.warning("no worker for an agent: its script gets another block", extra={"sha256": sha256})
    return program


def _token(notebook: str, role: str, settings: Settings, now: int) -> tuple[Token | None, Problem | None]:
    """Return the token that a session of `role` gets for the notebook; without one, why."""
    secret = secrets.ngrok_secret(settings.ngrok_secret, settings.sync_seconds, now)
    try:
        tokens = parse_secret(secret.text, secret.version) if secret else None
    except InvalidSecretError as reason:
        return None, invalid_secret(settings.ngrok_secret, str(reason))
    if tokens is None:
        return None, missing_token(settings.ngrok_secret)
    token = token_for(tokens, notebook, role)
    return token, None if token else not_granted(notebook)
