"""Security-group rules and network interfaces as EC2 has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network

SSH_PORT = 22


class Direction(StrEnum):
    """Direction of the traffic, from the point of view of the group that holds the rule."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What one security-group rule permits, which is its identity: description and tags are no part of it.

    EC2 compares rules in the same way (AuthorizeSecurityGroupIngress, `InvalidPermission.Duplicate`).
    """

    # Id of the group that holds the rule.
    group: str
    direction: Direction
    # The other end: id of a security group or prefix list, or a network in canonical form.
    peer: str
    # `tcp`, … or `-1` for all protocols, with both ports -1.
    protocol: str = "tcp"
    first_port: int = SSH_PORT
    last_port: int = SSH_PORT

    def __str__(self) -> str:
        preposition = "from" if self.direction is Direction.INGRESS else "to"
        ports = f"{self.protocol}/{self.first_port}-{self.last_port}"
        return f"{self.group} {self.direction} {ports} {preposition} {self.peer}"


@dataclass(frozen=True, slots=True, order=True)
class FoundRule:
    """A rule that exists."""

    id: str
    rule: Rule
    # The stack that made it: named by its `OWNER_TAG` and, equally, by its description. None if they do not agree.
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class Ec2Query:
    """The ids of security groups and network interfaces to read, sorted and without duplicates."""

    groups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundEndpoint:
    """An EC2 Instance Connect Endpoint that exists (API reference, Ec2InstanceConnectEndpoint)."""

    id: str
    state: str
    vpc: str
    # Ids of its security groups, and its DNS name; empty until it has them.
    groups: tuple[str, ...] = ()
    dns_name: str = ""
    # It sends packets from the client's address, and not from its own.
    preserves_client_ip: bool = False


@dataclass(frozen=True, slots=True)
class NetworkState:
    """What EC2 answered to an `Ec2Query`. Built only if every read succeeded: what is not in it does not exist."""

    # VPC of each security group that exists and was queried, or has a rule with this stack's tag.
    vpc_of: Mapping[str, str] = field(default_factory=dict)
    # Private IPv4 address by network interface id.
    address_of: Mapping[str, str] = field(default_factory=dict)
    # Every rule of those groups, and every rule with this stack's tag, once by id.
    rules: tuple[FoundRule, ...] = ()


def canonical_peer(text: str) -> str:
    """Return `text` (an IPv4 or IPv6 address or network, id of a security group or prefix list) as EC2 writes it.

    Raises ValueError naming `text` if it is none of these.
    """
    if text.startswith(("pl-", "sg-")):
        return text
    return str(ip_network(text, strict=False))
