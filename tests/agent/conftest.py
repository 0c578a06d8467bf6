"""Fixtures that run the agent: a notebook in a folder, a stack whose replies the test sets, a stand-in for ngrok."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.agent_env import NotebookHost, Sshd, Stack, load_agent, write_identity


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
def notebook(tmp_path: Path, stack: Stack, sshd: Sshd) -> Iterator[NotebookHost]:
    """A notebook that has just been started; the test starts its agent."""
    with NotebookHost(tmp_path / "note book", stack, sshd) as notebook:
        yield notebook


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The agent as a module, on a notebook whose root is a temporary folder; its log is discarded."""
    monkeypatch.setenv("NOTEBOOK_SSH_ROOT", str(tmp_path))
    write_identity(tmp_path)
    agent = load_agent()
    Path(agent.STATE_DIR).mkdir(parents=True)
    monkeypatch.setattr(agent, "log", lambda text: None)
    return agent
