"""The last known address of each notebook, cached for minutes so that most connections need no API call.

A cached address is valid only once the notebook sends its SSH banner: `proxy` connects to it and fetches the address
again when no banner arrives; `known_hosts` fetches it again when the host presents a key that is not in the cache.
"""

from __future__ import annotations

import os
from contextlib import suppress

from notebook_ssh_client import files
from notebook_ssh_client.ssh_address import Endpoint, SshAddress, invalid_field, normalize_host

# Seconds for which an entry is valid. A notebook takes about as long to stop and start.
MAX_AGE_S = 300

# The first line of every entry.
FORMAT = "notebook-ssh 2"


def dumps(address: SshAddress) -> str:
    """Serialize `address`, one field a line; each path begins with a line `path`."""
    lines = [FORMAT, f"fetched-at {address.fetched_at}", *(f"key {key}" for key in address.host_keys)]
    for path in address.paths:
        lines.append(f"path {path.host} {path.port} {path.mode}")
        if path.bastion:
            lines.append("bastion {} {} {}".format(*path.bastion))
        lines += [f"bastion-key {key}" for key in path.bastion_keys]
        if path.endpoint:
            endpoint = path.endpoint
            lines.append(f"endpoint {endpoint.id} {endpoint.dns_name} {endpoint.region} {endpoint.stack}")
    return "\n".join(lines) + "\n"


def loads(text: str) -> SshAddress | None:
    """Deserialize an address. Returns None if `text` is damaged or not valid, which only costs an API call."""
    header, *lines = text.rstrip("\n").split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith("path ")]
    if header != FORMAT or not starts:
        return None
    try:
        fetched_at = int(_values(lines[: starts[0]], "fetched-at")[0])
        host_keys = tuple(_values(lines[: starts[0]], "key"))
        ends = [*starts[1:], len(lines)]
        found = [_path(lines[start:end], fetched_at, host_keys) for start, end in zip(starts, ends)]
    except (ValueError, IndexError):
        return None
    address, address.others = found[0], tuple(found[1:])
    return address if address.host_keys and not invalid_field(address) else None


def _path(lines: list[str], fetched_at: int, host_keys: tuple[str, ...]) -> SshAddress:
    host, port, mode = _values(lines, "path")[0].split(" ")
    bastion = [value.split(" ") for value in _values(lines, "bastion")]
    endpoint = [value.split(" ") for value in _values(lines, "endpoint")]
    return SshAddress(
        host=host,
        port=int(port),
        host_keys=host_keys,
        bastion=(bastion[0][0], bastion[0][1], int(bastion[0][2])) if bastion else None,
        fetched_at=fetched_at,
        bastion_keys=tuple(_values(lines, "bastion-key")),
        endpoint=Endpoint(endpoint[0][0], endpoint[0][1], endpoint[0][2], endpoint[0][3]) if endpoint else None,
        mode=mode,
    )


def _values(lines: list[str], field: str) -> list[str]:
    return [line[len(field) + 1 :] for line in lines if line.startswith(f"{field} ")]


def get(home: str, host: str, *, now: float, max_age: float) -> SshAddress | None:
    """Return the cached address of `host`, or None if older than `max_age` seconds.

    Raises CliError if `host` is not a notebook's host name, or if other users can write the cache.
    """
    path = _file(home, host)
    files.require_private(home)
    files.require_private(_directory(home))
    text = files.read_text(path)
    address = loads(text) if text is not None else None
    return address if address and 0 <= now - address.fetched_at < max_age else None


def put(home: str, host: str, address: SshAddress) -> None:
    """Cache `address` for `host`."""
    files.write_text(_file(home, host), dumps(address))


def delete(home: str, host: str) -> None:
    """Delete the entry of `host`, if there is one."""
    with suppress(FileNotFoundError):
        os.unlink(_file(home, host))


def clear(home: str) -> None:
    """Delete every entry."""
    import shutil

    shutil.rmtree(_directory(home), ignore_errors=True)


def _file(home: str, host: str) -> str:
    return os.path.join(_directory(home), normalize_host(host))


def _directory(home: str) -> str:
    return os.path.join(home, "addresses")
