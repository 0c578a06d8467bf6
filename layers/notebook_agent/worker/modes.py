"""The modes: what each needs on the notebook, and the state of its path (docs/protocol.md, docs/tags.md).

A path is one mode of the notebook with its state. Whatever depends on the mode is in `MODES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import REGION
from worker.model import Json, Problem

if TYPE_CHECKING:  # a command of the user's does not load it
    from worker.tunnel import Tunnel

PHASES = "connected", "connecting", "failed"  # the best one first


@dataclass(frozen=True)
class Observed:
    """What paths are made of. sshd: why no SSH server responds as the modes need it. reply: the stack's, checked."""

    tunnel: Tunnel
    sshd: Problem | None
    reply: Json


@dataclass(frozen=True)
class Path:
    """One mode and its state. command: of plain ssh, or None without an address."""

    mode: str
    phase: str
    problem: Problem | None
    command: str | None


@dataclass(frozen=True)
class Mode:
    """A mode. reach: from where the SSH server must be reachable, `loopback` or `network`."""

    reach: str
    path: Callable[[str, Observed], Path]


def ngrok_path(mode: str, observed: Observed) -> Path:
    """Return the path through the tunnel."""
    tunnel, sshd = observed.tunnel, observed.sshd
    # Another program on port 22 matters to the network alone: the tunnel leads to the agent's own server.
    lost = sshd if sshd and sshd[0] != "sshd-port-taken" else None
    command = "ssh -p {1} ec2-user@{0}".format(*tunnel.address) if tunnel.address else None
    phase = tunnel.phase if tunnel.phase != "off" else "connecting"
    return Path(mode, phase, tunnel_problem(tunnel, observed.reply) or lost, command)


def tunnel_problem(tunnel: Tunnel, reply: Json) -> Problem | None:
    """Return the tunnel's problem; without a token, the stack's reason why there is none for this notebook."""
    stack = reply.get("problem") or {"code": ""}
    if stack["code"] in ("ngrok-token-invalid", "ngrok-token-not-granted") and tunnel.problem:
        return (stack["code"], stack["message"]) if tunnel.problem[0] == "ngrok-token-missing" else tunnel.problem
    return tunnel.problem


def bastion_path(mode: str, observed: Observed) -> Path:
    """Return the path through the bastion."""
    bastion = observed.reply.get("bastion") or {}
    if not bastion.get("private_ip"):
        return network_path(mode, observed, None)
    # Without brackets the last colon of an IPv6 address would begin a port.
    host = f"[{bastion['host']}]" if bastion["host"].count(":") > 1 else bastion["host"]
    return network_path(mode, observed, f"ssh -J {bastion['user']}@{host} ec2-user@{bastion['private_ip']}")


def eice_path(mode: str, observed: Observed) -> Path:
    """Return the path through the EC2 Instance Connect Endpoint, with the AWS CLI as ssh's way there."""
    endpoint = observed.reply.get("eice") or {}
    if not endpoint.get("private_ip"):
        return network_path(mode, observed, None)
    proxy = (
        "aws ec2-instance-connect open-tunnel --instance-connect-endpoint-id {id} "
        "--instance-connect-endpoint-dns-name {dns_name} --private-ip-address {private_ip} --remote-port 22 "
        "--region {region}"
    ).format(region=REGION, **endpoint)
    return network_path(mode, observed, f"ssh -o ProxyCommand='{proxy}' ec2-user@{endpoint['private_ip']}")


def network_path(mode: str, observed: Observed, command: str | None) -> Path:
    """Return a path on which the network reaches sshd on port 22."""
    return Path(mode, "failed" if observed.sshd else "connected", observed.sshd, command)


MODES = {
    "ngrok": Mode("loopback", ngrok_path),
    "bastion": Mode("network", bastion_path),
    "eice": Mode("network", eice_path),
}


def outdated(modes: list[str]) -> Problem | None:
    """Return the problem if one of the modes is not known: the stack may be newer than this worker."""
    unknown = [mode for mode in modes if mode not in MODES]
    if not unknown:
        return None
    return "agent-outdated", f"restart the notebook: its agent does not know the mode {' '.join(unknown)}"


def reach_of(modes: list[str]) -> str:
    """Return from where the SSH server must be reachable; `either`: from the network, or else for the tunnel alone."""
    needed = {MODES[mode].reach if mode in MODES else "network" for mode in modes}
    return "either" if len(needed) > 1 else "".join(needed) or "network"


def paths_of(modes: list[str], observed: Observed) -> list[Path]:
    """Return the path of each mode, in their order. One that is not known has failed."""
    known = {mode: MODES[mode].path(mode, observed) for mode in modes if mode in MODES}
    return [known.get(mode) or Path(mode, "failed", outdated([mode]), None) for mode in modes]


def best_phase(paths: list[Path]) -> str:
    """Return the phase of the best of the paths; `off` without any."""
    return min((path.phase for path in paths), key=PHASES.index, default="off")


def usable(paths: list[Path]) -> Path | None:
    """Return the first path that is connected and has a command, or else the first that has one; None without any."""
    having = [path for path in paths if path.command]
    return next((path for path in having if path.phase == "connected"), having[0] if having else None)


def detail(paths: list[Path]) -> Json:
    """Return the report's fields for each path; {} for a single one, whose phase and problem are the report's."""
    if len(paths) < 2:
        return {}
    problems = {path.mode: dict(zip(("code", "message"), path.problem)) for path in paths if path.problem}
    return {"phases": {path.mode: path.phase for path in paths}, "problems": problems}
