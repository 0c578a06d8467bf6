"""ssh and what stands on it, by a notebook's name, against real sshd: host key verified, never a prompt."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import pytest

ME = getpass.getuser()


@pytest.fixture
def notebook(laptop: Any, api: Any, sshd: Callable[..., Any]) -> Any:
    """A running notebook called My-Notebook on a laptop that is set up."""
    server = sshd()
    api.notebooks["my-notebook"] = server.described("My-Notebook")
    laptop.set_up(api)
    return server


@pytest.mark.parametrize("name", ["My-Notebook", "my-notebook", "my-notebook.notebook", "my-notebook.team.notebook"])
def test_ssh_by_name(laptop: Any, notebook: Any, name: str) -> None:
    done = laptop.run("ssh", f"{ME}@{name}", "echo", "here")
    assert (done.stdout, done.returncode) == ("here\n", 0), done.stderr
