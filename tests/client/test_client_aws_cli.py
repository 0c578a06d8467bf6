"""The stand-in for an endpoint is judged from outside: AWS's own command line logs in through it as the client does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.aws_cli import DNS_NAME, AwsCli
from support.endpoints import ID, PRIVATE_IP, Endpoint, deny
from support.laptop import Laptop, Sshd

pytestmark = [
    pytest.mark.posix,
    pytest.mark.needs_root,
    pytest.mark.nightly(sibling="tests/client/test_client_endpoint.py::test_ssh_by_name"),
]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    endpoint = Endpoint(tmp_path, names=(DNS_NAME,))
    yield endpoint
    endpoint.server.close()


@pytest.fixture
def aws(tmp_path: Path, laptop: Laptop, endpoint: Endpoint) -> Iterator[AwsCli]:
    aws = AwsCli(tmp_path, endpoint, laptop)
    yield aws
    aws.proxy.close()


@pytest.fixture
def notebook(endpoint: Endpoint, sshd: Callable[..., Sshd]) -> Sshd:
    server = sshd(login="ec2-user")
    endpoint.path(server)
    return server


def options(laptop: Laptop, aws: AwsCli, notebook: Sshd, port: int = 22) -> list[str]:
    known_hosts = laptop.folder / "known_hosts"
    known_hosts.write_text(f"demo {notebook.host_key}\n")
    given = [f'UserKnownHostsFile="{known_hosts}"', f"ProxyCommand={aws.proxy_command(port)}"]
    return [word for option in given for word in ("-o", option)]


def log_in(laptop: Laptop, aws: AwsCli, notebook: Sshd, port: int = 22) -> tuple[int, str, str]:
    result = laptop.run(*aws.within("ssh", *options(laptop, aws, notebook, port), "ec2-user@demo", "echo", "here"))
    return result.returncode, result.stdout, result.stderr


def test_it_logs_in(laptop: Laptop, aws: AwsCli, endpoint: Endpoint, notebook: Sshd) -> None:
    code, output, messages = log_in(laptop, aws, notebook)
    assert (code, output) == (0, "here\n"), messages
    (opened,) = endpoint.server.opened
    assert (opened.endpoint, opened.private_ip, opened.port, opened.seconds) == (ID, PRIVATE_IP, 22, None)
    assert aws.proxy.requests[0].startswith(f"CONNECT {DNS_NAME}:443 ")


def test_scp_and_rsync_copy_through_it(
    tmp_path: Path, laptop: Laptop, aws: AwsCli, endpoint: Endpoint, notebook: Sshd
) -> None:
    source, ssh = tmp_path / "source", tmp_path / "ssh-by-aws"
    source.write_bytes(os.urandom(3_000_000))
    ssh.write_text(f'#!/bin/sh\nexec ssh {shlex.join(options(laptop, aws, notebook))} "$@"\n')
    ssh.chmod(0o700)
    for command in (["scp", "-S", str(ssh)], ["rsync", "-e", str(ssh)]):
        there, back = tmp_path / f"{command[0]}-there", tmp_path / f"{command[0]}-back"
        for one, other in ((str(source), f"ec2-user@demo:{there}"), (f"ec2-user@demo:{there}", str(back))):
            copied = laptop.run(*aws.within(*command, one, other))
            assert copied.returncode == 0, copied.stderr
        assert back.read_bytes() == source.read_bytes(), command
    assert len(endpoint.server.opened) == 4


def test_its_own_clients_words_for_refusals(laptop: Laptop, aws: AwsCli, endpoint: Endpoint, notebook: Sshd) -> None:
    """As they are public, word for word, from real endpoints."""
    code, _, messages = log_in(laptop, aws, notebook, port=5432)
    assert code == 255
    assert "The specified RemotePort is not valid. Specify either 22 or 3389 as the RemotePort and retry" in messages
    endpoint.targets.clear()
    assert "Websocket Closure Reason: Unable to connect to target" in log_in(laptop, aws, notebook)[2]
    endpoint.denied = deny
    messages = log_in(laptop, aws, notebook)[2]
    assert '"AccessDeniedException"' in messages
    assert "is not authorized to perform: ec2-instance-connect:OpenTunnel on resource: arn:aws:ec2:" in messages


def test_a_key_that_is_not_known_is_refused(laptop: Laptop, aws: AwsCli, endpoint: Endpoint, notebook: Sshd) -> None:
    laptop.environment["AWS_SECRET_ACCESS_KEY"] = "another"
    code, _, messages = log_in(laptop, aws, notebook)
    assert code == 255
    assert "InvalidSignatureException" in messages
    assert endpoint.server.opened == []
