"""What is known of sshd from outside: its host keys, its sessions, whether it responds."""

from __future__ import annotations

import glob
import os
import pwd
import re
import socket
import time

from agent import HOME, ROOT, read_text
from worker.model import Json

SSH_PORT = int(os.environ.get("NOTEBOOK_SSH_PORT") or 22)
HOST_KEY_TYPES = "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"


def host_keys() -> list[str]:
    """Return the host's public keys, `type base64`. Only of the types that the stack accepts in a report."""
    texts = (read_text(path).split() for path in sorted(glob.glob(ROOT + "/etc/ssh/ssh_host_*_key.pub")))
    return [" ".join(words[:2]) for words in texts if len(words) > 1 and words[0] in HOST_KEY_TYPES][:8]


def sessions() -> Json:
    """Return {"open", "active_at"} of the notebook user's SSH sessions.

    sshd names a session's process `sshd: user@pts/0` or `user@notty` (since 9.8 `sshd-session:`). A terminal's last
    use is its device's time; a session without one (scp, VS Code) counts as in use for as long as it is open.
    """
    user, active = pwd.getpwuid(os.stat(HOME).st_uid).pw_name, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            match = re.match(rf"sshd\S*: {re.escape(user)}@(\S+)", read_text(path).replace("\0", " "))
            if match:
                terminals = [os.stat("/dev/" + name) for name in match[1].split(",") if name.startswith("pts/")]
                active.append(int(max((max(t.st_atime, t.st_mtime) for t in terminals), default=time.time())))
        except OSError:
            continue  # the process has ended
    return {"open": len(active), "active_at": max(active, default=None)}


def sshd_responds() -> bool:
    """Return whether an SSH server listens on the notebook's port."""
    try:
        with socket.create_connection(("127.0.0.1", SSH_PORT), 3) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False
