"""Measures ssh and scp through an EC2 Instance Connect Endpoint's stand-in: by the client, and by AWS's command line.

Both take the same way: a web proxy, TLS, the stand-in, a real sshd. Only the ProxyCommand differs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import seconds_in_turn
from support.aws_cli import AWS, DNS_NAME, AwsCli
from support.endpoints import Endpoint
from support.laptop import Laptop, Sshd, create_client_venv, create_laptop, start_api

NAME = "my-notebook"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret-example",
    "AWS_SESSION_TOKEN": "token-example",
}
LARGE = 200 * 1024 * 1024
"""Bytes of the file that is copied."""

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Copies:
    """Medians in seconds, of the client and of AWS's command line."""

    login: tuple[float, float]  # `ssh true`, with a cached address
    upload: tuple[float, float]
    download: tuple[float, float]


def is_possible() -> bool:
    """Whether AWS's command line is here, and root, who can give it another authority to trust."""
    return AWS.exists() and os.geteuid() == 0


def copies() -> Copies:
    """Measure each kind of transfer, by both in turn."""
    with _laptop() as (laptop, aws, notebook):
        (laptop.folder / "large").write_bytes(os.urandom(LARGE))
        (notebook.home / "large").write_bytes(os.urandom(LARGE))
        ssh = ["-S", str(laptop.folder.parent / "bin/ssh")]

        def both(*command: str) -> tuple[float, float]:
            acts = tuple(
                lambda host=host: _run(laptop, aws, [word.replace("HOST", host) for word in command])
                for host in (NAME, "ec2-user@by-aws")
            )
            ours, theirs = seconds_in_turn(acts, ROUNDS)
            return ours, theirs

        return Copies(
            login=both("ssh", "HOST", "true"),
            upload=both("scp", "-q", *ssh, "large", "HOST:copied"),
            download=both("scp", "-q", *ssh, "HOST:large", "copied"),
        )


@contextmanager
def _laptop() -> Iterator[tuple[Laptop, AwsCli, Sshd]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        laptop = create_laptop(folder, create_client_venv(folder / "environment"), KEYS)
        api, notebook = start_api(), Sshd(folder / "sshd", laptop.key, login="ec2-user")
        endpoint = Endpoint(folder, names=(DNS_NAME,))
        aws = AwsCli(folder, endpoint, laptop)
        try:
            told = endpoint.notebook_json(notebook, NAME)
            told["paths"][0]["endpoint"]["dns_name"] = DNS_NAME
            api.notebooks[NAME] = told
            endpoint.trusted_by(laptop)
            laptop.environment["NO_PROXY"] = "127.0.0.1"
            laptop.setup(api)
            known_hosts = folder / "known_hosts"
            known_hosts.write_text(f"by-aws {notebook.host_key}\n")
            with open(laptop.config, "a") as config:
                config.write(
                    f'Host by-aws\n  ProxyCommand {aws.proxy_command()}\n  UserKnownHostsFile "{known_hosts}"\n'
                )
            yield laptop, aws, notebook
        finally:
            aws.proxy.close()
            endpoint.server.close()
            notebook.stop()
            api.server.shutdown()
            api.server.server_close()


def _run(laptop: Laptop, aws: AwsCli, command: list[str]) -> subprocess.CompletedProcess[str]:
    result = laptop.run(*aws.within(*command))
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {result.returncode}: {result.stderr}")
    return result
