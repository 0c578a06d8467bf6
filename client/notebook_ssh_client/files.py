"""The client's own folder, and writing in it so that no reader ever sees half a file.

Everything lives in one folder that only its owner can read, by default `~/.ssh/notebook-ssh`:

    stacks.json    the stacks that `setup` was told of
    names.json     the notebooks each stack named last
    hosts          what ~/.ssh/config includes
    known_hosts    the host keys that ssh reads
    remembered/    the last good address of each notebook, for minutes
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOWS_TRIES = 20
WINDOWS_PAUSE = 0.05

HOME_VARIABLE = "NOTEBOOK_SSH_HOME"
"""Names another folder, so that two set-ups can live side by side."""


def ssh_folder() -> str:
    """The person's `.ssh`, where OpenSSH looks for it: by the password file, whatever HOME says (ssh(1), FILES)."""
    try:
        import pwd

        person = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):  # Windows, or a container that runs as nobody in particular
        person = os.path.expanduser("~")
    return os.path.join(person, ".ssh")


def default_home() -> str:
    """The folder used when nobody names another."""
    return os.path.join(ssh_folder(), "notebook-ssh")


def home() -> str:
    """The client's folder, as the environment has it. It may not exist yet."""
    return os.environ.get(HOME_VARIABLE) or default_home()


def read(path: str) -> str | None:
    """The text of `path`, or None when there is no such file. Any other failure is raised as OSError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner only. Makes the folder when it is missing."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    replace(path, text.encode("utf-8"), mode=0o600)


def replace(path: str, content: bytes, *, mode: int) -> None:
    """Replace the file `path` by `content` in one step, with the permissions `mode`."""
    beside = f"{path}.{os.getpid()}.new"
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, mode)
        _rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _rename(beside: str, path: str) -> None:
    """Put one file in another's place. Windows refuses while somebody has that one open, so it gets a second."""
    for _ in range(WINDOWS_TRIES if os.name == "nt" else 0):
        try:
            return os.replace(beside, path)
        except PermissionError:
            time.sleep(WINDOWS_PAUSE)
    return os.replace(beside, path)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock `path` against other processes. The system frees it when its holder dies."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
