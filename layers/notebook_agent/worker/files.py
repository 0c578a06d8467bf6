"""Reads and writes the user's files."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from agent import read_text


def describe_os_error(error: OSError, path: str) -> str:
    """Return the message for a file that could not be read or written. path: used if `error` has none."""
    return f"{error.filename2 or error.filename or path}: {error.strerror}; free up space, or move the file away"


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
