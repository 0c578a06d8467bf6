"""What tests need of their machine beyond Python. Where it is missing they are skipped with a sentence that says what to do.

In CI a skipped test has failed (conftest.py). Nothing here is asked while tests are collected: which tests there are does
not depend on the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest
from support import namespaces


def program(name: str) -> str:
    """The path of a program that packaging/tools.sh installs."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"needs {name}, which `packaging/tools.sh {name}` installs")
    return path


def root(why: str) -> None:
    """A user who may do everything."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root, {why}: run it as root, or leave out what does with -m 'not needs_root'")


def mounts() -> None:
    """A mount namespace of its own, and the right to mount in it: root's, or an ordinary user's by a user namespace."""
    if refusal := _refusal(*namespaces.of_mounts(), "mount", "-t", "tmpfs", "none", "/mnt"):
        pytest.skip(f"needs to mount in a namespace of its own, which this machine refuses: {refusal}")


def networks() -> None:
    """Network namespaces of its own, with cables between them and packet filters."""
    root("for network namespaces")
    for name in ("ip", "nft", "nsenter"):
        program(name)
    tried = "ip link add name one type veth peer name two && nft add table inet t"
    if refusal := _refusal("unshare", "--net", "sh", "-c", tried):
        pytest.skip(f"needs network namespaces with veth and nftables, which this machine refuses: {refusal}")


@cache
def _refusal(*command: str) -> str:
    """Why `command` failed; nothing when it did not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"exit status {done.returncode}") if done.returncode else ""
