"""Reads and writes the user's files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from agent import STATE_DIR, VOLUME_DIR, read_text, write_text
from worker.model import Problem

LOCK_TIMEOUT_S = 20


def explain_os_error(error: OSError, path: str) -> Problem:
    """Return the problem with a file that could not be read or written. path: used if `error` has none."""
    place = str(error.filename2 or error.filename or path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        on_volume = os.path.realpath(place).startswith(os.path.realpath(VOLUME_DIR) + "/")
        disk = "the notebook's volume, ~/SageMaker," if on_volume else "the instance's root volume"
        return "disk-full", f"{disk} is full, so {place} cannot be written: free up space there"
    remedy = "end it" if error.errno == errno.EAGAIN else "correct it, or move the file away"
    return "files", f"{place}: {error.strerror}; {remedy}"


def free_bytes() -> int:
    """Return the bytes that are free on the notebook's volume; 0 if that cannot be found out."""
    try:
        volume = os.statvfs(VOLUME_DIR)
        return volume.f_bavail * volume.f_frsize
    except OSError:
        return 0


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a file as `write_text` does. The OSError of a full disk names no file: then `path` is added."""
    try:
        write_text(path, text, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or path) from error


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` among the programs of this user. OSError if another one holds it for LOCK_TIMEOUT_S."""
    lock = os.open(f"{STATE_DIR}{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.EAGAIN, f"another program has held its lock for {LOCK_TIMEOUT_S} s", name
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def read_all(path: str) -> str:
    """Return the text of a user's file that will be written back. OSError if it is too large for `read_text`."""
    text = read_text(path)
    if len(text) == 1 << 20:
        raise OSError(errno.EFBIG, "larger than 1 MB", path)
    return text


def remove_file(path: str) -> None:
    """Remove a file or link, if it is there."""
    if os.path.lexists(path):
        os.unlink(path)


def open_exclusive(path: str) -> BinaryIO:
    """Create an empty file and open it for bytes; a symbolic link or FIFO at `path` is removed, not followed."""
    remove_file(path)
    return open(path, "xb")
