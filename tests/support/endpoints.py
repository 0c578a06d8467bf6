"""An EC2 Instance Connect Endpoint on this machine, for the client's tests, and a web proxy that leads to it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.laptop import REGION, Laptop, Sshd

from endpoint.requests import Refusal, Tunnel, not_authorized
from endpoint.server import EndpointServer, Limits

ID = "eice-0123456789abcdef0"
PRIVATE_IP = "10.0.3.7"
CREDENTIALS = {"AKIAEXAMPLE": ("secret-example", "token-example"), "A": ("secret", "token")}
"""What a laptop of the tests has in its environment: secret and session token, by access key."""


class Endpoint:
    """The endpoint, and what it is to do: `targets` is where the private addresses are."""

    def __init__(self, folder: Path, limits: Limits = Limits(), names: tuple[str, ...] = ("localhost",)) -> None:  # noqa: B008
        self.targets: dict[str, int] = {}
        self.denied: Callable[[Tunnel], Refusal | None] = lambda _: None
        self.clock_ahead_s = 0.0  # of this machine's
        self.authority = folder / "authority.pem"
        self.server = EndpointServer(
            self.authority,
            secret_of,
            lambda tunnel: self.denied(tunnel),
            self._find,
            limits=limits,
            names=names,
            clock=lambda: time.time() + self.clock_ahead_s,
        ).start()

    def _find(self, tunnel: Tunnel) -> tuple[tuple[str, int], None] | None:
        port = self.targets.get(tunnel.private_ip)
        return (("127.0.0.1", port), None) if port else None

    @property
    def dns_name(self) -> str:
        return f"localhost:{self.server.port}"

    def path(self, sshd: Sshd | None, **overrides: Any) -> dict[str, Any]:
        """Return the path of a notebook with this sshd, as docs/api.md has it."""
        if sshd is not None:
            self.targets[PRIVATE_IP] = sshd.port
        return path("eice", PRIVATE_IP, 22, endpoint=self.json, **overrides)

    @property
    def json(self) -> dict[str, str]:
        return {"id": ID, "dns_name": self.dns_name, "region": REGION}

    def notebook_json(self, sshd: Sshd, name: str, **overrides: Any) -> dict[str, Any]:
        """Return what the API returns for a notebook with this sshd and this path alone."""
        one = self.path(sshd)
        own = {"modes": ["eice"], "status": "ready", "paths": [one], "endpoint": self.json}
        return sshd.notebook_json(name, host=PRIVATE_IP, **{"port": 22, **own, **overrides})

    def stop(self) -> None:
        self.server.close()

    def trusted_by(self, laptop: Laptop) -> None:
        """Let the laptop's AWS tools trust the endpoint's authority, as a company's."""
        laptop.environment["AWS_CA_BUNDLE"] = str(self.authority)


def path(mode: str, host: str | None, port: int | None, **overrides: Any) -> dict[str, Any]:
    """Return a path as docs/api.md has it."""
    fields: dict[str, Any] = {"problem": None, "jump": None, "jump_host_keys": [], "endpoint": None}
    return {"mode": mode, "state": "ready" if host else "waiting", "host": host, "port": port, **fields, **overrides}


def secret_of(access_key: str, token: str) -> str | Refusal:
    secret, expected = CREDENTIALS.get(access_key, ("", ""))
    if not secret or token != expected:
        message = "The security token included in the request is invalid."
        return Refusal(403, "UnrecognizedClientException", message)
    return secret


def deny(tunnel: Tunnel) -> Refusal:
    resource = f"arn:aws:ec2:{tunnel.region}:111122223333:instance-connect-endpoint/{tunnel.endpoint}"
    return not_authorized("arn:aws:iam::111122223333:user/mario", resource)


class WebProxy:
    """An HTTP proxy that knows CONNECT alone. leads_to: the port of 127.0.0.1 to which every name leads."""

    def __init__(self, leads_to: int) -> None:
        self.requests: list[str] = []
        self._leads_to = leads_to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.requests.append(head.decode())
            with socket.create_connection(("127.0.0.1", self._leads_to)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _carry(client, server)


def _carry(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [])[0]:
            try:
                data = source.recv(65536)
                if not data:
                    return
                (other if source is one else one).sendall(data)
            except OSError:
                return
