"""Root's part: it touches nothing but root's own paths."""

from __future__ import annotations

import os
import sys

from agent import HOME, INSTALL_DIR, REGION, ROOT, write_text
from worker.commands import COMMANDS
from worker.paths import NGROK_LOG
from worker.sshd import SSH_PORT
from worker.sshd_server import ensure_sshd, stop_sshd

# For interactive sessions over SSH only: scp, rsync and an editor's server must get no output and no delay.
# `-O`: root, or another user who logs in, never reads this user's files. It may run under `set -eu`.
PROFILE_SCRIPT = """\
case $-:${{SSH_CONNECTION-}} in *i*:?*) if [ -O {home}/SageMaker ]; then
  export AWS_DEFAULT_REGION="${{AWS_DEFAULT_REGION:-{region}}}"
  export AWS_REGION="${{AWS_REGION:-$AWS_DEFAULT_REGION}}"
  if [ -r {home}/anaconda3/etc/profile.d/conda.sh ]; then
    . {home}/anaconda3/etc/profile.d/conda.sh
    case :${{PATH-}}: in *:{home}/anaconda3/bin:*) ;; *) PATH={home}/anaconda3/bin${{PATH:+:$PATH}} ;; esac
  fi
fi ;; esac
"""


def root_setup(reach: str = "") -> None:
    """Install, as root, the commands, the profile script and ngrok's log, and start an SSH server if none responds.

    reach: who must reach it, as in `ensure_sshd`.
    """
    os.environ["HOME"] = "/root"  # the supervisor's is ec2-user's; rpm, for one, runs commands of ~/.rpmmacros
    for folder in ROOT + "/usr/local/bin", ROOT + "/etc/profile.d":
        os.makedirs(folder, exist_ok=True)
    for name in COMMANDS:
        settings = f"NOTEBOOK_SSH_ROOT='{ROOT}' NOTEBOOK_SSH_PORT={SSH_PORT}"
        text = f"#!/bin/sh\n{settings} exec '{sys.executable}' -I '{INSTALL_DIR}worker.py' {name} \"$@\"\n"
        write_text(f"{ROOT}/usr/local/bin/{name}", text, 0o755)
    write_text(ROOT + "/etc/profile.d/notebook-ssh.sh", PROFILE_SCRIPT.format(home=HOME, region=REGION))
    owner = os.stat(HOME)
    file = os.open(NGROK_LOG, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.fchmod(file, 0o600)
    os.fchown(file, owner.st_uid, owner.st_gid)
    os.close(file)
    ensure_sshd(reach)


def root_teardown() -> None:
    """Stop, as root, an sshd that the agent started. The commands stay until the next start: they report that SSH is off."""
    stop_sshd()
