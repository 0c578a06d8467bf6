"""The last known address of each notebook, cached for minutes so that most connections need no API call.

A cached address is valid only once the notebook sends its SSH banner: `proxy` connects to it and fetches the address
again when no banner arrives; `known_hosts` fetches it again when the host presents a key that is not in the cache.
"""

from __future__ import annotations

import os
from contextlib import suppress

from notebook_ssh_client import files
from notebook_ssh_client.ssh_address import SshAddress, invalid_field, normalize_host

# Seconds for which an entry is valid. A notebook takes about as long to stop and start.
MAX_AGE_S = 300

# The first line of every entry.
FORMAT = "notebook-ssh 1"


def dumps(address: SshAddress) -> str:
    """Serialize `address`, one field a line."""
    lines = [FORMAT, f"fetched-at {address.fetched_at}", f"address {address.host} {address.port}"]
    if address.bastion:
        lines.append("bastion {} {} {}".format(*address.bastion))
    lines += [f"key {key}" for key in address.host_keys]
    lines += [f"bastion-key {key}" for key in address.bastion_keys]
    return "\n".join(lines) + "\n"


def loads(text: str) -> SshAddress | None:
    """Deserialize an address. Returns None if `text` is damaged or not valid, which only costs an API call."""
    header, *lines = text.split("\n")
    fields = dict(line.partition(" ")[::2] for line in lines if "key " not in line)
    try:
        host, port = fields["address"].split(" ")
        bastion = fields["bastion"].split(" ") if "bastion" in fields else None
        address = SshAddress(
            host=host,
            port=int(port),
            host_keys=tuple(line[len("key ") :] for line in lines if line.startswith("key ")),
            bastion=(bastion[0], bastion[1], int(bastion[2])) if bastion else None,
            fetched_at=int(fields["fetched-at"]),
            bastion_keys=tuple(line[len("bastion-key ") :] for line in lines if line.startswith("bastion-key ")),
        )
    except (KeyError, ValueError, IndexError):
        return None
    return address if header == FORMAT and address.host_keys and not invalid_field(address) else None


def get(home: str, host: str, *, now: float, max_age: float) -> SshAddress | None:
    """Return the cached address of `host`, or None if older than `max_age` seconds.

    Raises CliError if `host` is not a notebook's host name, or if other users can write the cache.
    """
    path = _path(home, host)
    files.require_private(home)
    files.require_private(_directory(home))
    text = files.read_text(path)
    address = loads(text) if text is not None else None
    return address if address and 0 <= now - address.fetched_at < max_age else None


def put(home: str, host: str, address: SshAddress) -> None:
    """Cache `address` for `host`."""
    files.write_text(_path(home, host), dumps(address))


def delete(home: str, host: str) -> None:
    """Delete the entry of `host`, if there is one."""
    with suppress(FileNotFoundError):
        os.unlink(_path(home, host))


def clear(home: str) -> None:
    """Delete every entry."""
    import shutil

    shutil.rmtree(_directory(home), ignore_errors=True)


def _path(home: str, host: str) -> str:
    return os.path.join(_directory(home), normalize_host(host))


def _directory(home: str) -> str:
    return os.path.join(home, "addresses")
