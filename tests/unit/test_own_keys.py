"""Which keys of the person's own the notebooks of `make local` admit: those that ssh can log in with, and no others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import own_keys
from own_keys import Key


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's .ssh, and no agent."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder = tmp_path / "home" / ".ssh"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def agent(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent without keys."""
    socket = Path("/tmp") / f"own-keys-{os.getpid()}"  # such a path is short (unix(7))
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it says where it listens, once it does
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield
    process.terminate()
    process.communicate()
    socket.unlink(missing_ok=True)


def make(folder: Path, name: str, kind: str = "ed25519", comment: str = "of mine") -> str:
    """A new pair of keys; the public one."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(folder / name)]
    subprocess.run(command, check=True)
    return (folder / f"{name}.pub").read_text().strip()


def found(ssh: Path) -> list[Key]:
    return own_keys.find(ssh, ssh.parent.parent / "agents")


def test_no_user_has_to_have_a_key(ssh: Path) -> None:
    assert found(ssh) == []
    assert found(ssh / "there is no such folder") == []


def test_the_keys_in_the_persons_ssh_folder(ssh: Path) -> None:
    usual, other = make(ssh, "id_ed25519"), make(ssh, "id_work", "ecdsa")
    make(ssh, "host_key")
    assert found(ssh) == [
        Key("~/.ssh/id_ed25519.pub", usual, ssh / "id_ed25519"),
        Key("~/.ssh/id_work.pub", other, ssh / "id_work"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "no key at all",
        "ssh-ed25519",
        "ssh-dss AAAAB3NzaC1kc3MAAACB me",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1l me",
    ],
)
def test_what_sshd_would_not_take_is_no_key(ssh: Path, text: str) -> None:
    (ssh / "id_odd.pub").write_text(text)
    (ssh / "id_odd").write_text("private")
    assert found(ssh) == []


def test_a_public_key_alone_logs_no_one_in(ssh: Path) -> None:
    make(ssh, "id_ed25519")
    (ssh / "id_ed25519").unlink()
    assert found(ssh) == []


@pytest.mark.usefixtures("agent")
def test_a_public_key_counts_whose_other_half_the_agent_holds(ssh: Path) -> None:
    public = make(ssh, "id_ed25519")
    subprocess.run(["ssh-add", "-q", str(ssh / "id_ed25519")], check=True)
    (ssh / "id_ed25519").unlink()
    assert found(ssh) == [Key("~/.ssh/id_ed25519.pub", public, ssh / "id_ed25519.pub")]


@pytest.mark.usefixtures("agent")
def test_the_keys_that_only_the_agent_has(ssh: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    held, both = make(elsewhere, "key", comment="my token"), make(ssh, "id_ed25519")
    for path in (elsewhere / "key", ssh / "id_ed25519"):
        subprocess.run(["ssh-add", "-q", str(path)], check=True)
    first, second = found(ssh)
    assert first == Key("~/.ssh/id_ed25519.pub", both, ssh / "id_ed25519")
    assert (second.name, second.line) == ("my token of ssh-agent", held)
    assert second.identity.read_text().strip() == held


@pytest.mark.usefixtures("agent")
def test_no_more_keys_than_sshd_lets_a_client_try(ssh: Path) -> None:
    for number in range(8):
        make(ssh, f"id_{number}")
    subprocess.run(["ssh-add", "-q", *(str(ssh / f"id_{number}") for number in range(8))], check=True)
    assert [key.name for key in found(ssh)] == [f"~/.ssh/id_{number}.pub" for number in range(own_keys.MOST)]


def test_an_agent_that_is_gone_is_no_agent(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(ssh / "socket"))
    public = make(ssh, "id_ed25519")
    assert [key.line for key in found(ssh)] == [public]


def test_nothing_of_the_persons_is_changed(ssh: Path) -> None:
    make(ssh, "id_ed25519")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in ssh.iterdir()}
    found(ssh)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in ssh.iterdir()} == before
