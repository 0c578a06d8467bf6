"""The diagnosis of a notebook: the stack's checks from tag to login, and a connection from this machine."""

from __future__ import annotations

import json

from notebook_ssh_client.api import ApiError, to_cli_error
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.lookup import NotebookInfo, fetch, parse_address
from notebook_ssh_client.transport import CONNECT_TIMEOUT_S, open_transport, unreachable_message


def diagnose(home: str, host: str, *, as_json: bool) -> tuple[str, bool]:
    """Return the stack's diagnosis with a check from this machine added, and whether this check passed."""
    notebook = fetch(home, host)
    path = f"/notebooks/{notebook.name}/doctor"
    result, reason = check_reachability(notebook)
    try:
        if not as_json:
            text = notebook.api.get_text(path).rstrip("\n")
            return f"{text}\nFrom this machine: {result}: {reason}", result == "ok"
        diagnosis = notebook.api.get(path)
    except ApiError as error:
        raise to_cli_error(error, notebook.stack) from error
    check = {"check": "from-here", "result": result, "since": None, "reason": reason, "remedy": ""}
    return json.dumps({**diagnosis, "checks": [*diagnosis["checks"], check]}, indent=2), result == "ok"


def check_reachability(notebook: NotebookInfo) -> tuple[str, str]:
    """Connect to the notebook from this machine; return the result (ok, waiting or failed) and the reason."""
    if not notebook.is_connectable:
        return "waiting", "there is no address to connect to yet"
    try:
        address = parse_address(notebook)
        transport, received = open_transport(address, CONNECT_TIMEOUT_S)
    except CliError as error:
        return "failed", str(error)
    except OSError as error:
        return "failed", unreachable_message(address, error)
    transport.close()
    banner = "".join(character for character in received.decode("ascii", "ignore").strip() if character.isprintable())
    return "ok", f"{address.host} port {address.port} answers with {banner}"
