"""One embedded AWS with the stack in it for all integration tests of a worker. They share it, so each uses names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    world = World()
    try:
        world.start()
        world.deploy()
        world.move_in()
        yield world
    finally:
        world.close()
