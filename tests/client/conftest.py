"""A laptop, a stack's API and notebooks, for each test its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from laptop import (
    FakeApi,
    FakeCloudFormation,
    Laptop,
    Sshd,
    let_wait,
    make_client_environment,
    make_laptop,
    serve_api,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A laptop and its sshd are made of POSIX programs, so what takes them is left out on Windows (check_client.py)."""
    for item in items:
        if {"laptop", "sshd"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.posix)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    yield from served()


@pytest.fixture
def other_api() -> Iterator[FakeApi]:
    yield from served()


def served() -> Iterator[FakeApi]:
    fake = serve_api()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def cloudformation(laptop: Laptop) -> Iterator[FakeCloudFormation]:
    """The service that tells a stack's outputs, as the laptop reaches it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeCloudFormation.handler()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        laptop.environment["AWS_ENDPOINT_URL_CLOUDFORMATION"] = f"http://127.0.0.1:{server.server_address[1]}"
        yield server.RequestHandlerClass.fake  # type: ignore[attr-defined]
        server.shutdown()


@pytest.fixture(scope="session")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return let_wait(make_client_environment(tmp_path_factory.mktemp("client-environment")))


@pytest.fixture
def laptop(tmp_path: Path, client_python: Path) -> Laptop:
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret-example",
        "AWS_SESSION_TOKEN": "token-example",
    }
    return make_laptop(tmp_path, client_python, keys)


@pytest.fixture
def sshd(tmp_path: Path, laptop: Laptop) -> Iterator[Callable[..., Sshd]]:
    """Makes sshds, and stops them at the end."""
    made: list[Sshd] = []

    def make(port: int | None = None) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", laptop.key, port))
        return made[-1]

    yield make
    for one in made:
        one.stop()
