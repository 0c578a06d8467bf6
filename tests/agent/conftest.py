"""The agent as a program: a notebook in a folder, a stack that answers as the test says, a stand-in for ngrok."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from agent_world import Notebook, Sshd, Stack, lay_identity, program


@pytest.fixture
def stack() -> Iterator[Stack]:
    """The stack's API, on 127.0.0.1."""
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on a free port."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def notebook(tmp_path: Path, stack: Stack, sshd: Sshd) -> Iterator[Notebook]:
    """A notebook that has just been started; its agent runs when the test says so."""
    with Notebook(tmp_path / "note book", stack, sshd) as notebook:
        yield notebook


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The agent's program as a module, on a notebook whose root is a temporary folder; what it logs is lost."""
    monkeypatch.setenv("NOTEBOOK_SSH_ROOT", str(tmp_path))
    lay_identity(tmp_path)
    agent = program("agent")
    Path(agent.MINE).mkdir(parents=True)
    monkeypatch.setattr(agent, "log", lambda text: None)
    return agent
