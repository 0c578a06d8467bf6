"""Version 2 of AWS's own command line, which opens tunnels through the stand-in for an endpoint as through a real one.

It connects to port 443 of the endpoint's DNS name and trusts the system's authorities alone. So here a web proxy leads to the
stand-in, and in a mount namespace the system's authorities are others: for that, and nothing else, it needs root.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from support.endpoints import ID, PRIVATE_IP, Endpoint, WebProxy
from support.laptop import REGION, Laptop
from support.recipes import ENVIRONMENTS

AWS = ENVIRONMENTS / "awscli2" / "aws"
DNS_NAME = f"{ID}.a1b2c3d4.ec2-instance-connect-endpoint.{REGION}.amazonaws.com"
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


class AwsCli:
    """AWS's command line on a laptop, and the proxy between it and the endpoint, whose certificate is for DNS_NAME."""

    def __init__(self, folder: Path, endpoint: Endpoint, laptop: Laptop) -> None:
        self.proxy = WebProxy(endpoint.server.port)
        self._authorities = folder / "system.crt"
        self._authorities.write_text(endpoint.authority.read_text())
        laptop.environment |= {"HTTPS_PROXY": f"http://127.0.0.1:{self.proxy.port}", "AWS_REGION": REGION}

    def proxy_command(self, port: int = 22) -> str:
        """Return the ProxyCommand of the API's route /ssh, with the endpoint's DNS name, so that EC2 is not asked."""
        asked = {
            "instance-connect-endpoint-id": ID,
            "instance-connect-endpoint-dns-name": DNS_NAME,
            "private-ip-address": PRIVATE_IP,
            "remote-port": str(port),
            "region": REGION,
        }
        words = [str(AWS), "ec2-instance-connect", "open-tunnel"]
        return shlex.join([*words, *(word for name, value in asked.items() for word in (f"--{name}", value))])

    def within(self, *command: str) -> list[str]:
        """Return the command line that runs `command` where the endpoint's authority is the system's."""
        mount = f'mount --bind {shlex.quote(str(self._authorities))} {SYSTEM} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
