"""The workers' programs in the table: of the block that the stack has now, and of those that it had before.

The item `worker`, <SHA-256 of the program>, has the attributes `program` (its text, compressed by zlib, in base64) and
`version`. A block vouches for one worker by its SHA-256. With the workers of earlier blocks the stack serves their agents
too, whatever was deployed in between (docs/decisions/0008-workers-in-the-table.md). None is deleted before the stack is.
"""

from __future__ import annotations

import base64
import hashlib
import zlib

from notebook_ssh.adapters.table import Table

WORKER = "worker"

MAX_BYTES = 1 << 20
"""Bytes of a program that are unpacked at most: an agent reads no longer reply."""


def save_worker(table: Table, program: str, version: str) -> None:
    """Store a worker's program under its SHA-256."""
    data = program.encode()
    packed = base64.b64encode(zlib.compress(data, 9)).decode()
    table.update(WORKER, hashlib.sha256(data).hexdigest(), set={"program": packed, "version": version})


def read_worker(table: Table, sha256: str) -> str | None:
    """Return the worker's program with this SHA-256, or None if the table has none, or an item that is not it."""
    item = table.item(WORKER, sha256)
    if item is None:
        return None
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(item.get("program", "")), MAX_BYTES)
    except (ValueError, zlib.error):
        return None
    return data.decode() if hashlib.sha256(data).hexdigest() == sha256 else None
