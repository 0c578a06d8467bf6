"""Root's part: it touches nothing but root's own paths."""

from __future__ import annotations

import os
import subprocess
import sys

from agent import HOME, INSTALL_DIR, REGION, ROOT, RUN_DIR, read_text, write_text
from worker.commands import COMMANDS
from worker.paths import NGROK_LOG
from worker.sshd import SSH_PORT, sshd_responds

# For interactive sessions over SSH only: scp, rsync and an editor's server must get no output and no delay.
# `-O`: root, or another user who logs in, never reads this user's files.
PROFILE_SCRIPT = """\
case $-:$SSH_CONNECTION in *i*:?*) if [ -O {home}/SageMaker ]; then
  export AWS_DEFAULT_REGION="${{AWS_DEFAULT_REGION:-{region}}}"
  export AWS_REGION="${{AWS_REGION:-$AWS_DEFAULT_REGION}}"
  if [ -r {home}/anaconda3/etc/profile.d/conda.sh ]; then
    . {home}/anaconda3/etc/profile.d/conda.sh
    case :$PATH: in *:{home}/anaconda3/bin:*) ;; *) PATH={home}/anaconda3/bin:$PATH ;; esac
  fi
fi ;; esac
"""


def root_setup() -> None:
    """Install, as root, the commands, the profile script and ngrok's log, and start sshd if it does not run."""
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
    if not ROOT and not sshd_responds():
        # An sshd that is starting, or that was enabled by the owner's script, is not the agent's to stop. /etc is new
        # at every start, so enabling it would have no effect.
        if systemctl("is-enabled") and systemctl("is-active"):
            write_text(RUN_DIR + "sshd", "started by the agent\n")
        systemctl("start")


def root_teardown() -> None:
    """Stop, as root, an sshd that the agent started. The commands stay until the next start: they report that SSH is off."""
    if read_text(RUN_DIR + "sshd"):
        systemctl("stop")
        os.unlink(RUN_DIR + "sshd")


def systemctl(verb: str) -> int:
    """Return the exit status of `systemctl verb sshd`; 0 means yes, or done."""
    return subprocess.run(["systemctl", "--quiet", verb, "sshd"], stdin=subprocess.DEVNULL, timeout=60).returncode
