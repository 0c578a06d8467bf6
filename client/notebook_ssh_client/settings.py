"""The client's settings: the configured stacks, and the stack and notebook that a host name refers to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from notebook_ssh_client import files
from notebook_ssh_client.errors import EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import is_label, split_host


@dataclass(frozen=True)
class Stack:
    """A deployed stack, and the AWS profile to call its API with."""

    label: str  # what the user types in `my-notebook.<label>.notebook`: the stack's name, made unique
    name: str
    region: str
    api_url: str  # with the API's stage, without a slash at the end
    profile: str | None = None  # None: the default credentials of the environment


@dataclass(frozen=True)
class ClientSettings:
    """What `setup` has configured."""

    stacks: list[Stack]  # in the order in which they were added; the first one wins a short name
    ssh_config: str  # the user's ssh_config that includes the client's hosts file


def load_settings(home: str) -> ClientSettings:
    """Read the settings. Raises CliError if `setup` has not been run, or if other users can change them."""
    path = _settings_path(home)
    files.require_private(home)
    text = files.read_text(path)
    if text is None:
        raise CliError("no stack is configured; run: notebook-ssh setup", EXIT_USAGE)
    try:
        values = json.loads(text)
        return ClientSettings([Stack(**item) for item in values["stacks"]], str(values["ssh_config"]))
    except (ValueError, TypeError, KeyError) as error:
        raise CliError(
            f"{path} is damaged ({error}); run: notebook-ssh setup --remove, then: notebook-ssh setup", EXIT_USAGE
        ) from error


def add_stack(home: str, stack: Stack, ssh_config: str) -> ClientSettings:
    """Add `stack` to the settings, or replace its entry, and return the new settings."""
    stacks = load_settings(home).stacks if os.path.exists(_settings_path(home)) else []
    existing = next((other for other in stacks if _is_same_stack(other, stack)), None)
    label = existing.label if existing else _unique_label(stack, {other.label.lower() for other in stacks})
    stack = replace(stack, label=label)
    stacks = [stack if other is existing else other for other in stacks] if existing else [*stacks, stack]
    settings = ClientSettings(stacks, ssh_config)
    _save(home, settings)
    return settings


@contextmanager
def restored_on_error(home: str) -> Iterator[None]:
    """Restore the settings as they were if what is below fails."""
    path = _settings_path(home)
    before = files.read_text(path)
    try:
        yield
    except BaseException:
        if before is not None:
            files.write_text(path, before)
        elif os.path.exists(path):
            os.unlink(path)
        raise


def remove_stack(home: str, label: str) -> ClientSettings:
    """Remove the stack with this label from the settings and return the new settings. Raises CliError if unknown."""
    current = load_settings(home)
    removed = find_stack(label, current.stacks)
    new = replace(current, stacks=[stack for stack in current.stacks if stack is not removed])
    _save(home, new)
    return new


def find_stack(label: str, stacks: list[Stack]) -> Stack:
    """Return the stack with this label. Raises CliError if none has it."""
    for stack in stacks:
        if stack.label.lower() == label.lower():
            return stack
    labels = ", ".join(stack.label for stack in stacks)
    raise CliError(
        f"stack {label!r} is not configured (configured: {labels}); add it with: notebook-ssh setup --stack NAME",
        EXIT_USAGE,
    )


def _save(home: str, settings: ClientSettings) -> None:
    files.write_text(_settings_path(home), json.dumps(asdict(settings), indent=2) + "\n")


def resolve_host(host: str, stacks: list[Stack]) -> tuple[str, list[Stack]]:
    """Return the notebook name in `host`, and the stacks to look it up in.

    Accepts `name`, `name.notebook` and `name.label.notebook`. Raises CliError for anything else.
    """
    name, label = split_host(host)
    if not label:
        return name, stacks
    return name, [find_stack(label, stacks)]


def require_private_url(url: str) -> None:
    """Raise CliError unless `url` is HTTPS, or HTTP on this machine: a request carries the user's session token."""
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0].rpartition("@")[2]
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    if scheme == "https" or (scheme == "http" and is_loopback(host)):
        return
    raise CliError(
        f"{url!r} is not a valid API URL: it must begin with https://, since a request carries your session token; "
        "set --api to the stack's output ApiUrl, https://…/v1",
        EXIT_USAGE,
    )


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine's loopback address, or its name."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _settings_path(home: str) -> str:
    return os.path.join(home, "settings.json")


def _is_same_stack(one: Stack, other: Stack) -> bool:
    identities = [(stack.name, stack.region, stack.profile) for stack in (one, other)]
    return one.api_url == other.api_url or identities[0] == identities[1]


def _unique_label(stack: Stack, taken: set[str]) -> str:
    preferred = [stack.name, f"{stack.name}-{stack.region}", f"{stack.name}-{stack.region}-{stack.profile}"]
    numbered = (f"{stack.name}-{number}" for number in range(2, len(taken) + 3))
    return next(label for label in [*preferred, *numbered] if label.lower() not in taken and is_label(label))
