"""Facts about ngrok: where its agent is downloaded from, and how it merges configuration files.

Both are seen from this machine. What is downloaded is in a folder of its own, and goes with it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from urllib.parse import urlsplit

from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab

DOWNLOAD_URL = "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz"
"""The default of the product (its ngrok_program.py)."""

DOWNLOAD_ENV_VAR = "NOTEBOOK_SSH_NGROK_DOWNLOAD"
"""Another address, in the environment: for a mirror."""

NGROK_HOST = re.compile(r"bin\.equinox\.io|([a-z0-9-]+\.)*ngrok\.com")
"""Hosts among which the product follows redirects."""

MAX_ARCHIVE_BYTES = 1 << 27
TIMEOUT_S = 20
START_LIMIT_S = 20.0


def download_url(environ: Mapping[str, str], machine: str) -> str:
    """Return where ngrok's agent for Linux is. machine: of `uname -m`."""
    arch = "arm64" if machine in ("aarch64", "arm64") else "amd64"
    return (environ.get(DOWNLOAD_ENV_VAR) or DOWNLOAD_URL).replace("{arch}", arch)


# ---- whether the address redirects -----------------------------------------------------------------


class Answer(NamedTuple):
    """What the address answered. status: 0 if it did not, for the reason `error`. target: where it redirects to."""

    status: int
    target: str = ""
    error: str = ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Every redirect counts as an answer."""


def observe_redirect(lab: Lab) -> Answer:
    """Ask for the archive's headers, and where HEAD is not answered, for the archive, which is not read."""
    url = download_url(lab.environ, "x86_64")
    answer = Answer(0)
    for method in ("HEAD", "GET"):
        answer = _ask(url, method)
        lab.account.note(f"{method} {url}", f"{answer.status or answer.error} {answer.target}".strip())
        if answer.status < 400 and answer.status:
            break
    return answer


def _ask(url: str, method: str) -> Answer:
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=TIMEOUT_S) as response:  # noqa: S310  the product's address
            return Answer(int(response.status))
    except urllib.error.HTTPError as error:
        with error:
            target = urlsplit(error.headers.get("Location") or "")
        return Answer(error.code, f"{target.scheme}://{target.hostname}" if target.hostname else "")
    except (OSError, ValueError) as error:
        return Answer(0, error=str(getattr(error, "reason", error)))


def decide_redirect(seen: Answer) -> Decision:
    """It must answer itself."""
    match seen:
        case Answer(0, _, error):
            return Undecided(f"the download address did not answer: {error}")
        case Answer(200):
            return Holds("the download address answers 200 itself")
        case Answer(301 | 302 | 303 | 307 | 308 as status, target):
            place = urlsplit(target)
            own = place.scheme == "https" and NGROK_HOST.fullmatch(place.hostname or "")
            follows = "one of ngrok's own, which the agent follows" if own else "which the agent does not follow"
            return Refuted(f"the download address redirects ({status}) to {target or 'nowhere'}, {follows}")
        case Answer(status):
            return Undecided(f"the download address answers {status}")


# ---- how two files are merged ----------------------------------------------------------------------


class Web(NamedTuple):
    """Where the agent's local API was. wanted: by the first file, which the second does not contradict.

    actual: as the agent's log says, "" if it said nothing; error: what it or its download said then.
    """

    wanted: str
    actual: str
    error: str = ""


class _NoProgramError(Exception):
    """There is no ngrok agent to try with; the message says why."""


def observe_merge(lab: Lab) -> Web:
    """Start ngrok's agent with two files, without any tunnel, until it says where its local API is."""
    with tempfile.TemporaryDirectory(prefix="nbssh-verify-") as folder:
        wanted = f"127.0.0.1:{_free_port()}"
        try:
            program = _program(Path(folder), lab.environ)
        except _NoProgramError as error:
            return Web(wanted, "", str(error))
        files = write_files(Path(folder), wanted, lab.ngrok_token)
        words = [program, "start", "--none", "--config", ",".join(files), "--log=stdout", "--log-format=json"]
        seen = _watch(words, wanted, lab.ngrok_token)
    lab.account.note(
        "ngrok start --none --config FIRST,SECOND", f"local API at {seen.actual or 'nowhere'} {seen.error}"
    )
    return seen


