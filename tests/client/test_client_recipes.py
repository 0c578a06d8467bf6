"""The recipes of docs/connect.md, each typed into the real program: .venv/recipes has those that pip installs."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from support.laptop import CLIENT

pytestmark = pytest.mark.posix
PROJECT = CLIENT.parent
PROGRAMS = PROJECT / ".venv" / "recipes" / "bin"
ME = getpass.getuser()


@cache
def recipe(heading: str, language: str) -> list[str]:
    """Return the blocks of this language below a heading of docs/connect.md."""
    text = (PROJECT / "docs" / "connect.md").read_text("utf-8")
    section = text.split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def user(laptop: Any, api: Any, sshd: Callable[..., Any]) -> Any:
    """A laptop after `setup`, with a running notebook, whose login is the one of this machine's user."""
    api.notebooks["my-notebook"] = sshd().notebook_json("my-notebook")
    laptop.setup(api)
    hosts = laptop.home / "hosts"
    hosts.write_text(hosts.read_text().replace("User ec2-user", f"User {ME}"))
    program = laptop.folder.parent / "bin" / "notebook-ssh"
    program.write_text(f'#!/bin/sh\nexec "{laptop.python}" -I -m notebook_ssh_client "$@"\n')
    program.chmod(0o755)
    return laptop


def run_python(user: Any, *blocks: str) -> Any:
    return user.run(PROGRAMS / "python", "-I", "-c", "\n".join(blocks))


def use_another_server(user: Any, api: Any, sshd: Callable[..., Any]) -> None:
    """Let the notebook's address lead to a server with another host key."""
    api.notebooks["my-notebook"]["port"] = sshd().port


@pytest.mark.parametrize("program", ["paramiko", "fabric"])
@pytest.mark.parametrize("right", [True, False])
def test_paramiko_and_fabric(user: Any, api: Any, sshd: Callable[..., Any], program: str, right: bool) -> None:
    with_paramiko, with_fabric = recipe("Python: paramiko and fabric", "python")
    if not right:
        use_another_server(user, api, sshd)
    if program == "fabric":
        result = run_python(user, with_paramiko.split("\nclient = ")[0], with_fabric)
    else:
        result = run_python(user, with_paramiko)
    assert result.stdout == (f"{program}\n" if right else ""), result.stderr
    assert ("never reported" in result.stderr) is not right


@pytest.mark.parametrize("right", [True, False])
def test_asyncssh(user: Any, api: Any, sshd: Callable[..., Any], right: bool) -> None:
    (block,) = recipe("Python: asyncssh and dask", "python")
    if not right:
        use_another_server(user, api, sshd)
    result = run_python(user, block)
    assert result.stdout == ("asyncssh\n" if right else ""), result.stderr
    assert right or "Host key is not trusted" in result.stderr


def test_ansible(user: Any) -> None:
    (block,) = recipe("Ansible", "sh")
    user.environment |= {
        "PATH": f"{PROGRAMS}:{user.environment['PATH']}",
        "ANSIBLE_HOME": str(user.folder / "ansible"),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",  # a socket's path may have about 100 characters only
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",  # sftp would call another ssh than the one of this laptop
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "LC_ALL": "C.UTF-8",
    }
    result = user.run("sh", "-c", block)
    assert "my-notebook | SUCCESS" in result.stdout, result.stdout + result.stderr
    assert '"ping": "pong"' in result.stdout
