"""Parses a notebook's report (docs/protocol.md). Nothing passes that is not what it claims to be.

A report is untrusted input: it ends up in `ssh_config`, in `known_hosts` and on terminals, so no text keeps a character
that could mean something there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, NoReturn

from notebook_ssh.errors import InvalidReportError, PayloadTooLargeError, Problem
from notebook_ssh.model.access import LONGEST_WHO, MOST_OF_A_REPORT, Session
from notebook_ssh.model.problems import AGENT_FAILED, CODES
from notebook_ssh.model.record import PathReport, Phase, RejectedKey, Report
from notebook_ssh.model.spec import OFF, Mode
from notebook_ssh.model.ssh_keys import InvalidKeyError, host_key
from notebook_ssh.model.text import printable

MAX_BODY_BYTES = 16 * 1024
"""The most that a report's body may have."""

CLOCK_SKEW = 300
"""Seconds by which a notebook's clock may be ahead: as many as SigV4 itself allows."""

_BOOT = re.compile(r"[A-Za-z0-9-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SESSION = re.compile(r"[A-Za-z0-9_]{1,64}")
_PATH = re.compile(r"ngrok|network")
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+){0,9}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_INWARD = (".localhost", ".local", ".internal", ".localdomain", ".arpa")
_BEST_FIRST = (Phase.CONNECTED, Phase.CONNECTING, Phase.FAILED, Phase.OFF)
_MOST_PATHS = 8
_MANY = 10_000
_YEAR_2242 = 2**33


@dataclass(frozen=True, slots=True)
class ParsedReport:
    """A report with what else its body says."""

    report: Report
    token_version: str | None = None  # of the ngrok token that the agent holds
    access: tuple[Session, ...] = ()  # sessions for the access log
    access_more: int = 0  # how many of them the agent has not kept
    worker: str = ""  # SHA-256 of the worker's program that the agent needs; empty: it has it


def read_report(body: bytes, now: int, *, allow_loopback: bool = False) -> ParsedReport:
    """Parse the report in `body`, received at `now` (epoch seconds).

    allow_loopback: accept a loopback address (the local run). Fields that are not in docs/protocol.md are ignored, so
    that a newer agent can report to an older stack. Raises InvalidReportError naming the field, nothing else.
    """
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError("body", f"has {len(body):,} bytes; at most {MAX_BODY_BYTES:,} are read")
    parsed = _object(_json(body), "body")
    modes, phase = _modes(parsed), _phase(parsed.get("phase"), "phase")
    paths = _paths(parsed, modes, phase)
    host, port = _address(
        parsed, modes, {path.mode: path.phase for path in paths}.get(Mode.NGROK, phase), allow_loopback
    )
    keys = _object(parsed.get("keys") or {}, "keys")
    sessions = _object(parsed.get("sessions") or {}, "sessions")
    booted_at = _booted_at(parsed, now)
    report = Report(
        boot=_text(parsed, "boot", _BOOT, "1 to 64 letters, digits and hyphens"),
        booted_at=booted_at,
        sequence=_whole(parsed, "sequence", 1, 2**53),
        received_at=now,
        modes=modes,
        phase=min((path.phase for path in paths), key=_BEST_FIRST.index, default=phase),
        agent=_clean(parsed.get("agent", ""), "agent", 32),
        host=host,
        port=port,
        host_keys=_host_keys(parsed.get("host_keys")),
        keys_own=_whole(keys, "own", 0, _MANY, "keys.", default=0),
        keys_central=_whole(keys, "central", 0, _MANY, "keys.", default=0),
        authorities=_whole(keys, "authorities", 0, _MANY, "keys.", default=0),
        rejected=_rejected(keys.get("rejected")),
        sessions=_whole(sessions, "open", 0, _MANY, "sessions.", default=0),
        unknown_sessions=_whole(sessions, "unknown", 0, _MANY, "sessions.", default=0),
        active_at=_active_at(sessions, now),
        problem=_problem(parsed.get("problem"), "problem"),
        paths=paths,
    )
    version, worker = parsed.get("token_version"), parsed.get("worker")
    return ParsedReport(
        report,
        token_version=None if version is None else _clean(version, "token_version", 64),
        access=_access(parsed.get("access"), now),
        access_more=_whole(parsed, "access_more", 0, _MANY, default=0),
        worker=worker if isinstance(worker, str) and _SHA256.fullmatch(worker) else "",
    )


