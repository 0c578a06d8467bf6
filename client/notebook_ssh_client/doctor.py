"""The diagnosis of a notebook: the stack's checks from tag to login, and a connection from this machine."""

from __future__ import annotations

import json
import time
from typing import Any

from notebook_ssh_client import certificate_check, messages, paths, tables
from notebook_ssh_client.api import ApiError, to_cli_error
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.lookup import NotebookInfo, fetch, parse_address
from notebook_ssh_client.messages import printable
from notebook_ssh_client.ssh_address import HOST_SUFFIX, SshAddress
from notebook_ssh_client.transport import BASTION_CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S, unreachable_message

# Columns before the reason of a check: two spaces, its result and its name.
REASON_COLUMN = 25


def diagnose(home: str, host: str) -> tuple[dict[str, Any], bool]:
    """Return the stack's diagnosis with the checks of this machine added, and whether the notebook answers it.

    The member `last_failure` has time and message of the last failure of ssh on this machine, or is None.
    """
    notebook = fetch(home, host)
    checks = check_reachability(home, notebook)
    try:
        diagnosis = notebook.api.get(f"/notebooks/{notebook.name}/doctor")
    except ApiError as error:
        raise to_cli_error(error, notebook.stack) from error
    if not isinstance(diagnosis, dict) or not isinstance(diagnosis.get("checks"), list):
        raise CliError(f"the API returned an unexpected diagnosis of notebook {notebook.name}; update notebook-ssh")
    is_reachable = any(check["result"] == "ok" for check in checks)
    checks = [*diagnosis["checks"], *checks, *certificate_check.check(home, notebook, time.time())]
    return {**diagnosis, "checks": checks, "last_failure": _last_failure(home, notebook)}, is_reachable


def format_json(diagnosis: dict[str, Any]) -> str:
    """Return the diagnosis as JSON."""
    return json.dumps(diagnosis, indent=2)


def format_text(diagnosis: dict[str, Any], now: float, columns: int | None, *, colour: bool) -> str:
    """Return the diagnosis for a terminal that is `columns` wide: a line for each check, and its remedy below it."""
    status = str(diagnosis.get("status"))
    since = tables.time_and_age(diagnosis.get("since"), now)
    heading = f"{diagnosis.get('name')}: {status}" + (f" since {since}" if since != "-" else "")
    lines = tables.wrap(printable(heading), columns, "  ")
    for check in diagnosis["checks"]:
        lines += _check_lines(check, now, columns, colour=colour)
    failure = diagnosis.get("last_failure")
    if failure:
        when = tables.time_and_age(failure["time"], now)
        lines += tables.wrap(f"Last failure of ssh here: {when}: {failure['message']}", columns, "  ")
    if diagnosis.get("next_step"):
        lines += tables.wrap(printable(f"Next: {diagnosis['next_step']}"), columns, "  ")
    return "\n".join(lines)


def check_reachability(home: str, notebook: NotebookInfo) -> list[dict[str, Any]]:
    """Connect to the notebook from this machine, by each of its paths; return a check for each of them.

    The member `path` is the mode, and `verdict` what an endpoint answered (endpoint-refused, endpoint-busy), or None.
    """
    if not notebook.is_connectable:
        return [_check("waiting", "there is no address to connect to yet")]
    try:
        address = parse_address(notebook)
    except CliError as error:
        return [_check("failed", str(error))]
    checks = [_check_path(home, path, with_mode=bool(address.others)) for path in address.paths]
    tried = {path.mode for path in address.paths}
    return checks + [_untried(path) for path in _listed(notebook) if path.get("mode") not in tried]


def _check_path(home: str, path: SshAddress, *, with_mode: bool) -> dict[str, Any]:
    """Connect by one path, up to the banner: nothing is authenticated."""
    by = f"by {path.mode}: " if with_mode else ""
    try:
        transport, received = paths.open_path(
            home, path, CONNECT_TIMEOUT_S, BASTION_CONNECT_TIMEOUT_S, messages.explain
        )
    except CliError as error:
        return _check("failed", f"{by}{error}", path.mode)
    except OSError as error:
        verdict = getattr(error, "verdict", None) or None
        return _check("failed", f"{by}{unreachable_message(path, error)}", path.mode, verdict)
    transport.close()
    banner = messages.one_line(received.decode("ascii", "ignore").strip())
    return _check("ok", f"{by}{path.host} port {path.port} answers with {banner}", path.mode)


def _untried(path: dict[str, Any]) -> dict[str, Any]:
    """Return the check of a path that the stack has no address of, or that has failed while another has not."""
    problem = path.get("problem")
    message = problem.get("message") if isinstance(problem, dict) else None
    mode = str(path.get("mode"))
    return _check("waiting", f"by {mode}: {message or 'there is no address to connect to yet'}", mode)


def _check(result: str, reason: str, path: str = "", verdict: str | None = None) -> dict[str, Any]:
    check = {"check": "from-here", "result": result, "since": None, "reason": reason, "remedy": ""}
    return {**check, "path": path or None, "verdict": verdict}


def _listed(notebook: NotebookInfo) -> list[dict[str, Any]]:
    listed = notebook.response.get("paths")
    return [path for path in listed if isinstance(path, dict)] if isinstance(listed, list) else []


def _check_lines(check: dict[str, Any], now: float, columns: int | None, *, colour: bool) -> list[str]:
    since = tables.time_and_age(check.get("since"), now, ", {}")
    reason = str(check.get("reason") or "") + (f" (since {since})" if since != "-" else "")
    result, name = str(check.get("result")), str(check.get("check"))
    head = f"  {result:<8} {name:<13} "
    indent = REASON_COLUMN if columns is None or columns >= 2 * REASON_COLUMN else 4
    lines = tables.wrap(printable(head + reason), columns, " " * indent)
    if colour and lines[0].startswith(head.rstrip()):
        lines[0] = f"  {tables.paint(f'{result:<8}')}{lines[0][10:]}"
    if check.get("remedy"):
        lines += tables.wrap(printable(f"{'':{indent}}→ {check['remedy']}"), columns, " " * (indent + 2))
    return lines


def _last_failure(home: str, notebook: NotebookInfo) -> dict[str, str] | None:
    """Return the last message about the notebook in the log, under any of the names that it has on this machine."""
    name, label = notebook.name.lower(), notebook.stack.label.lower()
    hosts = (f"{name}{HOST_SUFFIX}", f"{name}.{label}{HOST_SUFFIX}")
    found = max((entry for host in hosts for entry in messages.logged(home, host)), default=None)
    return {"time": found[0], "message": found[1]} if found else None
