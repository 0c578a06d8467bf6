"""One embedded AWS with the stack in it for all integration tests of a worker. They share it, so each uses names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from world import World

_open: list[World] = []


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    world = World()
    try:
        world.start()
        world.deploy()
        world.move_in()
        _open.append(world)
        yield world
    finally:
        _open.clear()
        world.close()


@pytest.fixture(scope="module", autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    """Stop the notebooks of a module that is done: each agent would report every two seconds beside the next module."""
    yield
    for world in _open:
        world.stop_notebooks()
