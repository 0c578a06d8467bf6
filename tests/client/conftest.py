"""Fixtures: a laptop, a stack's API and notebooks, new for each test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import Endpoint
from support.laptop import (
    FakeApi,
    FakeCloudFormation,
    Laptop,
    Sshd,
    create_client_venv,
    create_laptop,
    extend_timeouts,
    start_api,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with a laptop or an sshd as posix: these need POSIX programs (see packaging/check_client.py)."""
    for item in items:
        if {"laptop", "sshd"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.posix)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    yield from running_api()


@pytest.fixture
def other_api() -> Iterator[FakeApi]:
    yield from running_api()


def running_api() -> Iterator[FakeApi]:
    api = start_api()
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture
def cloudformation(laptop: Laptop) -> Iterator[FakeCloudFormation]:
    """CloudFormation as the laptop calls it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeCloudFormation.handler()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        laptop.environment["AWS_ENDPOINT_URL_CLOUDFORMATION"] = f"http://127.0.0.1:{server.server_address[1]}"
        yield server.RequestHandlerClass.service  # type: ignore[attr-defined]
        server.shutdown()


@pytest.fixture(scope="session")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend_timeouts(create_client_venv(tmp_path_factory.mktemp("client-environment")))


@pytest.fixture
def laptop(tmp_path: Path, client_python: Path) -> Laptop:
    credentials = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret-example",
        "AWS_SESSION_TOKEN": "token-example",
    }
    return create_laptop(tmp_path, client_python, credentials)


@pytest.fixture
def sshd(tmp_path: Path, laptop: Laptop) -> Iterator[Callable[..., Sshd]]:
    """A function that starts an sshd; all are stopped at the end of the test."""
    started: list[Sshd] = []

    def start(port: int | None = None, login: str | None = None) -> Sshd:
        started.append(Sshd(tmp_path / f"sshd{len(started)}", laptop.key, port, login))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def start_endpoint(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """A function that starts an EC2 Instance Connect Endpoint; all are stopped at the end of the test."""
    started: list[Endpoint] = []

    def start(**options: Any) -> Endpoint:
        folder = tmp_path / f"endpoint{len(started)}"
        folder.mkdir()
        started.append(Endpoint(folder, **options))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.stop()


@pytest.fixture
def endpoint(start_endpoint: Callable[..., Endpoint], laptop: Laptop) -> Endpoint:
    """An endpoint that the laptop trusts."""
    endpoint = start_endpoint()
    endpoint.trusted_by(laptop)
    return endpoint


@pytest.fixture
def notebook(laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd]) -> Sshd:
    """A running notebook whose login is ec2-user, as docs/connect.md has it; `setup` has been run on the laptop."""
    server = sshd(login="ec2-user")
    (server.home / "SageMaker").mkdir()
    api.notebooks["my-notebook"] = server.notebook_json("my-notebook")
    laptop.setup(api)
    program = laptop.folder.parent / "bin" / "notebook-ssh"
    program.write_text(f'#!/bin/sh\nexec "{laptop.python}" -I -m notebook_ssh_client "$@"\n')
    program.chmod(0o755)
    return server
