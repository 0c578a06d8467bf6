"""What decisions and views need to know of the stack's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Bastion:
    """An existing bastion, from the stack's parameters. No part of a record, but the other end of every `BastionRoute`.

    host: its public name or address, for people. user: the login name there.
    security_group, vpc: ids. client_cidrs: IPv4 or IPv6 networks or prefix-list ids (`pl-…`) admitted on port 22.
    """

    host: str
    user: str
    security_group: str
    vpc: str
    client_cidrs: tuple[str, ...] = ()


class StackSettings(Protocol):
    """The part of `notebook_ssh.settings.Settings` that decisions and views use."""

    @property
    def stack(self) -> str: ...
    @property
    def tag_key(self) -> str: ...
    @property
    def sync_seconds(self) -> int: ...
    @property
    def bastion(self) -> Bastion | None: ...
    @property
    def keys_path(self) -> str: ...
