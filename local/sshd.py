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
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    program = shutil.which("sshd", path=path) or "sshd"  # sshd wants to be called by its whole path
    if os.geteuid() == 0:
        try:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise processes.DidNotStartError(
                f"{name} needs {PRIVILEGE_SEPARATION}, which cannot be made: {error}"
            ) from None
    before = log.stat().st_size if log.exists() else 0

    def answers() -> bool:
        # Its own word first: on the port could be another program.
        with open(log, "rb") as file:
            file.seek(before)
            return LISTENS in file.read() and (port is None or _banner(port).startswith(b"SSH-"))

    command = [*within, program, "-D", "-e", "-f", str(config)]
    return processes.start(name, command, answers, log=log, env={"PATH": path, **(env or {})}, limit=limit)


def _banner(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(255)
    except OSError:
        return b""
