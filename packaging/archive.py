"""Zips a folder so that the archive depends on nothing but names, bytes and who may run what."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

UNIX = 3
"""The system that an entry's mode belongs to (APPNOTE.TXT, 4.4.2)."""


def zipped(folder: Path, prefix: str = "") -> bytes:
    """The files of `folder` as a zip, each name after `prefix`: no times, no owners, and no umask."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                # ZipInfo's own time is 1980-01-01, its own mode none that Lambda's user could read.
                entry = zipfile.ZipInfo(prefix + path.relative_to(folder).as_posix())
                entry.create_system = UNIX
                entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
