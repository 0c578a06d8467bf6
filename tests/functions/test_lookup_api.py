"""What people and programs get from the API about a notebook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_world import World, api_world
from builders import HOST_KEY, NOW, RSA_KEY, a_record, a_report

from notebook_ssh.rules.record import Mode, NotebookState, Way, Wish


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with api_world(monkeypatch) as world:
        yield world


ONE = "/notebooks/{name}"


def test_a_connected_notebook_is_one_line_away(world: World) -> None:
    world.knows(a_record(report=a_report()))
    assert world.get(f"{ONE}/ssh").text == "ssh -p 17887 ec2-user@0.tcp.ngrok.io\n"
    assert world.get(f"{ONE}/address").text == "0.tcp.ngrok.io 17887\n"
    assert world.get(f"{ONE}/known-hosts").text == f"demo {HOST_KEY}\n"
    assert world.get(f"{ONE}/ssh-config").text == (
        "# Host keys: save the answer of known-hosts as ~/.ssh/team-ssh.known_hosts\n"
        "\n"
        "Host demo\n"
        "  HostName 0.tcp.ngrok.io\n"
        "  Port 17887\n"
        "  User ec2-user\n"
        "  HostKeyAlias demo\n"
        "  UserKnownHostsFile ~/.ssh/team-ssh.known_hosts\n"
        "  StrictHostKeyChecking yes\n"
        "  ServerAliveInterval 30\n"
    )
