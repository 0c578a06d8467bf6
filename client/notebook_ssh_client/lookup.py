"""Looks a notebook up in the stacks' APIs; starts it and waits for it where requested."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from notebook_ssh_client import messages, name_list, settings
from notebook_ssh_client.api import OTHER_SPELLING, ApiClient, ApiError, to_cli_error
from notebook_ssh_client.errors import EXIT_NOT_CONNECTABLE, EXIT_UNKNOWN_NOTEBOOK, CliError
from notebook_ssh_client.settings import Stack
from notebook_ssh_client.ssh_address import Endpoint, SshAddress, invalid_field

# Seconds to wait for a notebook that is starting. SageMaker usually takes three to eight minutes.
START_TIMEOUT_S = 15 * 60

POLL_INTERVAL_S = 5.0
PROGRESS_INTERVAL_S = 30.0  # between two progress lines with the same message

# Statuses in which the last address is worth trying.
CONNECTABLE = frozenset({"connected", "ready", "reconnecting", "stale"})

# What leads to a notebook: the words of its tag.
MODES = frozenset({"ngrok", "bastion", "eice"})

# Statuses that become `connected` without any action.
TRANSITIONAL = frozenset({"starting", "reconnecting"})


@dataclass(frozen=True)
class NotebookInfo:
    """A notebook as its stack describes it."""

    stack: Stack
    api: ApiClient
    name: str  # as SageMaker spells it
    response: dict[str, Any]  # of `GET /notebooks/{name}` (docs/api.md)

    @property
    def status(self) -> str:
        """One of the codes in docs/statuses.md."""
        return str(self.response.get("status", ""))

    @property
    def is_connectable(self) -> bool:
        """Whether there is an address that is worth trying."""
        return self.status in CONNECTABLE and bool(self.response.get("host") or paths_to_try(self.response))

    @property
    def summary(self) -> str:
        """The stack's message and next step."""
        sentences = [str(self.response.get(field) or "") for field in ("message", "next_step")]
        return " ".join(filter(None, sentences)) or f"{self.name} is {self.status or 'unknown'}."


def fetch(home: str, host: str, client: Callable[[Stack], ApiClient] = ApiClient) -> NotebookInfo:
    """Fetch the notebook that `host` refers to from the first stack that knows it, by the stacks' `client`.

    Raises CliError for an unknown notebook, denied access or a network error. A stack that fails is never treated as
    one that does not know the notebook: the next stack's notebook of the same name is another machine.
    """
    name, stacks = settings.resolve_host(host, settings.load_settings(home).stacks)
    names = name_list.load_names(home)
    for stack in stacks:
        api = client(stack)
        listed = name_list.spelled(name, names.get(stack.label, []))
        try:
            response = get_notebook(api, listed or name)
        except ApiError as error:
            if error.status != 404 or not error.code:
                raise to_cli_error(error, stack) from error
        else:
            return NotebookInfo(stack, api, name_list.spelled(name, [str(response.get("name"))]) or name, response)
    raise _unknown_notebook_error(home, name, stacks)


def get_notebook(api: ApiClient, name: str) -> dict[str, Any]:
    """Return the response of `GET /notebooks/{name}`, in SageMaker's spelling of the name if that is another one.

    Raises ApiError (404: unknown) or CliError.
    """
    try:
        response = api.get(f"/notebooks/{name}")
    except ApiError as error:
        right = name_list.spelled(name, [error.name]) if error.code == OTHER_SPELLING else None
        if right is None or right == name:
            raise
        response = api.get(f"/notebooks/{right}")
    if not isinstance(response, dict) or "status" not in response:
        raise CliError(f"the API returned an unexpected response for notebook {name}; update notebook-ssh")
    return response


def resolve(
    home: str, host: str, *, wake: bool = False, waiting: Callable[[str], None] = messages.report
) -> SshAddress:
    """Return the address of the notebook from its stack.

    With `wake`, wait for a notebook that is starting, and start a stopped one whose tags allow it. waiting: reports
    the progress. Raises CliError with the notebook's status and the next step if it has no address.
    """
    notebook = fetch(home, host)
    if wake and not notebook.is_connectable:
        notebook = wait_until_connectable(notebook, start=bool(notebook.response.get("wake")), waiting=waiting)
    return parse_address(_require_connectable(notebook))


def start(home: str, host: str, *, timeout_s: float = START_TIMEOUT_S) -> NotebookInfo:
    """Start the notebook if it is stopped, and wait until it is connectable. Raises CliError on timeout or failure."""
    return _require_connectable(wait_until_connectable(fetch(home, host), start=True, timeout_s=timeout_s))


def wait_until_connectable(
    notebook: NotebookInfo,
    *,
    start: bool,
    timeout_s: float = START_TIMEOUT_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    waiting: Callable[[str], None] = messages.report,
) -> NotebookInfo:
    """Poll until the notebook is connectable, or until its status shows that waiting does not help; return it.

    start: whether to start it if it is stopped. waiting: reports the progress. Raises CliError after `timeout_s`.
    """
    started_at = clock()
    printed, printed_at, start_requested = "", started_at, False
    while not notebook.is_connectable:
        if notebook.status == "stopped" and start and not start_requested:
            start_requested = _request_start(notebook)
        elif notebook.status not in TRANSITIONAL and not (notebook.status == "stopped" and start):
            return notebook
        now = clock()
        if now - started_at > timeout_s:
            raise CliError(
                f"{notebook.summary} It was not ready after {_format_duration(timeout_s)}.", EXIT_NOT_CONNECTABLE
            )
        text = _progress(notebook, start_requested) if start else notebook.summary
        if text != printed or now - printed_at >= PROGRESS_INTERVAL_S:
            printed, printed_at = text, now
            elapsed = f"{_format_duration(now - started_at)} of at most {_format_duration(timeout_s)}"
            waiting(f"{printed} Waiting ({elapsed})")
        sleep(POLL_INTERVAL_S)
        notebook = _refetch(notebook)
    return notebook


