"""Who was on which notebook: `notebook-ssh who`, and `revoke`, which withdraws a certificate or a caller."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import datetime, timezone
from typing import Any

from notebook_ssh_client import settings, tables
from notebook_ssh_client.api import ApiClient, ApiError
from notebook_ssh_client.errors import EXIT_ACCESS_DENIED, EXIT_FAILURE, EXIT_UNREACHABLE, EXIT_USAGE, CliError
from notebook_ssh_client.settings import Stack
from notebook_ssh_client.ssh_address import split_host

UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
FIELDS = "begin", "end", "notebook", "who", "from", "path", "kind", "witness", "id"

# What can be withdrawn: a certificate's serial, a caller's ARN, the fingerprint of a central key.
WITHDRAWABLE = re.compile(r"[0-9]{1,20}|arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:\S{1,400}|SHA256:[A-Za-z0-9+/]{43}")


def read_entries(home: str, name: str | None, since: str | None) -> list[tuple[Stack, dict[str, Any]]]:
    """Return each stack's answer about one notebook or all, with the entries since a time. Raises CliError.

    since: an ISO 8601 time or date in UTC, or an age as `2d`.
    """
    earliest = parse_since(since, time.time()) if since else ""
    notebook, label = split_host(name) if name else (None, None)
    stacks = [stack for stack in settings.load_settings(home).stacks if label in (None, "", stack.label)]
    if not stacks:
        raise CliError(f"there is no stack {label}; see: notebook-ssh stacks", EXIT_USAGE)
    found = []
    for stack in stacks:
        answer = _read(stack, f"/notebooks/{notebook}/access" if notebook else "/access")
        entries = [_plain(entry) for entry in answer["entries"] if isinstance(entry, dict)]
        found.append((stack, {**answer, "entries": [entry for entry in entries if _is_since(entry, earliest)]}))
    return found


def _read(stack: Stack, path: str) -> dict[str, Any]:
    try:
        answer = ApiClient(stack).get(path)
    except ApiError as error:
        if error.status == 403:
            raise CliError(
                f"stack {stack.name} does not show you who was on its notebooks ({error.message.rstrip('.')}): an admin "
                "sets its parameters AccessDays, to keep that, and AuditPrincipals, to the roles that may see it",
                EXIT_ACCESS_DENIED,
            ) from error
        raise CliError(f"stack {stack.name} returned an error: {error.message}", EXIT_FAILURE) from error
    if not isinstance(answer, dict) or not isinstance(answer.get("entries"), list):
        raise CliError("the API returned an unexpected access log; update notebook-ssh")
    return answer


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry's fields as printable text: what a notebook reports could be made for a terminal."""
    return {
        field: None if entry.get(field) is None else "".join(each for each in str(entry[field]) if each.isprintable())
        for field in FIELDS
    }


def _is_since(entry: dict[str, Any], earliest: str) -> bool:
    """Return whether an entry began, or went on, at or after a time. Times of the API are in order as text."""
    return str(entry["begin"]) >= earliest or (entry["kind"] == "session" and str(entry["end"] or "~") >= earliest)


def parse_since(text: str, now: float) -> str:
    """Return a time as the API writes it. Raises CliError."""
    age = re.fullmatch(r"([0-9]{1,5})([mhdw])", text.strip())
    if age:
        moment = datetime.fromtimestamp(now - int(age[1]) * UNITS_S[age[2]], timezone.utc)
    else:
        try:
            moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        except ValueError:
            raise CliError(
                f"--since {text}: give an age as 90m, 12h, 2d or 1w, or a date as 2026-07-01 or 2026-07-01T08:00Z",
                EXIT_USAGE,
            ) from None
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def rows(entries: list[dict[str, Any]], *, of_one: bool) -> list[list[str]]:
    """Return a table of entries; its first row is the heading. An end on the day of the begin is its time alone.

    of_one: they are all of one notebook, which then has no column.
    """
    heading = ["BEGIN", "END", "NOTEBOOK", "WHO", "FROM", "WHAT", "SAYS"]
    lines = [
        [
            _minute(entry["begin"]),
            _end(entry),
            str(entry["notebook"]),
            short_name(str(entry["who"])),
            str(entry["from"] or "-"),
            str(entry["kind"]),
            str(entry["witness"]),
        ]
        for entry in entries
    ]
    return [[cell for number, cell in enumerate(line) if not of_one or number != 2] for line in [heading, *lines]]


def short_name(who: str) -> str:
    """Return who it was in a table's cell: `role/session` or the user's name of an ARN, and the beginning of a key."""
    arn = re.match(r"arn:aws[a-z-]*:(?:sts|iam)::[0-9]{12}:(?:assumed-role|user)/(\S+)", who)
    return arn[1] if arn else re.sub(r"(SHA256:.{8}).+", r"\1", who[:60])


def _end(entry: dict[str, Any]) -> str:
    if not entry["end"]:
        return "open" if entry["kind"] == "session" else "-"
    begin, end = _minute(entry["begin"]), _minute(entry["end"])
    return end.rpartition(" ")[2] if begin[:10] == end[:10] else end


def _minute(text: object) -> str:
    return tables.time_and_age(text, 0).partition(" (")[0]


def revoke(home: str, what: str, label: str | None, *, undo: bool) -> Stack:
    """Store in a stack's parameters that a certificate, a caller or a key is withdrawn, or no longer; return the stack.

    Calls Systems Manager with the user's own credentials: who may write there decides. Raises CliError.
    """
    if not WITHDRAWABLE.fullmatch(what):
        raise CliError(
            f"{what} is neither a certificate's serial (a number), nor the ARN of a role, a session or a user, nor the "
            "fingerprint of a key (SHA256:…); `notebook-ssh who --json` shows them",
            EXIT_USAGE,
        )
    stacks = [stack for stack in settings.load_settings(home).stacks if label in (None, stack.label)]
    if len(stacks) != 1:
        names = ", ".join(stack.label for stack in settings.load_settings(home).stacks) or "none"
        raise CliError(f"name one stack with --stack; there are: {names}", EXIT_USAGE)
    _write_parameter(stacks[0], what, undo=undo)
    return stacks[0]


def parameter_name(stack: str, what: str) -> str:
    """Return the name of the parameter that withdraws `what`: the same for each admin, of characters that are allowed."""
    return f"/notebook-ssh/{stack}/authorized-keys/revoked/{hashlib.sha256(what.encode()).hexdigest()[:32]}"


def _write_parameter(stack: Stack, what: str, *, undo: bool) -> None:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    from notebook_ssh_client.credentials import create_session, load_credentials

    session = create_session(stack.profile, stack.region)
    load_credentials(session, stack.profile)
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"})
    client: Any = session.create_client("ssm", region_name=stack.region, config=config)
    name = parameter_name(stack.name, what)
    try:
        if undo:
            client.delete_parameter(Name=name)
        else:
            client.put_parameter(Name=name, Value=what, Type="String", Overwrite=True)
    except ClientError as error:
        details = error.response.get("Error", {})
        if details.get("Code") == "ParameterNotFound":
            raise CliError(f"{what} is not withdrawn in stack {stack.name}", EXIT_USAGE) from error
        action = "ssm:DeleteParameter" if undo else "ssm:PutParameter"
        raise CliError(
            f"not written ({details.get('Message')}); it needs {action} on parameter{name.rpartition('/')[0]}/*",
            EXIT_ACCESS_DENIED,
        ) from error
    except BotoCoreError as error:
        raise CliError(f"cannot reach Systems Manager in {stack.region} ({error})", EXIT_UNREACHABLE) from error
