"""The client's directory, with atomic writes and file locks.

All files are in one directory that only the user can read, by default `~/.ssh/notebook-ssh`:

    settings.json  the configured stacks and the path of the user's ssh_config
    names.json     the notebook names that each stack listed last
    hosts          the file that ~/.ssh/config includes
    certificates.conf, offers.json  where stacks have certificates: the file that `hosts` includes, and these stacks
    id_ecdsa, id_ecdsa.pub, certificates/  the client's own key, and the certificates for it
    known_hosts    the notebooks' host keys
    addresses/     the cached address of each notebook, valid for minutes
    paths/         of notebooks with several paths, the one that worked last
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from notebook_ssh_client.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Windows refuses to replace a file while another process has it open.
WINDOWS_RENAME_ATTEMPTS = 20
WINDOWS_RENAME_DELAY_S = 0.05

# The environment variable that sets another directory, so that two installations can exist side by side.
HOME_ENV_VAR = "NOTEBOOK_SSH_HOME"


# The user id that may own and write everything anyway.
ROOT = 0

WRITABLE_BY_OTHERS = 0o022  # mode bits: the group's and everyone's


def require_private(directory: str) -> None:
    """Raise CliError if a user other than this one and root can change what is in `directory`. It may be missing.

    Addresses and host keys in there are trusted without asking the stack. Windows' access control lists are left to
    the folder above, the user's profile.
    """
    if os.name == "nt":
        return
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return
    if status.st_uid not in (os.geteuid(), ROOT):
        raise CliError(
            f"{directory} belongs to another user (id {status.st_uid}); set {HOME_ENV_VAR} to a folder of your own"
        )
    if status.st_mode & WRITABLE_BY_OTHERS:
        raise CliError(f"other users can change the files in {directory}; run: chmod 700 '{directory}'")


def ssh_dir() -> str:
    """Return the user's `.ssh` as OpenSSH finds it: from the password database, not from HOME (ssh(1), FILES)."""
    try:
        import pwd

        user_home = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):  # Windows, or a container whose user id has no entry in the password database
        user_home = os.path.expanduser("~")
    return os.path.join(user_home, ".ssh")


def default_home() -> str:
    """Return the client's default directory."""
    return os.path.join(ssh_dir(), "notebook-ssh")


def home() -> str:
    """Return the client's directory: HOME_ENV_VAR or the default. It may not exist yet."""
    return os.environ.get(HOME_ENV_VAR) or default_home()


def read_text(path: str) -> str | None:
    """Return the text of `path`, or None if the file does not exist. Raises OSError for any other failure."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write_text(path: str, text: str) -> None:
    """Replace `path` by `text` atomically, with mode 0600. Creates the directory if it is missing."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_atomically(path, text.encode("utf-8"), mode=0o600)


def write_atomically(path: str, content: bytes, *, mode: int) -> None:
    """Replace the file `path` by `content` atomically, with the permissions `mode`."""
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, mode)
        _rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _rename(source: str, target: str) -> None:
    """Rename `source` to `target`; on Windows, retry for a second while another process has `target` open."""
    for _ in range(WINDOWS_RENAME_ATTEMPTS if os.name == "nt" else 0):
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(WINDOWS_RENAME_DELAY_S)
    return os.replace(source, target)


@contextmanager
def lock(path: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`. The system releases it when the process ends."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
