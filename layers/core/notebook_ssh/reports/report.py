"""What a notebook tells (docs/protocol.md): read with suspicion, weighed against what is known, answered.

A report is data from a stranger. What it says ends up in `ssh_config`, in `known_hosts` and on terminals, so nothing
passes that is not what it claims to be, and no text keeps a character that could mean something there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any, NoReturn, TypeVar

from notebook_ssh.errors import InvalidReportError, PayloadTooLargeError, Problem
from notebook_ssh.model.assessment import silent_after
from notebook_ssh.model.record import Phase, Record, RejectedKey, Report
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.ssh_keys import InvalidKeyError, host_key
from notebook_ssh.model.stack import Bastion
from notebook_ssh.model.text import printable

LARGEST_BODY = 16 * 1024
"""Bytes of a report's body."""

FAST_SYNC_SECONDS = 15
"""Time between two reports until the connection stands."""

CLOCK_SKEW = 300
"""Seconds by which a notebook's clock may be ahead: as many as SigV4 itself allows."""

_BOOT = re.compile(r"[A-Za-z0-9-]{1,64}")
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+){0,9}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_INWARD = (".localhost", ".local", ".internal", ".localdomain", ".arpa")
_MANY = 10_000
_YEAR_2242 = 2**33

E = TypeVar("E", Mode, Phase)


@dataclass(frozen=True, slots=True)
class ParsedReport:
    """A report as read.

    token_version: the version of the ngrok token that the agent holds, or None.
    wants_worker: the agent has not yet got the program that does what is wished.
    """

    report: Report
    token_version: str | None = None
    wants_worker: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """The ngrok token and its version, both opaque. `repr` shows no secret."""

    version: str
    value: str

    def __repr__(self) -> str:
        return f"Token(version={self.version!r})"


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Nobody tagged this notebook: it is told `off`."""


@dataclass(frozen=True, slots=True)
class RoleMismatch:
    """The caller's role is not this notebook's. expected: the role that may report, or empty while unknown."""

    expected: str


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """Not newer than the report that is known."""

    known: Report


@dataclass(frozen=True, slots=True)
class Accepted:
    """Newer, and not merely more of the same. report: as it is to be kept; before: the one it replaces."""

    report: Report
    before: Report | None


AcceptResult = Unregistered | RoleMismatch | OutOfOrder | Accepted


def role_of_caller(user_arn: str, account: str) -> str | None:
    """The role of `account` behind `user_arn`, a caller's ARN as API Gateway shows it; None: it is none of its roles.

    `arn:<partition>:sts::<account>:assumed-role/<role>/<session>`: the role's path is not in it, and need not be, as no
    two roles of an account have one name, whatever their paths (IAM User Guide, "IAM identifiers").
    """
    found = re.fullmatch(r"arn:aws[a-z-]*:sts::(\d{12}):assumed-role/([^/]+)/[^/]+", user_arn)
    return found[2] if found and found[1] == account else None


# Reading -------------------------------------------------------------------------------------------------------------


def read_report(body: bytes, now: int, *, allow_loopback: bool = False) -> ParsedReport:
    """The report in `body`, received at `now`.

    allow_loopback: an address of this very machine will do (the local run). Fields that are not in docs/protocol.md
    are passed over, so that a newer agent can talk to an older stack. Raises InvalidReportError naming the field, nothing else.
    """
    if len(body) > LARGEST_BODY:
        raise PayloadTooLargeError("body", f"has {len(body):,} bytes; at most {LARGEST_BODY:,} are read")
    parsed = _object(_json(body), "body")
    mode = _word(parsed, "mode", Mode)
    phase = _word(parsed, "phase", Phase)
    host, port = _address(parsed, mode, phase, allow_loopback)
    keys = _object(parsed.get("keys") or {}, "keys")
    sessions = _object(parsed.get("sessions") or {}, "sessions")
    booted_at = _whole(parsed, "booted_at", 0, _YEAR_2242)
    if booted_at > now + CLOCK_SKEW:
        raise InvalidReportError(
            "booted_at", f"is {booted_at - now:,} seconds ahead of the stack's clock: set the notebook's"
        )
    report = Report(
        boot=_text(parsed, "boot", _BOOT, "1 to 64 letters, digits and hyphens"),
        booted_at=booted_at,
        sequence=_whole(parsed, "sequence", 1, 2**53),
        received_at=now,
        mode=mode,
        phase=phase,
        agent=_clean(parsed.get("agent", ""), "agent", 32),
        host=host,
        port=port,
        host_keys=_host_keys(parsed.get("host_keys")),
        keys_own=_whole(keys, "own", 0, _MANY, "keys.", default=0),
        keys_central=_whole(keys, "central", 0, _MANY, "keys.", default=0),
        rejected=_rejected(keys.get("rejected")),
        sessions=_whole(sessions, "open", 0, _MANY, "sessions.", default=0),
        active_at=None
        if sessions.get("active_at") is None
        else _whole(sessions, "active_at", 0, _YEAR_2242, "sessions."),
        problem=_problem(parsed.get("problem")),
    )
    version = parsed.get("token_version")
    return ParsedReport(
        report,
        token_version=None if version is None else _clean(version, "token_version", 64),
        wants_worker=parsed.get("wants_worker") is True,
    )


def _json(body: bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of thousands of digits, a thousand brackets
        raise InvalidReportError("body", "is not JSON in UTF-8") from None


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidReportError(field, "must be an object")
    return value


def _list(value: Any, field: str, most: int) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        raise InvalidReportError(field, f"must be a list of at most {most}")
    return value


def _whole(
    parsed: Mapping[str, Any], name: str, least: int, most: int, within: str = "", default: int | None = None
) -> int:
    value = parsed.get(name, default)
    if type(value) is not int or not least <= value <= most:  # a bool is an int to isinstance
        raise InvalidReportError(within + name, f"must be a whole number from {least} to {most}")
    return value


def _text(parsed: Mapping[str, Any], name: str, pattern: re.Pattern[str], expected: str, within: str = "") -> str:
    value = parsed.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidReportError(within + name, f"must be {expected}")
    return value


def _word(parsed: Mapping[str, Any], name: str, words: type[E]) -> E:
    value = parsed.get(name)
    if not isinstance(value, str) or value not in list(words):
        raise InvalidReportError(name, f"must be one of {', '.join(words)}")
    return words(value)


def _clean(value: Any, field: str, most: int) -> str:
    """A text for people: one line of at most `most` printable characters, whatever was sent."""
    if not isinstance(value, str):
        raise InvalidReportError(field, "must be text")
    return printable(value)[:most]


def _address(
    parsed: Mapping[str, Any], mode: Mode, phase: Phase, allow_loopback: bool
) -> tuple[str | None, int | None]:
    """Where people connect. Only the tunnel's address is the notebook's to tell; through a bastion it is EC2's."""
    if mode is not Mode.NGROK:
        return None, None
    if parsed.get("host") is None and parsed.get("port") is None:
        if phase is Phase.CONNECTED:
            raise InvalidReportError("host", "is missing, though the phase is connected")
        return None, None
    return _host(parsed.get("host"), allow_loopback), _whole(parsed, "port", 1, 65535)


