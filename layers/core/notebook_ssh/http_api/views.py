"""What the API's responses say about notebooks, in each of its formats (docs/api.md).

Whatever a notebook reported was checked when it was parsed (`reports.parse`). Here, at the edge of every format, it is
checked once more, in one place: `connection_for` hands out nothing that could mean more than a word to a shell,
to `ssh_config` or to `known_hosts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, assert_never

from notebook_ssh.errors import Problem
from notebook_ssh.model.assessment import Assessment, Path, PathState, assess, usable
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.stack import Bastion, StackSettings
from notebook_ssh.model.status import Status, status_from
from notebook_ssh.model.text import iso_time

USER = "ec2-user"
"""The login of every SageMaker notebook."""

_WORD = re.compile(r"[A-Za-z0-9_:](?:[A-Za-z0-9._:-]*[A-Za-z0-9_:])?")
_HOST_KEY = re.compile(r"[a-z0-9-]+ [A-Za-z0-9+/]+={0,2}")
_STRENGTH = ("ssh-ed25519", "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp256", "ssh-rsa")


class ProxyJump(NamedTuple):
    """The bastion as ssh goes through it.

    alias: its name in `ssh_config` and `known_hosts`. port: 22 unless the parameter names one. host_keys: empty if the
    stack does not know them.
    """

    host: str
    user: str
    alias: str
    port: int = 22
    host_keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" + (f":{self.port}" if self.port != 22 else "")


class Tunnel(NamedTuple):
    """An EC2 Instance Connect Endpoint as the AWS CLI opens a tunnel through it."""

    id: str
    dns_name: str
    region: str

    def command(self, host: str, port: int) -> str:
        """Return the command that connects its standard input and output to `host`.

        With the DNS name the AWS CLI does not ask EC2 for it, which users may not be allowed to.
        """
        return (
            f"aws ec2-instance-connect open-tunnel --instance-connect-endpoint-id {self.id}"
            f" --instance-connect-endpoint-dns-name {self.dns_name} --private-ip-address {host} --remote-port {port}"
            f" --region {self.region}"
        )


class Connection(NamedTuple):
    """How to connect to a notebook: every part is a plain word, safe in any of the formats."""

    name: str
    host: str
    port: int
    host_keys: tuple[str, ...] = ()
    jump: ProxyJump | None = None
    tunnel: Tunnel | None = None

    @property
    def alias(self) -> str:
        """The name that stands for the host in `known_hosts`. In lower case, as ssh(1) compares it."""
        return self.name.lower()


def connection_for(record: Record, now: int, stack: StackSettings) -> Connection | None:
    """How to connect to `record`'s notebook, or None unless that is believed to work at `now`: by the first path that works."""
    return _working_connection(assess(record, now, stack.sync_seconds), stack)


def _working_connection(found: Assessment, stack: StackSettings) -> Connection | None:
    working = [path for path in _paths(found, stack) if path.state is PathState.READY]
    return _connection(found.record, working[0], stack) if found.reachable and working else None


def _connection(record: Record, path: Path, stack: StackSettings) -> Connection | None:
    if path.address is None or record.report is None:
        return None
    host, port = path.address
    jump, tunnel = _through(path, stack) or (None, None)
    words = [record.name, host, *((jump.host, jump.user, jump.alias) if jump else ())]
    words += (tunnel.id, tunnel.dns_name, tunnel.region) if tunnel else ()
    if not all(_WORD.fullmatch(word) for word in words):
        return None
    return Connection(record.name, host, port, _valid_keys(record.report.host_keys), jump, tunnel)


def ssh_command(connection: Connection) -> str:
    """`ssh -p 17887 ec2-user@0.tcp.ngrok.io`, or `ssh -J ec2-user@bastion.example.com ec2-user@10.0.1.5`.

    Through an endpoint: `ssh -o ProxyCommand='aws ec2-instance-connect open-tunnel …' ec2-user@10.0.1.5`.
    """
    words = ["ssh"]
    if connection.jump:
        words += ["-J", str(connection.jump)]
    if connection.tunnel:
        words += ["-o", f"ProxyCommand='{connection.tunnel.command(connection.host, connection.port)}'"]
    if connection.port != 22:
        words += ["-p", str(connection.port)]
    return " ".join([*words, f"{USER}@{connection.host}"])


