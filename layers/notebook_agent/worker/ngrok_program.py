"""ngrok's program: downloaded, verified, kept on the volume."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import time
import urllib.request
from typing import Any

from agent import read_text, write_text
from worker.files import open_exclusive
from worker.model import AgentError
from worker.paths import NGROK_DIR

YEAR_S = 365 * 86400
# Always the latest of version 3; ngrok publishes no checksum (https://ngrok.com/download).
DOWNLOAD_URL = "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz"


def install_ngrok(force: bool) -> str:
    """Install ngrok's agent on the volume, if needed, and return its path. force: ngrok refuses the installed one.

    It is downloaded if there is none, if another one is configured, and after a year (agents are supported for
    14 months). A download that fails leaves the installed one in place.
    """
    machine = "arm64" if os.uname().machine == "aarch64" else "amd64"
    url = (os.environ.get("NOTEBOOK_SSH_NGROK_DOWNLOAD") or DOWNLOAD_URL).replace("{arch}", machine)
    sha256 = os.environ.get("NOTEBOOK_SSH_NGROK_SHA256", "").lower()
    path, source = NGROK_DIR + "ngrok", f"{url} {sha256}\n"
    installed = os.path.isfile(path) and os.access(path, os.X_OK)
    current = (
        installed
        and not force
        and read_text(path + ".from") == source
        and time.time() - os.stat(path).st_mtime < YEAR_S
    )
    if current:
        return path
    try:
        download_ngrok(url, sha256, path)
        write_text(path + ".from", source)
    except (OSError, ValueError, LookupError, EOFError, tarfile.TarError, subprocess.SubprocessError) as error:
        if not installed:
            raise AgentError("ngrok-download", f"ngrok's agent could not be downloaded from {url}: {error}") from error
        emit(f"ngrok's agent was not updated: {error}")
    return path


def download_ngrok(url: str, sha256: str, path: str) -> None:
    """Install the program in the archive at `url`, if the archive has the SHA-256 (unless "") and the program runs."""
    archive, new = path + ".tgz", path + ".new"
    digest, deadline = hashlib.sha256(), time.monotonic() + 300
    try:
        with urllib.request.urlopen(url, timeout=20) as response, open_exclusive(archive) as file:
            # read1 returns after each piece, so that the deadline holds for a slow sender too.
            for chunk in iter(lambda: response.read1(1 << 16), b""):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > 1 << 27 or time.monotonic() > deadline:
                    raise ValueError("it is larger than 128 MB or takes longer than 5 minutes")
        if sha256 and digest.hexdigest() != sha256:
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not {sha256} as configured in the stack")
        extract_ngrok(archive, new)
        os.chmod(new, 0o755)
        ended = subprocess.run([new, "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if b"version 3" not in ended.stdout:
            raise ValueError("it contains no ngrok agent of version 3")
        os.replace(new, path)
    finally:
        for temporary in archive, new:
            if os.path.lexists(temporary):
                os.unlink(temporary)


def extract_ngrok(archive: str, path: str) -> None:
    """Write the archive's member `ngrok` to `path`."""
    with tarfile.open(archive) as members, open_exclusive(path) as file:
        member = members.extractfile("ngrok")
        if member is None:
            raise ValueError("its ngrok is not a file")
        file.write(member.read())


def emit(text: str, **fields: Any) -> None:
    """Print a line for the worker, in the format of ngrok's log."""
    print(json.dumps({"msg": text, "obj": "notebook-ssh", **fields}), flush=True)