def _host(value: Any, allow_loopback: bool) -> str:
    """A public host: people and programs will connect there because a notebook said so.

    A name whose last label is a number is refused with the addresses that are not public, because resolvers read
    `0x7f.1` and `2130706433` as IPv4 (inet_aton(3)). What a name resolves to is not looked up: it may change later,
    and the host key decides.
    """
    if not isinstance(value, str) or len(value) > 253:
        raise InvalidReportError("host", "must be a DNS name or an IPv4 address")
    host = value.lower()
    if re.fullmatch(r"[0-9.]+", host):
        try:
            address = IPv4Address(host)
        except ValueError:
            raise InvalidReportError("host", "must be a DNS name or an IPv4 address") from None
        if not (address.is_global and not address.is_multicast) and not (allow_loopback and address.is_loopback):
            raise InvalidReportError("host", f"is {address}, which is not a public address")
        return host
    labels = host.split(".")
    if len(labels) < 2 or host.endswith(_INWARD):
        raise InvalidReportError("host", "must be a public DNS name")
    if not all(_LABEL.fullmatch(label) for label in labels) or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        raise InvalidReportError("host", "must be a DNS name or an IPv4 address")
    return host


def _host_keys(value: Any) -> tuple[str, ...]:
    keys = []
    for number, text in enumerate(_list(value, "host_keys", 8)):
        if not isinstance(text, str):
            raise InvalidReportError(f"host_keys[{number}]", "must be text")
        try:
            keys.append(host_key(text))
        except InvalidKeyError as reason:
            raise InvalidReportError(f"host_keys[{number}]", str(reason)) from None
    return tuple(dict.fromkeys(keys))


def _rejected(value: Any) -> tuple[RejectedKey, ...]:
    lines = []
    for number, each in enumerate(_list(value, "keys.rejected", 20)):
        line = _object(each, f"keys.rejected[{number}]")
        where = f"keys.rejected[{number}]."
        lines.append(
            RejectedKey(_whole(line, "line", 1, 2**31, where), _clean(line.get("reason", ""), where + "reason", 120))
        )
    return tuple(lines)


def _problem(value: Any) -> Problem | None:
    if value is None:
        return None
    problem = _object(value, "problem")
    code = _text(problem, "code", _CODE, "lower-case words joined by hyphens", "problem.")
    if len(code) > 40:
        raise InvalidReportError("problem.code", "must have at most 40 characters")
    return Problem(code, _clean(problem.get("message", ""), "problem.message", 500))


