"""Issues a short certificate to a caller who may log in (docs/api.md)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import access_log, secrets as secrets_store, signing_key
from notebook_ssh.adapters.table import NOTEBOOK, Table
from notebook_ssh.errors import RetryableError
from notebook_ssh.http_api.handling import (
    HttpError,
    Response,
    body_of,
    forbidden,
    json_text,
    notebook_name,
    refuse_while_paused,
)
from notebook_ssh.model.access import Certificate
from notebook_ssh.model.certificate import (
    NONCE_BYTES,
    SERIAL_BITS,
    VALID_BEFORE_S,
    UserCertificate,
    certificate_line,
    end_of_certificate,
    message_to_sign,
    user_key,
)
from notebook_ssh.model.login import Caller, RefusalCode, Refuse, decide_login
from notebook_ssh.model.record import Record
from notebook_ssh.model.revocation import Revocation, is_revoked, principals_to_sign
from notebook_ssh.model.ssh_keys import InvalidKeyError, PublicKey
from notebook_ssh.settings import Settings

LONGEST_BODY = 8192
"""Bytes of a request."""

ROLES_MAX_AGE_S = 60
"""Seconds for which the notebooks' roles are kept: a caller could otherwise have the table read at any rate."""

OF_THE_CALLER = frozenset({RefusalCode.NOT_A_PRINCIPAL, RefusalCode.NOTEBOOK_ROLE})
"""Refusals that are a 403; the others are for the notebook to change, a 409."""

logger = Logger(child=True)

_roles: dict[str, tuple[int, frozenset[str]]] = {}
"""By table, when the roles were read (epoch seconds), and the execution roles of all notebooks."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for. seconds: at most so many."""

    key: PublicKey
    seconds: int


def forget() -> None:
    """Empty what this process keeps, for tests."""
    _roles.clear()


def respond(event: Mapping[str, Any], settings: Settings, now: int) -> Response:
    """Issue the certificate that `event` asks for. Raises HttpError, RetryableError or TerminalError."""
    name = notebook_name(event)
    refuse_while_paused(settings)
    request = _request(body_of(event), settings)
    table = Table(settings.table)
    record = table.record(name, consistent=True)
    if record is None:
        raise HttpError(404, "unknown-notebook", f"No notebook {name} is known here: only a tagged one can be entered.")
    context = event["requestContext"]
    identity = context["identity"]
    caller = Caller(identity.get("userArn") or "", identity.get("caller") or "", context["accountId"])
    verdict = decide_login(
        record, event.get("path") or "", caller, _notebook_roles(table, record, now), now, settings.tag_key
    )
    if isinstance(verdict, Refuse):
        logger.info("no certificate", extra={"notebook": record.name, "caller": caller.arn, "code": verdict.code})
        if verdict.code in OF_THE_CALLER:
            raise forbidden(settings, verdict.code, verdict.message)
        raise HttpError(409, verdict.code, verdict.message, name=record.name)
    revocations = secrets_store.revocations(settings.keys_path, now)
    if is_revoked(caller.arn, revocations):
        logger.info(
            "no certificate", extra={"notebook": record.name, "caller": caller.arn, "code": RefusalCode.REVOKED}
        )
        raise forbidden(settings, RefusalCode.REVOKED, "An admin has withdrawn this identity's access: ask there.")
    address = identity.get("sourceIp") or ""
    return _issued(request, record, verdict.key_id, settings, now, address, revocations)


def _request(body: bytes, settings: Settings) -> Request:
    if len(body) > LONGEST_BODY:
        raise HttpError(413, "too-large", f"A request has at most {LONGEST_BODY} bytes.")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HttpError(400, "bad-request", 'The body is JSON: {"public_key": "ssh-ed25519 AAAA…", "seconds": 900}.')
    seconds = given.get("seconds", settings.certificate_seconds)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise HttpError(400, "bad-request", "seconds: a whole number of at least 1.")
    line = given.get("public_key")
    if not isinstance(line, str):
        raise HttpError(400, "bad-key", "public_key: the one line of a .pub file, as text.")
    try:
        return Request(user_key(line), seconds)
    except InvalidKeyError as reason:
        raise HttpError(400, "bad-key", f"public_key: {reason}.") from None


def _notebook_roles(table: Table, record: Record, now: int) -> frozenset[str]:
    """Return the execution roles of all notebooks. Raises RetryableError unless every one of them is known.

    Whatever else in a record this version cannot read, the role is what is needed of it; and one that is left out could
    be the caller's.
    """
    kept = _roles.get(table.name)
    if kept is None or not 0 <= now - kept[0] < ROLES_MAX_AGE_S:
        roles = [item.get("role", "") for item in table.items(NOTEBOOK, only=("role",))]
        if not all(isinstance(role, str) for role in roles):
            raise RetryableError(
                "the role of a notebook cannot be read: its record has another form than this version's"
            )
        kept = _roles[table.name] = (now, frozenset(roles))
    return (kept[1] | {record.role}) - {""}


def _log_access(certificate: UserCertificate, record: Record, address: str, settings: Settings, now: int) -> None:
    """Write into the access log, before anything is signed, who is about to get which certificate."""
    entry = Certificate(str(certificate.serial), certificate.key_id, address, now, certificate.valid_before)
    access_log.save_certificate(Table(settings.table), record.name, entry, now, settings.access_days)


def _issued(
    request: Request,
    record: Record,
    key_id: str,
    settings: Settings,
    now: int,
    address: str,
    revocations: Sequence[Revocation],
) -> Response:
    certificate = UserCertificate(
        key=request.key,
        key_id=key_id,
        principals=principals_to_sign(settings.stack, record.name, record.created_at, revocations, now),
        serial=secrets.randbits(SERIAL_BITS),
        valid_after=now - VALID_BEFORE_S,
        valid_before=end_of_certificate(now, request.seconds, settings.certificate_seconds, record.spec.until),
    )
    try:
        message = message_to_sign(certificate, settings.certificate_authorities[0], secrets.token_bytes(NONCE_BYTES))
    except InvalidKeyError as reason:
        raise HttpError(400, "bad-key", f"public_key: {reason}.") from None
    if settings.access_days:
        _log_access(certificate, record, address, settings, now)
    line = certificate_line(certificate, message, signing_key.sign(settings.certificate_key, message))
    # Who got it: CloudTrail has the signature, and this line has what it was for.
    logger.info(
        "certificate issued",
        extra={
            "notebook": record.name,
            "key_id": key_id,
            "serial": certificate.serial,
            "valid_before": certificate.valid_before,
        },
    )
    body = {
        "certificate": line,
        # As text: not every program reads whole numbers of 63 bits.
        "serial": str(certificate.serial),
        "principal": certificate.principals[0],
        "valid_before": certificate.valid_before,
        "server_time": now,
    }
    return Response(json_text(body), 201)
