"""A file for a bug report: what the stack and this machine know of one notebook, without secrets.

It is made from the API's responses, which hold no secret by themselves; whatever looks like one is removed all the same,
because a user publishes the file: also account ids, addresses, keys, and the names of users.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from typing import Any

from notebook_ssh_client import __version__
from notebook_ssh_client.api import ApiError
from notebook_ssh_client.doctor import diagnose
from notebook_ssh_client.lookup import fetch

# Only whether these members are set.
_HIDDEN = frozenset({"address", "host", "port", "ssh", "jump", "endpoint", "host_keys", "jump_host_keys", "users"})

_MASKS = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.DOTALL), "<key>"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{8,}"), "<access key>"),
    (re.compile(r"\b[a-z0-9]{10}(?=\.execute-api\.)"), "<api>"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "<user>"),
    # ngrok's tokens, AWS's secrets and session tokens, keys, hashes: more letters and digits than any word has.
    (re.compile(r"\b(?=[\w+/=-]*[0-9])[\w+/=-]{32,}"), "<removed>"),
    (re.compile(r"\b[0-9][0-9A-Za-z]{3,}_[0-9A-Za-z_]{3,}"), "<token>"),
    (re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])"), "<account>"),
    (re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])"), "<ip>"),
    (re.compile(r"\b[\w.-]+\.ngrok(?:-free)?\.(?:io|app|dev)(?::[0-9]+)?"), "<address>"),
)


def make_bundle(home: str, host: str) -> tuple[str, str]:
    """Return the bundle's file name and its text, JSON without secrets. Raises CliError if the notebook is unknown."""
    notebook = fetch(home, host)
    diagnosis, _ = diagnose(home, host)
    try:
        listed: Any = [item for item in notebook.api.get("/notebooks") if item.get("name") == notebook.name]
    except (ApiError, AttributeError, TypeError) as error:
        listed = type(error).__name__
    bundle = {
        "client": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "ssh": _ssh_version(),
        "notebook": notebook.response,
        "list": listed,
        "diagnosis": diagnosis,
    }
    return f"notebook-ssh-{notebook.name}.json", json.dumps(without_secrets(bundle), indent=2) + "\n"


def without_secrets(value: Any) -> Any:
    """Return `value` with what looks like a secret, an account, an address or a user replaced by what it was."""
    if isinstance(value, dict):
        return {
            mask(str(key)): ("<set>" if each else each) if key in _HIDDEN else without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return mask(value) if isinstance(value, str) else value


def mask(text: str) -> str:
    """Return `text` without secrets, account ids, addresses and users."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def _ssh_version() -> str:
    try:
        done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    return (done.stderr or done.stdout).strip()