def write_files(folder: Path, address: str, token: str) -> Sequence[str]:
    """Write both configuration files, and return their paths: each has an `agent`, of which no key is in both.

    Only this user can read the second, which has the token.
    """
    first, second = folder / "first.yml", folder / "second.yml"
    first.write_text(f"version: 3\nagent:\n  web_addr: {address}\n")
    second.touch(mode=0o600)
    second.write_text(f"version: 3\nagent:\n  authtoken: {json.dumps(token)}\n  update_check: false\n")
    return str(first), str(second)


def _watch(words: Sequence[str], wanted: str, token: str) -> Web:
    """Run the agent until it names the address of its local API, or ends."""
    try:
        agent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        return Web(wanted, "", f"it could not be started: {error.strerror}")
    timer = threading.Timer(START_LIMIT_S, agent.kill)
    timer.start()
    with agent:
        try:
            return Web(wanted, *_read_log(cast(IO[bytes], agent.stdout), token))
        finally:
            timer.cancel()
            agent.kill()


def _read_log(log: IO[bytes], token: str) -> tuple[str, str]:
    """Return the address that a log names, and else the last error in it, or its last line."""
    last, error = "it said nothing", ""
    for line in log:
        text = line.decode(errors="replace").strip().replace(token or "\0", "<token>")
        if address := web_address(text):
            return address, ""
        last = text or last
        error = text if text.startswith("ERROR") or '"eror"' in text else error
    return "", error or last


def web_address(line: str) -> str:
    """Return the address in the line of ngrok's log that says where its local API is, and "" for every other line."""
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    is_it = isinstance(said, dict) and said.get("msg") == "starting web service"
    return str(said.get("addr", "")) if is_it else ""


def decide_merge(seen: Web) -> Decision:
    """The key of the first file must count, though the second has an `agent` as well."""
    match seen:
        case Web(_, "", error):
            return Undecided(f"ngrok's agent did not say where its local API is: {error}")
        case Web(wanted, actual) if wanted == actual:
            return Holds("a key below agent in the first file counts, though the second file has an agent as well")
        case Web():
            return Refuted("the agent of the second file takes the place of the first file's")


def _program(folder: Path, environ: Mapping[str, str]) -> str:
    """Return an agent: downloaded where the product would, on Linux, and else the one that is installed."""
    if not sys.platform.startswith("linux"):
        installed = shutil.which("ngrok", path=environ.get("PATH"))
        if not installed:
            raise _NoProgramError("ngrok is not installed on this machine, and the stack's download is for Linux")
        return installed
    url, archive = download_url(environ, platform.machine()), folder / "ngrok.tgz"
    try:
        with urllib.request.build_opener(_NgrokRedirects).open(url, timeout=TIMEOUT_S) as response:
            archive.write_bytes(b"".join(_limited(response)))
        with tarfile.open(archive, mode="r:gz") as members:
            content = members.extractfile("ngrok")
            if content is None:
                raise _NoProgramError(f"the archive at {url} has no file ngrok")
            with open(folder / "ngrok", "wb") as file:
                shutil.copyfileobj(content, file)
        os.chmod(folder / "ngrok", 0o700)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _NoProgramError(f"ngrok's agent could not be downloaded from {url}: {error}") from error
    return str(folder / "ngrok")


def _limited(response: Any) -> Iterator[bytes]:
    ends, size = time.monotonic() + 300, 0
    while data := response.read(1 << 16):
        size += len(data)
        if size > MAX_ARCHIVE_BYTES or time.monotonic() > ends:
            raise ValueError("it is larger than 128 MB, or takes longer than 5 minutes")
        yield data


class _NgrokRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect over https among ngrok's own hosts, as the product does."""

    def redirect_request(self, request: Any, *more: Any) -> urllib.request.Request | None:
        """Return the next request; None for an error."""
        target = str(more[-1])
        hosts = [urlsplit(url).hostname or "" for url in (request.full_url, target)]
        if target.startswith("https://") and all(NGROK_HOST.fullmatch(host) for host in hosts):
            return super().redirect_request(request, *more)
        return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


EXPERIMENTS = (
    Experiment(
        "ngrok-redirect",
        "ask the download address of ngrok's agent for its headers",
        frozenset[Need](),
        observe_redirect,
        decide_redirect,
    ),
    Experiment(
        "ngrok-merge",
        "download ngrok's agent to this machine, and start it for a moment with two configuration files and no tunnel",
        frozenset({Need.NGROK}),
        observe_merge,
        decide_merge,
    ),
)
