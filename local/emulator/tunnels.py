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

from emulator import answers, connect_endpoints, sagemaker
from emulator.connect_endpoints import ConnectEndpoint
from emulator.place import ACCOUNT, REGION
from endpoint.requests import (
    LONGEST_S,
    NOT_AUTHORIZED,
    SERVICE,
    UNKNOWN_ENDPOINT,
    WRONG_PORT,
    Refusal,
    Tunnel,
    not_authorized,
)
from endpoint.server import MAY_NOT_CONNECT, EndpointServer, Limits, Target, Unknowns

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
        unknowns=Unknowns(_reword, _no_answer, lambda: answers.of("endpoint-pings") == "pong"),
        port=port,
    ).start()


OTHER_CODES = {WRONG_PORT.code: "InvalidRequestException", NOT_AUTHORIZED: "NotAuthorizedException"}
"""Codes in place of those that are public, by another answer to `endpoint-refusals`."""

OTHER_STATUSES = {400: 422, 403: 401}


def _reword(refusal: Refusal) -> Refusal:
    if answers.of("endpoint-refusals") == "as-known":
        return refusal
    status = OTHER_STATUSES.get(refusal.status, refusal.status)
    return Refusal(status, OTHER_CODES.get(refusal.code, refusal.code), refusal.message)


def _no_answer() -> str:
    return MAY_NOT_CONNECT if answers.of("endpoint-refusals") == "as-known" else "The target did not answer"


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
    if not is_usable or tunnel.region != REGION:
        return UNKNOWN_ENDPOINT
    return UNREACHED if answers.of("eice-interface") == "refused" and _is_a_notebooks(tunnel.private_ip) else None


UNREACHED = Refusal(400, "InvalidParameter", "The specified PrivateIpAddress is not valid.")
"""How an address is refused that no endpoint leads to, by another answer to `eice-interface`."""


def _is_a_notebooks(private_ip: str) -> bool:
    known = {notebook.interface for notebook in sagemaker.notebooks(ACCOUNT, REGION)}
    interfaces = ec2_backends[ACCOUNT][REGION].enis
    return any(interfaces[each].private_ip_address == private_ip for each in known if each in interfaces)


def _target(tunnel: Tunnel, ports: Path) -> tuple[Target, str] | None:
    """Where a notebook's address is, as `network.Gate` says it, and the endpoint's own; None outside of its VPC."""
    (endpoint,) = (each for each in _endpoints() if each.id == tunnel.endpoint)
    network = ec2_backends[ACCOUNT][REGION].vpcs[endpoint.vpc_id].cidr_block
    if tunnel.port != SSH or ip_address(tunnel.private_ip) not in ip_network(network):
        return None
    told = ports / tunnel.private_ip
    port = int(told.read_text().split()[-1]) if told.is_file() else SSH
    return (tunnel.private_ip, port), _address(endpoint)