def _access(value: Any, now: int) -> tuple[Session, ...]:
    sessions = []
    for number, each in enumerate(_list(value, "access", MOST_OF_A_REPORT)):
        where = f"access[{number}]."
        session = _object(each, f"access[{number}]")
        begin = min(now, _whole(session, "begin", 0, _YEAR_2242, where))
        end = min(now, _whole(session, "end", 0, _YEAR_2242, where)) if session.get("end") is not None else None
        sessions.append(
            Session(
                id=_text(session, "id", _SESSION, "1 to 64 letters, digits and _", where),
                who=_clean(session.get("who", ""), where + "who", LONGEST_WHO),
                address=_clean(session.get("from", ""), where + "from", 64),
                path=_text(session, "path", _PATH, "ngrok or network", where),
                begin=begin,
                end=end,
                known=session.get("known") is True,
            )
        )
    return tuple(sessions)


def _booted_at(parsed: Mapping[str, Any], now: int) -> int:
    booted_at = _whole(parsed, "booted_at", 0, _YEAR_2242)
    if booted_at > now + CLOCK_SKEW:
        raise InvalidReportError(
            "booted_at", f"is {booted_at - now:,} seconds ahead of the stack's clock: set the notebook's"
        )
    return booted_at


def _active_at(sessions: Mapping[str, Any], now: int) -> int | None:
    if sessions.get("active_at") is None:
        return None
    return min(now, _whole(sessions, "active_at", 0, _YEAR_2242, "sessions."))


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


def _modes(parsed: Mapping[str, Any]) -> tuple[Mode, ...]:
    """Parse `modes`; without it `mode`, which is all that the block and workers before `modes` send.

    A mode that this version does not know is left out: after a rollback, agents are still in the one that the newer stack
    replied, and would never leave it if their reports were refused.
    """
    words, field = parsed.get("modes"), "modes"
    if words is None:
        word, field = parsed.get("mode"), "mode"
        words = [] if word == OFF else word.split(" ") if isinstance(word, str) else [word]
    if (
        not isinstance(words, list)
        or not all(isinstance(word, str) and word != OFF and _MODE.fullmatch(word) for word in words)
        or len({*words}) < len(words)
    ):
        known = ", ".join(Mode)
        expected = f"a list of different words, such as {known}" if field == "modes" else f"one of {OFF}, {known}"
        raise InvalidReportError(field, f"must be {expected}")
    return tuple(Mode(word) for word in words if word in list(Mode))


def _phase(value: Any, field: str) -> Phase:
    if not isinstance(value, str) or value not in list(Phase):
        raise InvalidReportError(field, f"must be one of {', '.join(Phase)}")
    return Phase(value)


def _paths(parsed: Mapping[str, Any], modes: Sequence[Mode], phase: Phase) -> tuple[PathReport, ...]:
    """Parse `phases` and `problems`, which an agent in several modes sends. What they hold of another mode is ignored.

    An agent before `phases` reports no single path: then there are none, and its phase is that of each.
    """
    phases, problems = _by_mode(parsed, "phases"), _by_mode(parsed, "problems")
    if not phases:
        return ()
    return tuple(
        PathReport(
            mode,
            _phase(phases.get(mode, phase), f"phases.{mode}"),
            _problem(problems.get(mode), f"problems.{mode}"),
        )
        for mode in modes
    )


def _by_mode(parsed: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    values = _object(parsed.get(field) or {}, field)
    if len(values) > _MOST_PATHS:
        raise InvalidReportError(field, f"must have at most {_MOST_PATHS} modes")
    return values


def _clean(value: Any, field: str, most: int) -> str:
    """Return text for display: one line of at most `most` printable characters, whatever was sent."""
    if not isinstance(value, str):
        raise InvalidReportError(field, "must be text")
    return printable(value)[:most]


def _address(
    parsed: Mapping[str, Any], modes: Sequence[Mode], phase: Phase, allow_loopback: bool
) -> tuple[str | None, int | None]:
    """Parse the address that users connect to. Only a tunnel's comes from the notebook; in bastion mode EC2 gives it."""
    if Mode.NGROK not in modes:
        return None, None
    if parsed.get("host") is None and parsed.get("port") is None:
        if phase is Phase.CONNECTED:
            raise InvalidReportError("host", "is missing, though the phase is connected")
        return None, None
    return _host(parsed.get("host"), allow_loopback), _whole(parsed, "port", 1, 65535)


def _host(value: Any, allow_loopback: bool) -> str:
    """Parse a public host: users and programs will connect to it because a notebook reported it.

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


def _problem(value: Any, field: str) -> Problem | None:
    if value is None:
        return None
    problem = _object(value, field)
    code = _text(problem, "code", _CODE, "lower-case words joined by hyphens", f"{field}.")
    if len(code) > 40:
        raise InvalidReportError(f"{field}.code", "must have at most 40 characters")
    return Problem(code if code in CODES else AGENT_FAILED, _clean(problem.get("message", ""), f"{field}.message", 500))