def address_line(connection: Connection) -> str:
    """`0.tcp.ngrok.io 17887`."""
    return f"{connection.host} {connection.port}"


def ssh_config(connections: Iterable[Connection], stack: str) -> str:
    """`Host` blocks, ssh_config(5), one for each connection, and one for the bastion if a connection needs it.

    The bastion's name has a dot, which no notebook's name can have: no notebook is mistaken for it.
    """
    known_hosts = f"~/.ssh/{stack}.known_hosts"
    blocks = [f"# Host keys: save the answer of known-hosts as {known_hosts}"]
    jumps: dict[str, ProxyJump] = {}
    for connection in connections:
        lines = [
            "Host " + " ".join(dict.fromkeys((connection.name, connection.alias))),
            f"HostName {connection.host}",
            f"Port {connection.port}",
            f"User {USER}",
            f"HostKeyAlias {connection.alias}",
            f"UserKnownHostsFile {known_hosts}",
            "StrictHostKeyChecking yes",
            "ServerAliveInterval 30",
        ]
        if connection.jump:
            jumps[connection.jump.alias] = connection.jump
            lines.append(f"ProxyJump {connection.jump.alias}")
        if connection.tunnel:
            lines.append(f"ProxyCommand {connection.tunnel.command(connection.host, connection.port)}")
        blocks.append("\n  ".join(lines))
    for jump in jumps.values():
        lines = [f"Host {jump.alias}", f"HostName {jump.host}", f"Port {jump.port}", f"User {jump.user}"]
        if jump.host_keys:
            lines += [
                f"HostKeyAlias {jump.alias}",
                f"UserKnownHostsFile {known_hosts}",
                "StrictHostKeyChecking yes",
            ]
        blocks.append("\n  ".join(lines))
    return "\n\n".join(blocks)


def known_hosts(connection: Connection) -> list[str]:
    """Lines of a known_hosts file (sshd(8)) to go with `HostKeyAlias`: the notebook's, and the bastion's if known."""
    return [f"{connection.alias} {key}" for key in connection.host_keys] + _jump_lines(connection.jump)


def fleet_known_hosts(connections: Iterable[Connection]) -> Iterator[str]:
    """One line for each notebook: its strongest key, for ssh asks a host for a key of the type that it knows.

    All keys of the bastion follow, if they are known.

    All keys of a large fleet would be more than the 6 MB that a function may answer.
    """
    jump = None
    for connection in connections:
        jump = connection.jump or jump
        keys = sorted(connection.host_keys, key=_weakness)
        if keys:
            yield f"{connection.alias} {keys[0]}"
    yield from _jump_lines(jump)


def list_entry(record: Record, now: int, stack: StackSettings) -> dict[str, Any]:
    """A notebook in the list. `certificates` is there only if the stack has them."""
    found = assess(record, now, stack.sync_seconds)
    status, address = status_from(found, stack.tag_key), _address(found, stack)
    return {
        "name": record.name,
        "modes": [str(mode) for mode in record.spec.modes],
        "status": str(status.code),
        "address": f"{address[0]}:{address[1]}" if address else None,
        "since": _iso(status.since),
        "last_used": _last_used(record),
        **({"certificates": True} if stack.certificates else {}),
    }


