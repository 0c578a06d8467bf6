"""What journald and journalctl are on an instance, for one sshd: each line with who wrote it, by the kernel's word.

    python journal.py JOURNAL COMMAND…      runs a command and keeps what it, and its children, write to standard error
    python journal.py JOURNAL --at SOCKET COMMAND…    and what anyone writes to this socket, as to /dev/log

systemd.journal-fields(7): `_PID` and `_UID` come with each message (unix(7), SCM_CREDENTIALS), `_EXE` from /proc. The
text goes to this program's own standard error as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

CREDENTIALS = struct.Struct("3i")

JOURNALCTL = """\
#!{python}
import json, sys
wanted = {{}}
for word in sys.argv[1:]:
    if word.startswith("_"):
        field, _, value = word.partition("=")
        wanted.setdefault(field, set()).add(value)
lines = next((int(word[8:]) for word in sys.argv[1:] if word.startswith("--lines=")), 10)
try:
    entries = [json.loads(line) for line in open({journal!r})]
except FileNotFoundError:
    entries = []
found = [each for each in entries if all(each.get(field) in values for field, values in wanted.items())]
for each in found[-lines:]:
    print(json.dumps(each))
"""
"""Reads such a journal with the options that the agent uses; matches of one field are alternatives (journalctl(1))."""


def install_journalctl(path: Path, journal: Path) -> None:
    """Write the program that reads `journal`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(JOURNALCTL.format(python=sys.executable, journal=str(journal)))
    path.chmod(0o755)


def entry_of(message: bytes, pid: int, uid: int) -> dict[str, str]:
    """One message as `journalctl --output=json` has it; without `_EXE` if its writer has ended."""
    fields = {
        "__REALTIME_TIMESTAMP": str(time.time_ns() // 1000),
        "__MONOTONIC_TIMESTAMP": str(time.monotonic_ns() // 1000),
        "_PID": str(pid),
        "_UID": str(uid),
        "MESSAGE": message.decode(errors="replace").rstrip("\r\n"),
    }
    with contextlib.suppress(OSError):
        fields["_EXE"] = os.readlink(f"/proc/{pid}/exe")
    return fields


def main(journal: str, *words: str) -> int:
    """Run the command until it ends; it is ended with this program."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sockets = [ours]
    if words[0] == "--at":
        public = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        public.bind(words[1])
        os.chmod(words[1], 0o622)  # noqa: S103  /dev/log is open to every user
        sockets, words = [ours, public], words[2:]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    child = subprocess.Popen(words, stderr=theirs.fileno())
    theirs.close()
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    with open(journal, "a") as file, selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        ended = waiting = False
        while waiting or not ended:
            # Asked before the messages are: what it wrote last is there once it has ended.
            ended = child.poll() is not None
            waiting = False
            for key, _ in selector.select(0 if ended else 0.5):
                waiting = True
                message, attached, _, _ = key.fileobj.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))  # type: ignore[union-attr]
                pid, uid, _ = CREDENTIALS.unpack(attached[0][2])
                print(json.dumps(entry_of(message, pid, uid)), file=file, flush=True)
                sys.stderr.buffer.write(message)
                sys.stderr.buffer.flush()
    return int(child.returncode)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
