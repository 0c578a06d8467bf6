"""ngrok's program: downloaded, verified, kept on the volume."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
import zlib
from gzip import GzipFile
from typing import Any
from urllib.parse import SplitResult, urlsplit

from agent import read_text
from worker.files import explain_os_error, open_exclusive, write_file
from worker.model import AgentError
from worker.paths import NGROK_DIR

YEAR_S = 365 * 86400
# Always the latest of version 3; ngrok publishes no checksum (https://ngrok.com/download).
DOWNLOAD_URL = "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz"
# Of ngrok's own hosts. UNCONFIRMED(ngrok-redirect) whether the address above redirects, now that ngrok moves its files to ngrok.com.
NGROK_HOST = re.compile(r"bin\.equinox\.io|([a-z0-9-]+\.)*ngrok\.com")
MAX_ARCHIVE_BYTES = 1 << 27
MAX_UNPACKED_BYTES = 1 << 28


class NgrokRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect over https from one of ngrok's own hosts to another, or within the loopback, and no other one."""

    max_redirections = 3

    def redirect_request(
        self, request: Any, file: Any, code: int, message: str, headers: Any, target: str
    ) -> urllib.request.Request | None:
        """Return the next request, or None: then the response counts as an error."""
        addresses = urlsplit(request.full_url), urlsplit(target)
        among_ngroks = all(NGROK_HOST.fullmatch(address.hostname or "") for address in addresses)
        if (target.startswith("https://") and among_ngroks) or all(map(is_loopback, addresses)):
            return super().redirect_request(request, file, code, message, headers, target)
        return None


def is_loopback(address: SplitResult) -> bool:
    """Return whether an address is one of this machine's own, to which http need not be encrypted."""
    return (address.scheme, address.hostname) == ("http", "127.0.0.1")


class LimitedGzip(GzipFile):
    """Unpacks at most MAX_UNPACKED_BYTES: zeros compress to a thousandth, so the archive's size limits nothing."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. ValueError beyond the limit."""
        if self.tell() > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 20} MB")
        return super().read(size)


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
        write_file(path + ".from", source)
    except (OSError, ValueError, EOFError, zlib.error, tarfile.TarError, subprocess.SubprocessError) as error:
        if not installed and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AgentError(*explain_os_error(error, path)) from error
        if not installed:
            remedy = "allow this notebook to reach it, or an admin sets NgrokDownload"
            message = f"ngrok's agent could not be downloaded from {url}: {remedy} ({error})"
            raise AgentError("ngrok-download", message) from error
        emit(f"ngrok's agent was not updated: {error}")
    return path


def download_ngrok(url: str, sha256: str, path: str) -> None:
    """Install the program in the archive at `url`, if the archive has the SHA-256 (unless "") and the program runs."""
    address = urlsplit(url)
    if address.scheme != "https" and not is_loopback(address):
        raise ValueError("it is not an https address")
    archive, new = path + ".tgz", path + ".new"
    opener = urllib.request.build_opener(NgrokRedirects)
    digest, deadline = hashlib.sha256(), time.monotonic() + 300
    try:
        with opener.open(url, timeout=20) as response, open_exclusive(archive) as file:
            # read1 returns after each piece, so that the deadline holds for a slow sender too.
            for chunk in iter(lambda: response.read1(1 << 16), b""):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > MAX_ARCHIVE_BYTES or time.monotonic() > deadline:
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
    """Write the archive's member `ngrok` to `path`. ValueError if there is none that is a file, or it is too large."""
    with LimitedGzip(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as members:
        for member in members:
            content = members.extractfile(member) if member.name == "ngrok" and member.isfile() else None
            if content:
                with open_exclusive(path) as file:
                    shutil.copyfileobj(content, file)
                return
    raise ValueError("it contains no file named ngrok")


def emit(text: str, **fields: Any) -> None:
    """Print a line for the worker, in the format of ngrok's log."""
    print(json.dumps({"msg": text, "obj": "notebook-ssh", **fields}), flush=True)