def details(record: Record, now: int, stack: StackSettings) -> dict[str, Any]:
    """Everything that is known and no secret. Times are ISO 8601; unknown is null.

    `address` is the last one of the present run, whatever the status; `ssh` is there only when it is believed to work.
    """
    found, report, spec = assess(record, now, stack.sync_seconds), record.report, record.spec
    connection, address = _working_connection(found, stack), _address(found, stack)
    # Without an address they are the preferred mode's: a bastion is known before the notebook's address is.
    path = usable(_paths(found, stack)) or (Path(spec.modes[0], found.condition, None) if spec.modes else None)
    jump, tunnel = (_through(path, stack) if path else None) or (None, None)
    return {
        "name": record.name,
        "modes": [str(mode) for mode in spec.modes],
        **status_json(status_from(found, stack.tag_key)),
        "ssh": ssh_command(connection) if connection else None,
        "address": f"{address[0]}:{address[1]}" if address else None,
        "host": address[0] if address else None,
        "port": address[1] if address else None,
        "user": USER,
        "jump": str(jump) if jump else None,
        "jump_host_keys": list(jump.host_keys) if jump else [],
        "endpoint": tunnel._asdict() if tunnel else None,
        "paths": [_path_json(each, stack) for each in found.paths],
        "host_keys": list(report.host_keys) if report and address else [],
        "until": _iso(spec.until),
        "users": list(spec.users),
        "wake": spec.wake,
        "keys": {
            "own": report.keys_own,
            "central": report.keys_central,
            "rejected": [{"line": line.line, "reason": line.reason} for line in report.rejected],
            **({"certificates": True} if report.authorities else {}),
        }
        if report
        else None,
        "sessions": {
            "open": report.sessions,
            "active_at": _iso(report.active_at),
            **({"unknown": report.unknown_sessions} if report.unknown_sessions else {}),
        }
        if report
        else None,
        "last_used": _last_used(record),
        "reported_at": _iso(report.received_at) if report else None,
        "agent": report.agent if report else None,
        "instance": {"state": str(record.state), "since": _iso(record.state_since or None)},
        "lifecycle_config": record.lifecycle_config,
        "block_since": _iso(record.block_since),
        "planned": list(record.planned),
    }


def status_json(status: Status) -> dict[str, Any]:
    """A status as JSON: the code, since when, what is and what to do."""
    problem = status.problem
    return {
        "status": str(status.code),
        "since": _iso(status.since),
        "message": status.message,
        "next_step": status.next_step,
        "problem": _problem_json(problem),
    }


def _path_json(path: Path, stack: StackSettings) -> dict[str, Any]:
    through = _through(path, stack)
    jump, tunnel = through or (None, None)
    address = path.address if through else None
    return {
        "mode": str(path.mode),
        "state": str(path.state),
        "problem": _problem_json(path.problem),
        "host": address[0] if address else None,
        "port": address[1] if address else None,
        "jump": str(jump) if jump else None,
        "jump_host_keys": list(jump.host_keys) if jump else [],
        "endpoint": tunnel._asdict() if tunnel else None,
    }


def _problem_json(problem: Problem | None) -> dict[str, str] | None:
    return {"code": problem.code, "message": problem.message} if problem else None


def _paths(found: Assessment, stack: StackSettings) -> list[Path]:
    """Return the paths but those whose entrance is not known, or that the stack has no more."""
    return [path for path in found.paths if _through(path, stack)]


def _through(path: Path, stack: StackSettings) -> tuple[ProxyJump | None, Tunnel | None] | None:
    """Return the bastion or the endpoint that leads to the path's address, if it needs one; None if that is not known."""
    match path.mode:
        case Mode.NGROK:
            return None, None
        case Mode.BASTION:
            return (_jump(stack.bastion, stack.stack), None) if stack.bastion else None
        case Mode.EICE:
            endpoint = path.route.endpoint if path.route else None
            return (None, Tunnel(endpoint.id, endpoint.dns_name, stack.region)) if endpoint else None
        case unknown:
            assert_never(unknown)


def _jump(bastion: Bastion, stack: str) -> ProxyJump:
    host, port = bastion.host, ""
    if host.count(":") == 1:  # more of them make an IPv6 address, which has no port here
        host, _, port = host.partition(":")
    number = int(port) if port.isdecimal() else 22
    return ProxyJump(host, bastion.user, f"bastion.{stack}", number, _valid_keys(bastion.host_keys))


def _jump_lines(jump: ProxyJump | None) -> list[str]:
    return [f"{jump.alias} {key}" for key in jump.host_keys] if jump else []


def _valid_keys(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if _HOST_KEY.fullmatch(key))


def _address(found: Assessment, stack: StackSettings) -> tuple[str, int] | None:
    """The last address; none where only a bastion leads to it and the stack has none any more."""
    path = usable(_paths(found, stack))
    if path:
        return path.address
    modes = found.record.spec.modes
    known = [mode for mode in modes if _through(Path(mode, found.condition, None), stack)]
    return found.address if known or not modes else None


def _last_used(record: Record) -> str | None:
    """When an SSH session was last active, in any boot."""
    return _iso(record.report.active_at) if record.report else None


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else iso_time(seconds)


def _weakness(key: str) -> int:
    kind = key.split(" ", 1)[0]
    return _STRENGTH.index(kind) if kind in _STRENGTH else len(_STRENGTH)
