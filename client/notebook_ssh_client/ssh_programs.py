"""The programs called `ssh` on this machine: their versions, and whether they understand what the client writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from notebook_ssh_client import files
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX

# A host that no stack has: a notebook's name has at most 63 characters.
JUDGED_HOST = f"{'judged-by-ssh-' * 5}{HOST_SUFFIX}"

# Seconds for one evaluation. It starts the client once, on a machine that may be busy.
TIMEOUT_S = 30


def programs() -> dict[str, str]:
    """Return every `ssh` on PATH, since they all read the same ssh_config: what identifies its file, and its path."""
    name = "ssh.exe" if os.name == "nt" else "ssh"
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = {}
    for path in sorted({os.path.realpath(os.path.join(directory, name)) for directory in directories if directory}):
        if os.path.isfile(path):
            status = os.stat(path)
            found[f"{path} {status.st_size} {status.st_mtime_ns}"] = path
    return found


def versions(home: str) -> list[tuple[int, int]]:
    """Return the version of every `ssh` on PATH.

    Cached in `home` for as long as the file of the program is the same, so that a refresh starts no process.
    """
    cache_path = os.path.join(home, "ssh_versions.json")
    cached = _load_versions(cache_path)
    current = {
        identity: cached[identity] if identity in cached else _read_version(path)
        for identity, path in programs().items()
    }
    if current != cached and os.path.isdir(home):
        files.write_text(cache_path, json.dumps(current))
    return [(version[0], version[1]) for version in current.values() if version]


def require_accepted(home: str, texts: Mapping[str, str]) -> None:
    """Let every `ssh` read these files, by name, of which `hosts` is the first. Raises CliError if one refuses them.

    `{folder}` in a text stands for the folder in which they are for that time.
    """
    for path in programs().values():
        done = _evaluate(home, path, texts)
        if done is not None and done.returncode != 0:
            reason = next(iter(done.stderr.strip().splitlines()), f"it ends with {done.returncode}")
            raise CliError(
                f"{path} refuses the configuration for notebooks ({reason.strip()}); nothing was changed: install a "
                "newer OpenSSH, or remove the old one from PATH"
            )


def obtains_certificates(home: str, text: str) -> bool:
    """Return whether every `ssh` runs the command in `text`, a file with a `Match exec`, and uses what stands below it.

    Cached in `home` for each program until it or the text changes, so that a refresh starts no process. One that could
    not be run, as on a busy machine, is tried again.
    """
    cache_path = os.path.join(home, "ssh_certificates.json")
    cached = _load_outcomes(cache_path, text)
    current = dict(cached)
    found = programs()
    for identity, path in found.items():
        done = None if identity in current else _evaluate(home, path, {"hosts": text})
        if done is not None:
            is_used = re.search(r"^certificatefile ", done.stdout, re.MULTILINE)
            current[identity] = done.returncode == 0 and is_used is not None
    if current != cached:
        files.write_text(cache_path, json.dumps({"text": text, "works": current}))
    return bool(found) and all(current.get(identity, False) for identity in found)


def parse_version(text: str) -> tuple[int, int] | None:
    """Return the version in the output of `ssh -V`: `OpenSSH_9.2p1 …` or `OpenSSH_for_Windows_8.1p1, …`."""
    match = re.search(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _evaluate(home: str, path: str, texts: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    """Return what `ssh -G` says about JUDGED_HOST with these files; None if it could not be run."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="judged-", dir=home) as folder:
        for name, text in texts.items():
            files.write_text(os.path.join(folder, name), text.replace("{folder}", folder.replace("\\", "/")))
        command = [path, "-G", "-F", os.path.join(folder, "hosts"), JUDGED_HOST]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None


def _load_versions(path: str) -> dict[str, Sequence[int] | None]:
    """Return the cached versions by program. A damaged file counts as empty: it is recreated."""
    try:
        cached = json.loads(files.read_text(path) or "{}")
        return {str(key): [int(part) for part in value][:2] if value else None for key, value in cached.items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _load_outcomes(path: str, text: str) -> dict[str, bool]:
    """Return whether each program obtains certificates by `text`, as far as known. A damaged file counts as empty."""
    try:
        cached = json.loads(files.read_text(path) or "{}")
        works = cached.get("works", {}) if cached.get("text") == text else {}
        return {str(identity): outcome is True for identity, outcome in works.items()}
    except (ValueError, AttributeError):
        return {}


def _read_version(path: str) -> tuple[int, int] | None:
    try:
        result = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(result.stderr + result.stdout)