def _progress(notebook: NotebookInfo, start_requested: bool) -> str:
    """Return what happens to a notebook that this client starts: not how the user would start it."""
    if notebook.status != "stopped":
        return str(notebook.response.get("message") or f"{notebook.name} is {notebook.status}.")
    return (
        f"{notebook.name} is {'stopped and is being started' if start_requested else 'stopping, and is started then'}."
    )


def parse_address(notebook: NotebookInfo) -> SshAddress:
    """Return the address in the API's response, with every value validated before ssh gets it. Raises CliError."""
    keys, fetched_at = tuple(notebook.response.get("host_keys") or ()), int(time.time())
    # A stack without paths describes its only one at the top.
    found = paths_to_try(notebook.response) or [notebook.response]
    address, *others = [_parse_path(path, notebook.stack, keys, fetched_at) for path in found]
    address.others = tuple(others)
    invalid = invalid_field(address)
    if invalid:
        raise CliError(
            f"the API returned an invalid {invalid[0]} for {notebook.name}: {invalid[1]!r}; report it to the stack's admin"
        )
    if not address.host_keys:
        raise CliError(
            f"{notebook.name} has not reported its host keys yet, so it cannot be verified; try again in a minute, "
            f"or run: notebook-ssh doctor {notebook.name}",
            EXIT_NOT_CONNECTABLE,
        )
    return address


def paths_to_try(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the paths with an address, in the tag's order; those that have failed only if no other has one.

    A mode that this client does not know is left out: its address may mean something else.
    """
    listed = response.get("paths")
    paths = [path for path in listed if isinstance(path, dict)] if isinstance(listed, list) else []
    usable = [path for path in paths if path.get("mode") in MODES and path.get("host") and _has_its_endpoint(path)]
    return [path for path in usable if path.get("state") != "failed"] or usable


def _has_its_endpoint(path: dict[str, Any]) -> bool:
    return path["mode"] != "eice" or isinstance(path.get("endpoint"), dict)


def _parse_path(path: dict[str, Any], stack: Stack, host_keys: tuple[str, ...], fetched_at: int) -> SshAddress:
    """Return an address that is not validated yet."""
    endpoint = path.get("endpoint")
    named = [str(endpoint.get(field)) for field in ("id", "dns_name", "region")] if isinstance(endpoint, dict) else None
    return SshAddress(
        host=path.get("host"),  # type: ignore[arg-type]  # invalid_field checks the types too
        port=path.get("port"),  # type: ignore[arg-type]
        host_keys=host_keys,
        bastion=parse_bastion(path.get("jump")),
        fetched_at=fetched_at,
        bastion_keys=tuple(path.get("jump_host_keys") or ()),
        endpoint=Endpoint(named[0], named[1], named[2], stack.label) if named else None,
        mode=str(path.get("mode") or ""),
    )


def parse_bastion(jump: object) -> tuple[str, str, int] | None:
    """Return (host, user, port) of `user@host`, `user@host:port` or, for IPv6, `user@[host]:port`. Port 0: not valid."""
    if jump is None:
        return None
    user, _, rest = str(jump).rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port[1:] if port.startswith(":") else "0" if port else "22"
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, "22"  # several colons without brackets: IPv6
    return host, user, int(port) if port.isdecimal() and len(port) <= 5 else 0


def _require_connectable(notebook: NotebookInfo) -> NotebookInfo:
    if not notebook.is_connectable:
        raise CliError(notebook.summary, EXIT_NOT_CONNECTABLE)
    return notebook


def _request_start(notebook: NotebookInfo) -> bool:
    """Request the start. Returns False while it is too early for it (status 409), for example still stopping."""
    try:
        notebook.api.post(f"/notebooks/{notebook.name}/start")
    except ApiError as error:
        if error.status == 409:
            return False
        raise to_cli_error(error, notebook.stack) from error
    return True


def _refetch(notebook: NotebookInfo) -> NotebookInfo:
    try:
        return replace(notebook, response=get_notebook(notebook.api, notebook.name))
    except ApiError as error:
        raise to_cli_error(error, notebook.stack) from error


def _unknown_notebook_error(home: str, name: str, stacks: list[Stack]) -> CliError:
    from difflib import get_close_matches

    names = name_list.load_names(home)
    listed = {other.lower(): other for stack in stacks for other in names.get(stack.label, [])}
    similar = [listed[match] for match in get_close_matches(name.lower(), listed, n=3)]
    searched = " or ".join(f"{stack.name} ({stack.region})" for stack in stacks)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "run: notebook-ssh list"
    return CliError(f"no notebook called {name} in stack {searched}; {hint}", EXIT_UNKNOWN_NOTEBOOK)


def _format_duration(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
