"""Starting a real sshd: what it needs of the machine, and how it is known that it lets people in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import processes
from patience import LIMIT_S

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Where Debian's sshd, as root, locks up the part that talks to strangers. Only a service manager makes it."""

LISTENS = b"Server listening on"


def start_sshd(
    name: str,
    config: Path,
    log: Path,
    port: int | None,
    *,
    within: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    limit: float = LIMIT_S,
) -> subprocess.Popen[bytes]:
    """Start sshd with the configuration `config`, and return once it answers on `port` of 127.0.0.1.

    name: whose sshd it is, for people. within: a command that runs a command elsewhere, such as `ip netns exec`;
    `port` is None where that is out of reach. env: what its environment has besides PATH. `processes.dismiss` ends it.
    Raises processes.DidNotStartError.
    """
    prepare(name)
    before = log.stat().st_size if log.exists() else 0

    def answers() -> bool:
        # Its own word first: on the port could be another program.
        with open(log, "rb") as file:
            file.seek(before)
            return LISTENS in file.read() and (port is None or _banner(port).startswith(b"SSH-"))

    command = [*within, *sshd_command(config)]
    return processes.start(name, command, answers, log=log, env={"PATH": _path(), **(env or {})}, limit=limit)


def sshd_command(config: Path) -> list[str]:
    """The command that runs sshd in the foreground."""
    return [program(), "-D", "-e", "-f", str(config)]


def program() -> str:
    """The path of this machine's sshd, which wants to be called by it."""
    return shutil.which("sshd", path=_path()) or "sshd"


def prepare(name: str) -> None:
    """Make what sshd needs of the machine, as root. name: whose sshd it is. Raises processes.DidNotStartError."""
    if os.geteuid() != 0:
        return
    try:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise processes.DidNotStartError(
            f"{name} needs {PRIVILEGE_SEPARATION}, which cannot be made: {error}"
        ) from None


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


def _banner(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(255)
    except OSError:
        return b""
