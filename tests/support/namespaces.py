"""Namespaces for tests that mount, or that need networks of their own: they end with the processes in them.

As a program it runs a command where nothing that is mounted is seen outside: `python namespaces.py COMMAND…`, in a new
mount namespace (`of_mounts`). `unshare` would see to that itself, but fails where `/` is no mount point, as after a
plain chroot: mount(2) changes how mounts spread only where one begins.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

MS_REC, MS_PRIVATE = 1 << 14, 1 << 18


def of_mounts(*further: str) -> list[str]:
    """The beginning of a command line that runs the rest of it in a new mount namespace. further: options of unshare(1)."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "--propagation", "unchanged", *further, sys.executable, __file__]


def keep_mounts() -> None:
    """From now on nothing that is mounted in this namespace is seen in another one, nor the other way round."""
    if _make_private("/"):
        return
    # A mount that begins above the root is reached by `..` from a folder outside of a narrower root (chroot(2)).
    root, here = os.open("/", os.O_RDONLY), os.open(".", os.O_RDONLY)
    os.chdir("/")
    os.chroot("/usr")
    while not os.path.samefile(".", ".."):
        os.chdir("..")
    made = _make_private(".")
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(here)
    os.close(root)
    os.close(here)
    if not made:
        raise OSError(errno.EINVAL, "nothing above the root is a mount point")


def _make_private(place: str) -> bool:
    """Whether a mount begins at `place`; then it, and all below it, are private (mount_namespaces(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, place.encode(), None, MS_REC | MS_PRIVATE, None) == 0:
        return True
    if ctypes.get_errno() == errno.EINVAL:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), place)


def processes_in(network: int) -> list[int]:
    """The processes in the network namespace of the process `network`, in any order."""
    namespace = os.stat(f"/proc/{network}/ns/net").st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(entry / "ns/net").st_ino == namespace:
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


if __name__ == "__main__":
    keep_mounts()
    os.execvp(sys.argv[1], sys.argv[1:])
