"""The notebook's host keys, given to ssh in both ways it knows.

Every OpenSSH reads the file `known_hosts`; `proxy` brings it up to date before the first byte reaches ssh, and
ssh reads it only after the server's greeting, so it is always in time. OpenSSH from 8.5 on asks KnownHostsCommand
besides, which closes the one gap left: the same address with new keys, while the old ones are still remembered.

Only keys that the stack vouches for are ever written; nothing is learned from the connection itself.
"""

from __future__ import annotations

import os
import sys
import time

from notebook_ssh_client import files, remembered
from notebook_ssh_client.failures import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_ssh_client.remembered import Place

JUST_NOW = 10
"""Seconds during which a look-up is not repeated: this very connection has made it."""


def lines(names: str, host_keys: tuple[str, ...]) -> str:
    """known_hosts lines for `names`, several joined by commas (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return "".join(f"{names} {key}\n" for key in host_keys)


def names_searched(host: str, port: int) -> str:
    """What ssh searches the file for: the name alone on port 22, `[name]:port` elsewhere."""
    return host if port == 22 else f"{host},[{host}]:{port}"


def update_file(home: str, host: str, port: int, host_keys: tuple[str, ...]) -> None:
    """Make the file's lines for `host` exactly these keys. Nothing is written when they are already there."""
    path = os.path.join(home, "known_hosts")
    with files.locked(path + ".lock"):
        before = files.read(path) or ""
        others = [line for line in before.splitlines(True) if _host_of(line) != host]
        after = "".join(others) + lines(names_searched(host, port), host_keys)
        if after != before:
            files.write(path, after)


def answer(home: str, searched: str, presented: str, find: Callable[[str], Place]) -> str:
    """The known_hosts lines for KnownHostsCommand.

    searched: ssh's %H, `name` or `[name]:port`. presented: ssh's %K, the key in base64, or NONE while ssh only
    prepares (ssh_config(5), KnownHostsCommand). find: asks the stack. A key that is not remembered makes one
    look-up; whether it is then accepted is ssh's own decision, by the lines returned.
    """
    host = _host_of(searched)
    now = time.time()
    place = remembered.recall(home, host, now=now, max_age=remembered.MAX_AGE)
    if presented != "NONE" and not _vouched_for(place, presented) and not _is_fresh(place, now):
        place = find(host)
        remembered.remember(home, host, place)
    if presented != "NONE" and not _vouched_for(place, presented):
        print(
            f"notebook-ssh: {host} presents a host key that the notebook never reported, so the connection is refused. "
            f"If the notebook has just started, try again in a minute; else run: notebook-ssh doctor {host}",
            file=sys.stderr,
        )
    return lines(searched, place.host_keys) if place else ""


def main(words: list[str], home: str) -> int:
    """`known-hosts HOST KEY`: print what ssh needs to verify HOST."""
    if len(words) != 2:
        raise Failure("usage: notebook-ssh known-hosts %H %K (ssh calls this; people don't need to)", 2)

    def find(host: str) -> Place:
        from notebook_ssh_client import lookup

        return lookup.find(home, host)

    sys.stdout.write(answer(home, words[0], words[1], find))
    return 0


def _vouched_for(place: Place | None, presented: str) -> bool:
    return place is not None and any(key.split(" ")[1:2] == [presented] for key in place.host_keys)


def _is_fresh(place: Place | None, now: float) -> bool:
    return place is not None and now - place.looked_up < JUST_NOW


def _host_of(line: str) -> str:
    """The bare host at the start of a line or of a searched name."""
    first = line.split(" ", 1)[0].split(",", 1)[0].strip()
    return first[1:].partition("]")[0] if first.startswith("[") else first
