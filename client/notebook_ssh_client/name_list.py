"""The list of notebook names of every stack, which ssh's hosts file is generated from."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from notebook_ssh_client import certificate_store, files, settings, ssh_files
from notebook_ssh_client.api import ApiClient, ApiError, to_cli_error
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.settings import ClientSettings, Stack
from notebook_ssh_client.ssh_address import is_notebook_name

# Seconds after which a connection refreshes the list in the background.
MAX_AGE_S = 600


def load_names(home: str) -> dict[str, list[str]]:
    """Return the names that each stack (by label) listed last. A damaged file counts as empty: it is recreated."""
    text = files.read_text(_path(home)) or "{}"
    try:
        return {str(label): [str(name) for name in names] for label, names in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def load_offers(home: str) -> list[str]:
    """Return the labels of the stacks that had certificates when they were listed last. A damaged file counts as empty."""
    try:
        return [str(label) for label in json.loads(files.read_text(_offers_path(home)) or "[]")]
    except (ValueError, TypeError):
        return []


def save_names(home: str, names: dict[str, list[str]]) -> None:
    """Write the names of each stack (by label)."""
    files.write_text(_path(home), json.dumps(names, indent=1) + "\n")


def list_notebooks(stack: Stack) -> list[dict[str, Any]]:
    """Return the notebooks of `stack`, one object each (`GET /notebooks`). Raises CliError."""
    try:
        items = ApiClient(stack).get("/notebooks")
    except ApiError as error:
        raise to_cli_error(error, stack) from error
    if not isinstance(items, list):
        raise CliError("the API returned an unexpected list of notebooks; update notebook-ssh")
    return [item for item in items if isinstance(item, dict) and is_notebook_name(str(item.get("name")))]


def spelled(name: str, names: list[str]) -> str | None:
    """Return `name` as it is spelled in `names`, or None if it is not among them: the stacks compare capitals."""
    return next((each for each in names if each.lower() == name.lower()), None)


def has_certificates(notebooks: list[dict[str, Any]]) -> bool:
    """Return whether the stack that listed these notebooks has certificates; an older stack does not say so."""
    return any(item.get("certificates") is True for item in notebooks)


def refresh_names(home: str, *, judge: bool = False) -> list[tuple[Stack, list[dict[str, Any]] | CliError]]:
    """List the notebooks of every stack, write their names for ssh, and return each stack's notebooks or error.

    Each notebook gets the member `ssh`, what to type after `ssh`. Every listed name is kept, also of a notebook that is
    off: ssh then prints the reason instead of not resolving it. A stack that returns an error keeps the names that it listed last.
    judge: let ssh read the files first; raises CliError, and leaves them as they were, if it refuses them.
    """
    names, offers = load_names(home), load_offers(home)
    results: list[tuple[Stack, list[dict[str, Any]] | CliError]] = []
    current = settings.load_settings(home)
    for stack in current.stacks:
        try:
            notebooks = list_notebooks(stack)
        except CliError as error:
            results.append((stack, error))
        else:
            results.append((stack, notebooks))
            names[stack.label] = [str(item["name"]) for item in notebooks]
            offers = [label for label in offers if label != stack.label]
            offers += [stack.label] if has_certificates(notebooks) else []
    reached_by = _write(home, current, names, offers, judge=judge)
    for stack, notebooks_or_error in results:
        for item in notebooks_or_error if isinstance(notebooks_or_error, list) else []:
            item["ssh"] = reached_by.get((stack.label, str(item["name"])))
    return results


def forget_stacks(home: str) -> None:
    """Write the names again for the stacks that are still configured, as they listed them last."""
    _write(home, settings.load_settings(home), load_names(home), load_offers(home))


def _write(
    home: str, current: ClientSettings, names: dict[str, list[str]], offers: list[str], *, judge: bool = False
) -> dict[tuple[str, str], str]:
    labels = [stack.label for stack in current.stacks]
    names = {label: names[label] for label in labels if label in names}
    offers = [label for label in labels if label in offers]
    reached_by = ssh_files.write_hosts_file(home, current.ssh_config, names, labels, offers, judge=judge)
    save_names(home, names)
    if offers != load_offers(home):
        files.write_text(_offers_path(home), json.dumps(offers) + "\n")
        certificate_store.forget_refusals(home)
    return reached_by


def refresh_names_in_background(home: str) -> None:
    """Refresh the list in a thread, if it is older than MAX_AGE_S. Errors are ignored."""
    if _age_s(home, time.time()) < MAX_AGE_S:
        return

    def refresh() -> None:
        try:
            refresh_names(home)
        except (OSError, CliError):
            return  # must not disturb the connection; the next one tries again

    threading.Thread(target=refresh, daemon=True).start()


def _path(home: str) -> str:
    return os.path.join(home, "names.json")


def _offers_path(home: str) -> str:
    return os.path.join(home, "offers.json")


def _age_s(home: str, now: float) -> float:
    """Return the seconds since the last refresh; infinity if there was none."""
    try:
        return now - os.stat(_path(home)).st_mtime
    except FileNotFoundError:
        return float("inf")
