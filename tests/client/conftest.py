"""A laptop, a stack's API and notebooks, for each test its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from laptop import CLIENT, FakeApi, FakeCloudFormation, Laptop, Sshd, serve_api


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
    """The interpreter of an environment that holds the client and botocore, as pipx and uv make one.

    CLIENT_PYTHON names one in which the client is installed, to try another version of Python or botocore.
    """
    if "CLIENT_PYTHON" in os.environ:
        return Path(os.environ["CLIENT_PYTHON"])
    folder = tmp_path_factory.mktemp("client-environment")
    venv.create(folder, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "client.pth").write_text(f"{CLIENT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / Path(sys.executable).name


@pytest.fixture
def laptop(tmp_path: Path, client_python: Path) -> Laptop:
    home = tmp_path / "home of a person"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    programs = tmp_path / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{home}/.ssh/config" "$@"\n')
    ssh.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "USER", "LOGNAME", "SHELL")}
    laptop = Laptop(
        home,
        client_python,
        {
            **kept,
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            "HOME": str(home),
            "NOTEBOOK_SSH_HOME": str(home / ".ssh" / "notebook-ssh"),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret-example",
            "AWS_SESSION_TOKEN": "token-example",
            "AWS_EC2_METADATA_DISABLED": "true",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        },
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", laptop.key], check=True)
    laptop.config.write_text(f'IdentityFile "{laptop.key}"\nIdentitiesOnly yes\nUser {getpass.getuser()}\n')
    return laptop


@pytest.fixture
def sshd(tmp_path: Path, laptop: Laptop) -> Iterator[Callable[..., Sshd]]:
    """Makes sshds, and stops them at the end."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, insists on changing its root to
    made: list[Sshd] = []

    def make(port: int | None = None) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", laptop.key, port))
        return made[-1]

    yield make
    for one in made:
        one.stop()
