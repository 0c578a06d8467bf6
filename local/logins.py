"""A login name that is no account of this machine: programs started with these variables take it for this user's.

sshd without privileges can let in the user that runs it, and nobody else; with privileges it needs an account, and the
local run makes none. nss_wrapper, a library of the cwrap project that is loaded into a program, answers it from files of
our own when it asks for users and groups. It needs no privileges and no namespaces, which containers may forbid.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LIBRARY = "libnss_wrapper.so"
"""Found by the dynamic linker. On Debian and Ubuntu it is in the package libnss-wrapper."""


def is_missing() -> bool:
    """Whether this machine has no nss_wrapper."""
    # The dynamic linker says so on standard error, and goes on without it (ld.so(8), LD_PRELOAD).
    command = ["/bin/sh", "-c", ":"]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": LIBRARY}, capture_output=True, check=False)
    return LIBRARY.encode() in done.stderr


def as_user(name: str, home: Path, folder: Path) -> dict[str, str]:
    """Variables for programs that shall take this user for `name`, at home in `home`; written into `folder`.

    All other users and groups are this machine's.
    """
    user, group = os.geteuid(), os.getegid()
    users = [line for line in _lines("/etc/passwd") if _number(line) != user]
    # Without `tty`: sshd would give the terminal to that group, which only root may (sshpty.c, pty_setowner).
    groups = [line for line in _lines("/etc/group") if _number(line) != group and not line.startswith("tty:")]
    written = {
        "passwd": [f"{name}:x:{user}:{group}::{home}:/bin/bash", *users],
        "group": [f"{name}:x:{group}:", *groups],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, lines in written.items():
        (folder / file).write_text("".join(f"{line}\n" for line in lines))
    return {
        "LD_PRELOAD": LIBRARY,
        "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
        "NSS_WRAPPER_GROUP": str(folder / "group"),
    }


def _lines(path: str) -> list[str]:
    try:
        return [line for line in Path(path).read_text(errors="replace").splitlines() if line.count(":") > 1]
    except FileNotFoundError:
        return []


def _number(line: str) -> int | None:
    """The id in a line of passwd(5) or group(5)."""
    number = line.split(":")[2]
    return int(number) if number.isdecimal() else None