# Weighing ------------------------------------------------------------------------------------------------------------


def accept(record: Record | None, role: str, report: Report) -> AcceptResult:
    """What to make of `report`, which a caller with `role` sent, given everything known about the notebook."""
    if record is None:
        return Unregistered()
    if record.role != role:
        return RoleMismatch(record.role)
    before = record.report
    if before is not None and not _newer(report, before):
        return OutOfOrder(before)
    return Accepted(_carried(report, before), before)


def heartbeat_deadline(now: int, sync_seconds: int) -> int:
    """A report is more of the same only when the last one came after this moment: else there was a silence to tell of."""
    return now - silent_after(sync_seconds)


def _newer(report: Report, before: Report) -> bool:
    if report.boot == before.boot:
        return report.sequence > before.sequence
    return report.booted_at > before.booted_at


def _carried(report: Report, before: Report | None) -> Report:
    """`report` with the moments that only the stack knows: since when the phase, since when connected."""
    now = report.received_at
    if before is None or before.boot != report.boot or before.mode is not report.mode:
        return replace(report, phase_since=now, connected_since=now if report.phase is Phase.CONNECTED else None)
    same_phase = (before.phase, before.problem) == (report.phase, report.problem)
    connected_since = before.connected_since
    if report.phase is Phase.CONNECTED and (
        (before.host, before.port) != (report.host, report.port) or not connected_since
    ):
        connected_since = now
    return replace(report, phase_since=before.phase_since if same_phase else now, connected_since=connected_since)


# Answering -----------------------------------------------------------------------------------------------------------


def reply(
    record: Record,
    now: int,
    *,
    sync_seconds: int,
    bastion: Bastion | None,
    token: Token | None,
    held_version: str | None,
    keys: Sequence[tuple[str, Sequence[str]]],
    problem: Problem | None = None,
    worker: str | None = None,
) -> dict[str, Any]:
    """What the notebook of `record` is to do, as docs/protocol.md says.

    token: the ngrok token, or None when the stack has none. held_version: the one that the agent holds.
    keys: public-key lines by user. problem: what the stack found wrong, told with the record's own.
    worker: the text of layers/notebook_agent/worker.py, when the agent asked for it.
    """
    spec, mode = record.spec, record.spec.effective_mode(now)
    reply: dict[str, Any] = {
        "notebook": record.name,
        "mode": str(mode),
        "sync_after": _sync_after(record, mode, now, sync_seconds),
        "server_time": now,
        "until": spec.until,
        "authorized_keys": [{"user": user, "keys": list(lines)} for user, lines in keys]
        if mode is not Mode.OFF
        else [],
    }
    if worker and mode is not Mode.OFF:
        reply["worker"] = worker
    problem = spec.problem or problem or record.problem
    if mode is Mode.NGROK:
        reply["ngrok"] = {"url": spec.ngrok_url, "token_version": token.version if token else None}
        if token and token.version != held_version:
            reply["ngrok"]["token"] = token.value
    elif mode is Mode.BASTION and bastion:
        reply["bastion"] = {
            "host": bastion.host,
            "user": bastion.user,
            "private_ip": record.route.private_ip if record.route else None,
        }
        problem = problem or (record.route.problem if record.route else None)
    reply["problem"] = {"code": problem.code, "message": problem.message} if problem else None
    return reply


def missing_token(secret: str) -> Problem:
    """The problem of a stack whose ngrok secret holds no token yet."""
    return Problem(
        "ngrok-token-missing",
        "The stack has no ngrok token yet: copy it from https://dashboard.ngrok.com/get-started/your-authtoken, then run "
        f"aws secretsmanager put-secret-value --secret-id '{secret}' --secret-string file://TOKEN_FILE",
    )


def reply_unregistered(name: str, now: int, sync_seconds: int) -> dict[str, Any]:
    """The answer to a notebook that nobody tagged: nothing is wished of it."""
    return {
        "notebook": name,
        "mode": str(Mode.OFF),
        "sync_after": sync_seconds,
        "server_time": now,
        "until": None,
        "authorized_keys": [],
        "problem": None,
    }


def _sync_after(record: Record, mode: Mode, now: int, sync_seconds: int) -> int:
    """Seconds to the next report: fewer while the connection is being made, and none beyond the end time."""
    report, until = record.report, record.spec.until
    settled = report is not None and report.mode is mode and report.phase is not Phase.CONNECTING
    if settled and mode is Mode.BASTION:
        settled = record.route is not None
    seconds = sync_seconds if settled else min(sync_seconds, FAST_SYNC_SECONDS)
    return max(1, min(seconds, until - now)) if until is not None and until > now else seconds
