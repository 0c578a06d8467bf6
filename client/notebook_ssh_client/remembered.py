"""Where a notebook was found last, kept for minutes so that most connections need no AWS call.

A remembered address is a guess until the notebook greets: `proxy` connects to it and looks the notebook up
afresh when nothing answers; `known_hosts` does the same when the host presents a key that is not remembered.
"""

from __future__ import annotations

import os
from contextlib import suppress

from notebook_ssh_client import files

MAX_AGE = 300
"""Seconds for which an address is remembered. A notebook takes about as long to stop and start."""

FORMAT = "notebook-ssh 1"

SUFFIX = ".notebook"
"""Ends every host name that this client answers for: `my-notebook.notebook`, `my-notebook.my-stack.notebook`."""


class Place:
    """Where a notebook is reached, and how it is verified.

    host, port: where TCP goes; with a bastion, as seen from it.
    host_keys: the notebook's public host keys, `type base64`.
    bastion: (host, login name, port) of the machine to go through, or None.
    looked_up: when the stack said so, epoch seconds.
    """

    # Not a dataclass: importing `dataclasses` takes longer than everything else this file does.
    __slots__ = ("bastion", "host", "host_keys", "looked_up", "port")

    def __init__(
        self,
        host: str,
        port: int,
        host_keys: tuple[str, ...],
        bastion: tuple[str, str, int] | None,
        looked_up: int,
    ) -> None:
        self.host = host
        self.port = port
        self.host_keys = host_keys
        self.bastion = bastion
        self.looked_up = looked_up

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and render(self) == render(other)

    def __hash__(self) -> int:
        return hash(render(self))

    def __repr__(self) -> str:
        return f"Place({render(self)!r})"


def render(place: Place) -> str:
    """`place` as text, one fact a line."""
    lines = [FORMAT, f"looked-up {place.looked_up}", f"address {place.host} {place.port}"]
    if place.bastion:
        lines.append("bastion {} {} {}".format(*place.bastion))
    lines += [f"key {key}" for key in place.host_keys]
    return "\n".join(lines) + "\n"


def parse(text: str) -> Place | None:
    """The place written in `text`, or None when it is not one: a damaged file only costs a look-up."""
    first, *lines = text.split("\n")
    facts = dict(line.partition(" ")[::2] for line in lines if not line.startswith("key "))
    try:
        host, port = facts["address"].split(" ")
        bastion = facts["bastion"].split(" ") if "bastion" in facts else None
        place = Place(
            host=host,
            port=int(port),
            host_keys=tuple(line[len("key ") :] for line in lines if line.startswith("key ")),
            bastion=(bastion[0], bastion[1], int(bastion[2])) if bastion else None,
            looked_up=int(facts["looked-up"]),
        )
    except (KeyError, ValueError, IndexError):
        return None
    return place if first == FORMAT else None


def recall(home: str, host: str, *, now: float, max_age: float) -> Place | None:
    """What is remembered of `host` (a name that ends in SUFFIX), unless it is older than `max_age` seconds."""
    text = files.read(_path(home, host))
    place = parse(text) if text is not None else None
    return place if place and 0 <= now - place.looked_up < max_age else None


def remember(home: str, host: str, place: Place) -> None:
    """Keep `place` for `host`."""
    files.write(_path(home, host), render(place))


def forget(home: str, host: str) -> None:
    """Remember nothing of `host` any more."""
    with suppress(FileNotFoundError):
        os.unlink(_path(home, host))


def _path(home: str, host: str) -> str:
    return os.path.join(home, "remembered", host.lower())
