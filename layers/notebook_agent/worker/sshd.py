"""What is known of the notebook's SSH server from outside: where it is, its host keys, its sessions."""

from __future__ import annotations

import glob
import os
import pwd
import re
import socket
import time

from agent import HOME, ROOT, RUN_DIR, load_json, read_text
from worker.keys import is_public_key
from worker.model import Json, Problem

SSH_PORT = int(os.environ.get("NOTEBOOK_SSH_PORT") or 22)
HOST_KEY_TYPES = "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"
STATE_FILE = RUN_DIR + "sshd.json"


class SshServer:
    """The SSH server that serves this notebook, as root left it in STATE_FILE (sshd_server.py): the system's, or our own.

    port: where it listens. reach: "" for the system's; of our own, who can connect: `loopback` or `network`.
    problem: why there is none, or none that the network reaches, if root knows.
    """

    def __init__(self) -> None:
        state = load_json(STATE_FILE)
        self.port = int(state.get("port") or SSH_PORT)
        self.reach = str(state.get("reach") or "")
        self.host_keys = [str(line) for line in state.get("host_keys") or []]
        code, message = state.get("problem") or ("", "")
        self.problem: Problem | None = (code, message) if code else None

    def serves(self, reach: str) -> bool:
        """Return whether an SSH server responds that can be reached as `reach` requires (sshd_server.py)."""
        return self.reach in ("", "network" if reach == "either" else reach) and responds(self.port)

    def is_displaced(self) -> bool:
        """Return whether our own server serves the loopback on another port, since another program has SSH_PORT."""
        return self.reach == "loopback" and self.port != SSH_PORT and responds(self.port)


def responds(port: int) -> bool:
    """Return whether an SSH server listens on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), 3) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def host_keys() -> list[str]:
    """Return the host's public keys, `type base64`. Only those that the stack accepts in a report."""
    own = SshServer().host_keys
    texts = own or [read_text(path) for path in sorted(glob.glob(ROOT + "/etc/ssh/ssh_host_*_key.pub"))]
    words = [text.split() for text in texts]
    valid = [each[:2] for each in words if len(each) > 1 and each[0] in HOST_KEY_TYPES and is_public_key(*each[:2])]
    return [" ".join(each) for each in valid][:8]


def sessions() -> Json:
    """Return {"open", "active_at"} of the notebook user's SSH sessions.

    sshd names the process of a connection `sshd: user@pts/0` or `user@notty`, and `sshd: user` as long as it has no
    session but port forwards (since 9.8 `sshd-session:`); its parent has ` [priv]` behind the name. A terminal's last
    use is its device's time; a connection without one (scp, VS Code, `ssh -N -L`) counts as in use while it is open.
    """
    user, active = pwd.getpwuid(os.stat(HOME).st_uid).pw_name, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            match = re.fullmatch(rf"sshd\S*: {re.escape(user)}(?:@([\w,/]+))?", read_text(path).strip("\0 "))
            if match:
                names = (match[1] or "").split(",")
                terminals = [os.stat("/dev/" + name) for name in names if name.startswith("pts/")]
                active.append(int(max((max(t.st_atime, t.st_mtime) for t in terminals), default=time.time())))
        except OSError:
            continue  # the process has ended
    return {"open": len(active), "active_at": max(active, default=None)}
