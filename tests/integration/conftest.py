"""One embedded AWS with the stack in it for all integration tests of a worker. They share it, so each uses names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from environment import LocalEnv

_open: list[LocalEnv] = []


@pytest.fixture(scope="session")
def env() -> Iterator[LocalEnv]:
    env = LocalEnv(sync_seconds=4)  # each report of each notebook is a tenth of a second of a processor
    try:
        env.start()
        env.deploy()
        env.move_in()
        _open.append(env)
        yield env
    finally:
        _open.clear()
        env.close()


@pytest.fixture(scope="module", autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    """Stop the notebooks of a module that is done: each agent would report every two seconds next to the next module."""
    yield
    for env in _open:
        env.stop_notebooks()
