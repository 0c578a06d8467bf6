"""Tunnels through the EC2 Instance Connect Endpoints of the emulated account: one stand-in, which asks IAM and the network.

It connects from the endpoint's private address, by which the gate of a notebook knows whose rules admit it
(`network.Gate`).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from ministack.core import iam_evaluator
from ministack.core.responses import request_scope
from moto.ec2.models import ec2_backends

from emulator import connect_endpoints
from emulator.connect_endpoints import ConnectEndpoint
from emulator.place import ACCOUNT, REGION
from endpoint.requests import LONGEST_S, SERVICE, UNKNOWN_ENDPOINT, Refusal, Tunnel, not_authorized
from endpoint.server import EndpointServer, Limits, Target

ACTION = f"{SERVICE}:OpenTunnel"
AUTHORITY = "endpoint-authority.pem"
"""The file, in the emulator's folder, with the authority that clients are to trust."""

USABLE = ("create-complete", "update-in-progress", "update-complete", "update-failed")
"""States in which an endpoint serves (EC2 User Guide, "Connect using EC2 Instance Connect Endpoint")."""

SSH = 22


def _endpoints() -> list[ConnectEndpoint]:
    return list(connect_endpoints.endpoints(ec2_backends[ACCOUNT][REGION]).values())


def _address(endpoint: ConnectEndpoint) -> str:
    """The private address of an endpoint, in its VPC."""
    return str(ec2_backends[ACCOUNT][REGION].get_network_interface(endpoint.interface).private_ip_address)


def groups_at(private_ip: str) -> set[str]:
    """The security groups of the endpoint at an address; none if there is no endpoint."""
    return {group for endpoint in _endpoints() if _address(endpoint) == private_ip for group in endpoint.groups}


def groups_of_all() -> set[str]:
    """The security groups of all endpoints."""
    return {group for endpoint in _endpoints() for group in endpoint.groups}


def serve_tunnels(home: Path, port: int) -> EndpointServer:
    """Serve the tunnels of all endpoints on `port` of 127.0.0.1, in a thread. home: the emulator's folder."""
    ports = home / "private_ports"
    ConnectEndpoint.served_at = f"localhost:{port}"
    return EndpointServer(
        home / AUTHORITY,
        _secret_of,
        _refusal,
        lambda tunnel: _target(tunnel, ports),
        limits=Limits(),
        port=port,
    ).start()


def _secret_of(access_key: str, token: str) -> str | Refusal:
    with request_scope(ACCOUNT, REGION):
        found = iam_evaluator.resolve_credential(access_key, ACCOUNT, token)
    if isinstance(found, iam_evaluator.CredentialResolutionError):
        return Refusal(403, found.code, found.message)
    return str(found.secret_access_key)


def _refusal(tunnel: Tunnel) -> Refusal | None:
    """Why the tunnel is not opened: by IAM (Service Authorization Reference, "EC2 Instance Connect"), or by its state."""
    resource = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance-connect-endpoint/{tunnel.endpoint}"
    context = {
        f"{SERVICE}:remotePort": str(tunnel.port),
        f"{SERVICE}:privateIpAddress": tunnel.private_ip,
        f"{SERVICE}:maxTunnelDuration": str(tunnel.seconds or LONGEST_S),
    }
    with request_scope(ACCOUNT, REGION):
        denied = iam_evaluator.enforce(
            tunnel.access_key, ACTION, SERVICE, tunnel.region, resource_arn=resource, service_context=context
        )
    if isinstance(denied, iam_evaluator.AuthError):
        return Refusal(403, denied.code, denied.message)
    if denied is not None:
        reason = f" because no identity-based policy allows the {ACTION} action"
        if denied.decision == "Deny":
            reason = " with an explicit deny in an identity-based policy"
        return not_authorized(denied.principal_arn, resource, reason)
    is_usable = any(endpoint.id == tunnel.endpoint and endpoint.state in USABLE for endpoint in _endpoints())
    return None if is_usable and tunnel.region == REGION else UNKNOWN_ENDPOINT


def _target(tunnel: Tunnel, ports: Path) -> tuple[Target, str] | None:
    """Where a notebook's address is, as `network.Gate` says it, and the endpoint's own; None outside of its VPC."""
    (endpoint,) = (each for each in _endpoints() if each.id == tunnel.endpoint)
    network = ec2_backends[ACCOUNT][REGION].vpcs[endpoint.vpc_id].cidr_block
    if tunnel.port != SSH or ip_address(tunnel.private_ip) not in ip_network(network):
        return None
    told = ports / tunnel.private_ip
    port = int(told.read_text().split()[-1]) if told.is_file() else SSH
    return (tunnel.private_ip, port), _address(endpoint)
