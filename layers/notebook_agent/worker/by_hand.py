"""Finds the set-up by hand that this project replaces (docs/notebook.md): left in an on-start script, it runs as well.

It starts an ngrok agent of its own, which counts against the account's limit and may take the reserved address, and its
`copy-ssh-keys` overwrites ~/.ssh/authorized_keys.
"""

from __future__ import annotations

import os

from agent import ROOT, read_text
from worker.commands import COMMANDS

# Where it puts its commands; those of the agent are in /usr/local/bin.
COMMAND_DIRS = [ROOT + "/usr/bin/", ROOT + "/bin/", ROOT + "/usr/sbin/"]
PROC = "/proc/"


def setup_by_hand(own: int | None) -> str:
    """Return what was found of it, or "". own: the process id of the agent's own ngrok."""
    files = {os.path.realpath(folder + name) for folder in COMMAND_DIRS for name in COMMANDS}
    found = sorted(path for path in files if os.path.lexists(path))
    found += [f"ngrok as process {pid}" for pid in other_tunnels(own)]
    return ", ".join(found[:4])


def other_tunnels(own: int | None) -> list[int]:
    """Return the processes in which another ngrok leads to this machine's SSH, or starts all of a configuration."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir(PROC)), key=int):
        try:
            words = read_text(f"{PROC}{entry}/cmdline").split("\0")
        except OSError:
            continue  # it has ended, or is another user's
        is_tunnel = os.path.basename(words[0]) == "ngrok" and words[1:2] in (["start"], ["tcp"])
        if is_tunnel and int(entry) != own:
            found.append(int(entry))
    return found
