"""The SSH keys of the user who runs this: read and never changed, so that a notebook of the local run admits them."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MOST = 5
"""Keys taken: sshd lets a client try six (sshd_config(5), MaxAuthTries)."""

UNFIT = ("ssh-dss", "-cert-v01@openssh.com")
"""How the types end that sshd does not take from a line of authorized_keys: DSA, and certificates."""

PATIENCE = 5
"""Seconds for an agent to answer."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. name: what its owner knows it by. line: the public key. identity: the file that ssh is to be told of."""

    name: str
    line: str
    identity: Path


def folder() -> Path:
    """This user's .ssh, where ssh looks for it: by the list of users, whatever HOME says (ssh(1), FILES)."""
    return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"


def find(ssh: Path, agents: Path) -> list[Key]:
    """The keys that `ssh` can log in with here: those in the folder `ssh` and those that ssh-agent holds, at most MOST.

    agents: a folder for the public keys that only the agent has.
    """
    held = [line for line in map(str.strip, _of_the_agent()) if _is_fit(line)]
    found: dict[str, Key] = {}
    for public in sorted(ssh.glob("id_*.pub")):
        line = _first_line(public)
        # By a public key's file alone ssh finds the private one in the agent (ssh_config(5), IdentityFile).
        private = public.with_suffix("")
        if _is_fit(line) and '"' not in str(public) and (private.exists() or _core(line) in map(_core, held)):
            found.setdefault(_core(line), Key(f"~/.ssh/{public.name}", line, private if private.exists() else public))
    for number, line in enumerate(held, start=1):
        if _core(line) not in found and len(found) < MOST:
            agents.mkdir(parents=True, exist_ok=True)
            public = agents / f"agent-{number}.pub"
            public.write_text(f"{line}\n")
            found[_core(line)] = Key(f"{' '.join(line.split()[2:]) or 'a key'} of ssh-agent", line, public)
    return list(found.values())[:MOST]


def _of_the_agent() -> Iterable[str]:
    if "SSH_AUTH_SOCK" not in os.environ:
        return ()
    try:
        listed = subprocess.run(
            ["ssh-add", "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return listed.stdout.splitlines() if listed.returncode == 0 else ()


def _first_line(file: Path) -> str:
    try:
        return next(iter(file.read_text(errors="replace").splitlines()), "").strip()
    except OSError:
        return ""


def _is_fit(line: str) -> bool:
    """Whether this is a public key as authorized_keys holds it."""
    words = line.split()
    return len(words) > 1 and words[1].startswith("AAAA") and not words[0].endswith(UNFIT)


def _core(line: str) -> str:
    """The key without its comment."""
    return " ".join(line.split()[:2])
