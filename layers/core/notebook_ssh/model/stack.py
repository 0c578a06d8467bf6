"""The stack's parameters that plans and views depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Bastion:
    """An existing bastion, from the stack's parameters: the entrance of mode bastion."""

    # Public name or address.
    host: str
    # Login name.
    user: str
    # Ids of its security group and VPC.
    security_group: str
    vpc: str
    # IPv4 or IPv6 networks or ids of prefix lists (`pl-…`) that are admitted on port 22.
    client_cidrs: tuple[str, ...] = ()
    # Its public host keys, `type base64`. Empty: each user has to know them.
    host_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The EC2 Instance Connect Endpoint of the stack's parameters, existing or made by the stack."""

    id: str
    # Id of its VPC.
    vpc: str


class StackSettings(Protocol):
    """The part of `notebook_ssh.settings.Settings` that plans and views use."""

    @property
    def stack(self) -> str:
        """The stack's name."""

    @property
    def tag_key(self) -> str:
        """The key of the tag that requests SSH."""

    @property
    def sync_seconds(self) -> int:
        """Seconds between two reports of a notebook."""

    @property
    def bastion(self) -> Bastion | None:
        """The bastion, if the stack has one."""

    @property
    def endpoint(self) -> EndpointSettings | None:
        """The EC2 Instance Connect Endpoint, if the stack has one."""

    @property
    def region(self) -> str:
        """The stack's region, which is that of its endpoint."""

    @property
    def certificates(self) -> bool:
        """Whether the stack has certificates."""

    @property
    def keys_path(self) -> str:
        """The path of the central keys in Parameter Store."""
