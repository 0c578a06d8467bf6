"""The recipes of docs/connect.md, each typed into the real program: .venv/recipes has those that pip installs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.recipes import ENVIRONMENTS, recipe

pytestmark = [pytest.mark.posix, pytest.mark.usefixtures("notebook")]
PROGRAMS = ENVIRONMENTS / "recipes" / "bin"


def run_python(laptop: Any, *blocks: str) -> Any:
    return laptop.run(PROGRAMS / "python", "-I", "-c", "\n".join(blocks))


def use_another_server(api: Any, sshd: Callable[..., Any]) -> None:
    """Let the notebook's address lead to a server with another host key."""
    api.notebooks["my-notebook"]["port"] = sshd().port


@pytest.mark.parametrize("program", ["paramiko", "fabric"])
@pytest.mark.parametrize("right", [True, False])
def test_paramiko_and_fabric(laptop: Any, api: Any, sshd: Callable[..., Any], program: str, right: bool) -> None:
    with_paramiko, with_fabric = recipe("Python: paramiko and fabric", "python")
    if not right:
        use_another_server(api, sshd)
    if program == "fabric":
        result = run_python(laptop, with_paramiko.split("\nclient = ")[0], with_fabric)
    else:
        result = run_python(laptop, with_paramiko)
    assert result.stdout == (f"{program}\n" if right else ""), result.stderr
    assert ("never reported" in result.stderr) is not right


@pytest.mark.parametrize("right", [True, False])
def test_asyncssh(laptop: Any, api: Any, sshd: Callable[..., Any], right: bool) -> None:
    block, _ = recipe("Python: asyncssh and dask", "python")
    if not right:
        use_another_server(api, sshd)
    result = run_python(laptop, block)
    assert result.stdout == ("asyncssh\n" if right else ""), result.stderr
    assert right or "Host key is not trusted" in result.stderr


def test_ansible(laptop: Any) -> None:
    (block,) = recipe("Ansible", "sh")
    laptop.environment |= {
        "PATH": f"{PROGRAMS}:{laptop.environment['PATH']}",
        "ANSIBLE_HOME": str(laptop.folder / "ansible"),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",  # a socket's path may have about 100 characters only
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",  # sftp would call another ssh than the one of this laptop
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "LC_ALL": "C.UTF-8",
    }
    result = laptop.run("sh", "-c", block)
    assert "my-notebook | SUCCESS" in result.stdout, result.stdout + result.stderr
    assert '"ping": "pong"' in result.stdout
