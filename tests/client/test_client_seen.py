"""docs/seen.md: each command typed into a terminal of 80 columns shows the first line, and ends with the code, of the table."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import PRIVATE_IP, Endpoint, deny, path
from support.laptop import CLIENT, Forward, create_laptop, notebook_json, start_forward
from support.terminals import run_on_terminal

if sys.platform != "win32":
    import pwd

pytestmark = pytest.mark.posix
PAGE = CLIENT.parent / "docs" / "seen.md"
COLUMNS = 80
ORDINARY_USER = "nobody"


def tables() -> dict[str, list[tuple[str, int, str]]]:
    """Return the rows below each heading: command, exit code and first line."""
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    row = re.compile(r"^\| `(.+?)` \| (\d+) \| `(.+)` \|$", re.MULTILINE)
    return {
        heading: [(command.replace("\\|", "|"), int(code), line) for command, code, line in row.findall(text)]
        for heading, text in sections
    }


def running(laptop: Any, api: Any, sshd: Any) -> None:
    api.notebooks["my-notebook"] = sshd(login="ec2-user").notebook_json("my-notebook")


def stopped(laptop: Any, api: Any, sshd: Any) -> None:
    api.notebooks["my-notebook"] = notebook_json("my-notebook", "stopped", next_step="Start it.")


def another_server(laptop: Any, api: Any, sshd: Any) -> None:
    api.notebooks["my-notebook"] = sshd().notebook_json("my-notebook") | {"port": sshd().port}


def own_name(laptop: Any, api: Any, sshd: Any) -> None:
    running(laptop, api, sshd)
    own = "Match originalhost my-notebook\n  HostName 127.0.0.1\n  Port 9\n"
    laptop.config.write_text(laptop.config.read_text() + own)


def rejected(laptop: Any, api: Any, sshd: Any) -> None:
    api.respond = lambda method, path: (403, {"message": "The security token included in the request is expired"})


def wrong_clock(laptop: Any, api: Any, sshd: Any) -> None:
    api.clock_ahead_s = 750
    api.respond = lambda method, path: (403, {"message": "Signature expired"})


def writable_folder(laptop: Any, api: Any, sshd: Any) -> None:
    laptop.home.chmod(0o777)


def behind_an_endpoint(laptop: Any, api: Any, sshd: Any) -> Endpoint:
    server, endpoint = sshd(login="ec2-user"), Endpoint(laptop.folder.parent)
    endpoint.trusted_by(laptop)
    api.notebooks["my-notebook"] = endpoint.notebook_json(server, "my-notebook")
    return endpoint


def refused_by_an_endpoint(laptop: Any, api: Any, sshd: Any) -> Endpoint:
    endpoint = behind_an_endpoint(laptop, api, sshd)
    endpoint.denied = deny
    return endpoint


def by_the_second_path(laptop: Any, api: Any, sshd: Any) -> Endpoint:
    endpoint = refused_by_an_endpoint(laptop, api, sshd)
    another = path("ngrok", "127.0.0.1", endpoint.targets[PRIVATE_IP])
    api.notebooks["my-notebook"]["paths"].append(another)
    return endpoint


def forwarded(laptop: Any, api: Any, sshd: Any) -> Forward:
    forward = start_forward(laptop, "my-notebook")
    laptop.environment |= {"PORT": str(forward.port), "FINGERPRINT": forward.fingerprint}
    return forward


# What is arranged before setup (None: there is no setup), and after it.
SITUATIONS: dict[str, tuple[Callable[..., None] | None, Callable[..., Any] | None]] = {
    "A running notebook": (running, None),
    "A stopped notebook": (stopped, None),
    "Another server at the notebook's address": (another_server, None),
    "A name of the user's own": (own_name, None),
    "Credentials that AWS rejects": (running, rejected),
    "A clock that is wrong": (running, wrong_clock),
    "A folder that other users can write": (running, writable_folder),
    "A notebook behind an endpoint": (running, behind_an_endpoint),
    "An endpoint that refuses": (running, refused_by_an_endpoint),
    "The same, and a second path": (running, by_the_second_path),
    "Before setup": (None, None),
}
# Those with programs that `make test-nightly` installs.
OF_THE_NIGHT: dict[str, tuple[Callable[..., None], Callable[..., Any] | None]] = {
    "Programs that run ssh": (running, None),
    "The same, and the notebook is stopped": (stopped, None),
    "Programs with an SSH of their own": (running, forwarded),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="seen-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_every_situation_is_tried() -> None:
    assert set(tables()) == {*SITUATIONS, *OF_THE_NIGHT}
    assert all(tables().values())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_a_user_sees(folder: Path, laptop: Any, client_python: Path, api: Any, sshd: Any, situation: str) -> None:
    check(folder, laptop.key, client_python, api, sshd, situation, user=None)


@pytest.mark.nightly(sibling="test_what_a_user_sees")
@pytest.mark.parametrize("situation", OF_THE_NIGHT)
def test_what_a_user_of_other_programs_sees(
    folder: Path, laptop: Any, client_python: Path, api: Any, sshd: Any, situation: str
) -> None:
    check(folder, laptop.key, client_python, api, sshd, situation, user=None)


@pytest.mark.needs_root
@pytest.mark.nightly(sibling="test_what_a_user_sees")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_ordinary_user_sees_the_same(
    folder: Path, laptop: Any, client_python: Path, api: Any, sshd: Any, situation: str
) -> None:
    check(folder, laptop.key, client_python, api, sshd, situation, user=ORDINARY_USER)


def check(folder: Path, key: Path, python: Path, api: Any, sshd: Any, situation: str, user: str | None) -> None:
    """Type each command of the situation's table on a laptop of its own."""
    if user:
        python = create_environment_for(user, folder / "environment")
    laptop = create_laptop(
        folder, python, {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    )
    for suffix in ("", ".pub"):  # the one that the servers admit
        shutil.copy(f"{key}{suffix}", f"{laptop.key}{suffix}")
    before_setup, after_setup = (SITUATIONS | OF_THE_NIGHT)[situation]
    client = folder / "bin" / "notebook-ssh"
    client.write_text(
        f'#!/bin/sh\n[ "$1" != setup ] || set -- "$@" --ssh-config "{laptop.config}"\n'
        f'exec "{python}" -I -m notebook_ssh_client "$@"\n'
    )
    client.chmod(0o755)
    # autossh would run /usr/bin/ssh, which reads the configuration of this machine's user.
    laptop.environment |= {"API": api.url, "SOCKET": str(folder / "s"), "AUTOSSH_PATH": str(folder / "bin" / "ssh")}
    if before_setup:
        before_setup(laptop, api, sshd)
        laptop.setup(api)
    started = after_setup(laptop, api, sshd) if after_setup else None
    if user:
        give_to(user, laptop.folder)
    try:
        for command, code, line in tables()[situation]:
            shell = ["sh", "-c", command]
            words = as_user(user) if user else []
            seen_code, shown = run_on_terminal([*words, *shell], laptop.environment, columns=COLUMNS, cwd=laptop.folder)
            first = next((text for text in shown.splitlines() if text.strip()), "")[:COLUMNS]
            assert (seen_code, bool(pattern(line).fullmatch(first.rstrip()))) == (code, True), f"{command}: {shown!r}"
    finally:
        if started:
            started.stop()


def pattern(line: str) -> re.Pattern[str]:
    """Return the expression for a line of the page, whose `…` stands for any text."""
    return re.compile(".*".join(map(re.escape, line.split("…"))))


def as_user(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


def create_environment_for(user: str, folder: Path) -> Path:
    """Create an environment with the client and botocore, of a Python that `user` can run; return its interpreter."""
    for base in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        # By a shell: setpriv itself still has root's capabilities when it starts a program.
        tried = [*as_user(user), "sh", "-c", f"'{base}' -c 'import venv'; exit $?"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
            (packages,) = folder.glob("lib/python3*/site-packages")
            (packages / "client.pth").write_text(f"{CLIENT}\n{sysconfig.get_path('purelib')}\n")
            return folder / "bin" / "python3"
    raise AssertionError(f"{user} can run no Python here")


def give_to(user: str, folder: Path) -> None:
    entry = pwd.getpwnam(user)
    for each in [folder, *folder.rglob("*")]:
        os.chown(each, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
