"""The network of a notebook in a VPC: its private address answers on port 22, if a security group lets it.

A VPC of the local run lies in 127.0.0.0/8, all of which is this machine (RFC 1122, section 3.2.1.3), so a notebook's
private address can be connected to for real, without privileges. The rules are looked up at every connection.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends

from emulator import tunnels
from notebook.machine import Machine

SSH = 22
ACCEPT_S = 5
"""Seconds for the notebook's sshd to accept a connection."""

logger = logging.getLogger("network")


class Gate:
    """Listens on the address of the network interface `interface`, and leads to the sshd of `machine`.

    A connection from the address of an endpoint passes when a rule of the notebook's groups admits one of the endpoint's
    groups to port 22. Every other is taken as one from the bastion, since nobody else is in the VPC: it passes by a rule
    that admits any other group.
    Where this user may not listen on port 22 it is another; a file in `ports`, named after the address, tells ssh.
    """

    def __init__(self, account: str, region: str, interface: str, machine: Machine, ports: Path) -> None:
        self._ec2 = ec2_backends[account][region]
        self._interface, self._machine = interface, machine
        address = str(self._ec2.get_network_interface(interface).private_ip_address)
        self._listener = _listen(address)
        port = self._listener.getsockname()[1]
        self._told = ports / address
        if port != SSH:
            ports.mkdir(exist_ok=True)
            self._told.write_text(f"Host {address}\n  Port {port}\n")
        threading.Thread(target=self._accept, name=f"gate-{machine.name}", daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._told.unlink(missing_ok=True)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, (peer, _) = self._listener.accept()
            except OSError:
                return
            if not self._admits(peer):
                # A packet filter would drop it and let it time out. Closing it says the same at once.
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._machine.port), ACCEPT_S)
            except OSError as error:
                logger.warning("sshd of %s does not answer: %s", self._machine.name, error)
                client.close()
                continue
            server.settimeout(None)  # that was for connecting: a session may be silent for hours
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()

    def _admits(self, peer: str) -> bool:
        interface = self._ec2.get_network_interface(self._interface)
        groups, of_endpoints = tunnels.groups_at(peer), tunnels.groups_of_all()
        return any(
            _admits_a_group_to_ssh(rule, lambda source: source in groups if groups else source not in of_endpoints)
            for group in interface.group_set
            for rule in group.ingress_rules
        )


def _admits_a_group_to_ssh(rule: Any, is_of_peer: Callable[[str], bool]) -> bool:
    if not rule.source_group or not is_of_peer(str(rule.source_group.get("GroupId"))):
        return False
    if rule.ip_protocol == "-1":
        return True
    return bool(rule.ip_protocol == "tcp" and rule.from_port <= SSH <= rule.to_port)


def _listen(address: str) -> socket.socket:
    for port in (SSH, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            listener.close()
            continue
        listener.listen()
        return listener
    raise OSError(f"{address} is no address of this machine: a local VPC lies in 127.0.0.0/8")


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until the source ends. A connection that breaks ends on both sides."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # unlike close, it wakes who waits on it
