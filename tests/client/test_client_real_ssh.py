"""ssh and what stands on it, by a notebook's name, against real sshd: host key verified, never a prompt."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from laptop import described, free_port, wait_until

from patience import LIMIT_S

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


def test_the_remembered_address_needs_no_question(laptop: Any, api: Any, notebook: Any) -> None:
    asked = []
    for _ in range(3):
        assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
        asked.append(api.asked("/notebooks/my-notebook"))
    assert asked == [1, 1, 1]


def test_across_a_change_of_address_and_host_key(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    api.notebooks["my-notebook"] = sshd().described("My-Notebook")
    done = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (done.stdout, done.returncode) == ("again\n", 0), done.stderr


def test_across_a_change_of_host_key_at_the_same_address(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    age_what_is_remembered(laptop, "my-notebook", seconds=30)
    api.notebooks["my-notebook"] = sshd(port=notebook.port).described("My-Notebook")
    done = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (done.stdout, done.returncode) == ("again\n", 0), done.stderr


def test_an_older_openssh_verifies_by_the_file_alone(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    as_for_an_older_openssh(laptop)
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    age_what_is_remembered(laptop, "my-notebook", seconds=61)
    api.notebooks["my-notebook"] = sshd(port=notebook.port).described("My-Notebook")
    done = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (done.stdout, done.returncode) == ("again\n", 0), done.stderr


@pytest.mark.parametrize("older", [False, True])
def test_a_host_key_that_nobody_vouches_for_is_refused(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any], older: bool
) -> None:
    if older:
        as_for_an_older_openssh(laptop)
    somebody = sshd()
    api.notebooks["my-notebook"]["port"] = somebody.port
    done = laptop.run("ssh", f"{ME}@my-notebook", "echo", "never")
    assert (done.stdout, done.returncode) == ("", 255)
    assert "Host key verification failed" in done.stderr
    if not older:
        assert "the notebook never reported" in done.stderr


def test_a_key_that_another_notebook_reported_is_refused(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    other = sshd()
    api.notebooks["other"] = other.described("other")
    assert laptop.run("ssh", f"{ME}@other.notebook", "true").returncode == 0
    api.notebooks["my-notebook"]["port"] = other.port
    assert laptop.run("ssh", f"{ME}@my-notebook", "echo", "never").stdout == ""


def test_another_port_on_the_command_line_is_verified_too(laptop: Any, notebook: Any) -> None:
    assert laptop.run("ssh", "-p", "2222", f"{ME}@my-notebook", "true").returncode == 0
    as_for_an_older_openssh(laptop)
    assert laptop.run("ssh", "-p", "2222", f"{ME}@my-notebook", "true").returncode == 0


def test_what_is_written_and_read_is_the_same_however_large(laptop: Any, notebook: Any, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        subprocess.run(
            ["ssh", f"{ME}@my-notebook", "cat"],
            env=laptop.environment,
            stdin=source,
            stdout=sink,
            check=True,
            timeout=LIMIT_S,
        )
    assert (tmp_path / "out").read_bytes() == data


def test_scp_sftp_and_rsync(laptop: Any, notebook: Any, tmp_path: Path) -> None:
    ssh = laptop.run("which", "ssh").stdout.strip()
    (tmp_path / "here").write_text("text")
    there = f"{ME}@my-notebook:{tmp_path}"
    for command in (
        ["scp", "-S", ssh, tmp_path / "here", f"{there}/scp"],
        ["scp", "-O", "-S", ssh, tmp_path / "here", f"{there}/scp-old"],
        ["rsync", "-a", "-e", ssh, tmp_path / "here", f"{there}/rsync"],
        ["sh", "-c", f'echo "put here sftp" | sftp -b - -S "{ssh}" {there}'],
    ):
        done = laptop.run(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    copies = {path.name for path in tmp_path.iterdir() if path.is_file() and path.read_text() == "text"}
    assert {"scp", "scp-old", "sftp", "rsync"} <= copies


def test_git_clone(laptop: Any, notebook: Any, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    laptop.run("git", "init", "-q", repository)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]
    assert laptop.run("git", "-C", repository, *commit).returncode == 0
    done = laptop.run("git", "clone", "-q", f"{ME}@my-notebook:{repository}", tmp_path / "clone")
    assert done.returncode == 0, done.stderr
    assert laptop.run("git", "-C", tmp_path / "clone", "log", "--format=%s").stdout == "first\n"


def test_port_forwarding(laptop: Any, notebook: Any) -> None:
    port, there = free_port(), socket.create_server(("127.0.0.1", 0))
    forward = f"{port}:127.0.0.1:{there.getsockname()[1]}"
    ssh = subprocess.Popen(["ssh", "-N", "-L", forward, f"{ME}@my-notebook"], env=laptop.environment)
    try:
        here = wait_until(lambda: connected(port))
        far, _ = there.accept()
        with here, far:
            here.sendall(b"ping")
            assert far.recv(10) == b"ping"
    finally:
        end(ssh)
        there.close()


def end(ssh: subprocess.Popen[bytes]) -> None:
    """ssh can miss a SIGTERM that comes just before it begins to wait for its peers, and would wait on for ever."""
    ssh.terminate()
    try:
        ssh.wait(5)
    except subprocess.TimeoutExpired:
        ssh.kill()
        ssh.wait()


def test_agent_forwarding(laptop: Any, notebook: Any) -> None:
    started = laptop.run("ssh-agent", "-s").stdout
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+);", started))
    laptop.environment.update(variables)
    try:
        laptop.run("ssh-add", "-q", laptop.key)
        done = laptop.run("ssh", "-A", f"{ME}@my-notebook", "ssh-add", "-L")
        assert laptop.key.with_suffix(".pub").read_text().split()[1] in done.stdout
    finally:
        laptop.run("ssh-agent", "-k")


def test_a_shared_connection(laptop: Any, notebook: Any) -> None:
    # A path of its own and short: a socket's path may have about 100 characters.
    with tempfile.TemporaryDirectory() as folder:
        share(laptop, ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C"])


def share(laptop: Any, options: list[str]) -> None:
    master = subprocess.Popen(["ssh", *options, "-N", f"{ME}@my-notebook"], env=laptop.environment)
    try:
        wait_until(lambda: laptop.run("ssh", *options, "-O", "check", f"{ME}@my-notebook").returncode == 0)
        assert laptop.run("ssh", *options, f"{ME}@my-notebook", "echo", "shared").stdout == "shared\n"
    finally:
        end(master)


def test_through_a_bastion(laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]) -> None:
    bastion = sshd()
    known = laptop.folder / "bastion_known_hosts"
    known.write_text(f"[127.0.0.1]:{bastion.port} {bastion.key}\n")
    laptop.config.write_text(f'{laptop.config.read_text()}\nHost 127.0.0.1\n  UserKnownHostsFile "{known}"\n')
    inside = sshd()
    api.notebooks["inside"] = inside.described("inside", mode="bastion", jump=f"{ME}@127.0.0.1:{bastion.port}")
    for _ in range(2):  # once asked for, once remembered
        done = laptop.run("ssh", f"{ME}@inside.notebook", "echo", "through")
        assert (done.stdout, done.returncode) == ("through\n", 0), done.stderr
    assert api.asked("/notebooks/inside") == 1
    inside.stop()
    again = sshd()
    api.notebooks["inside"] = again.described("inside", mode="bastion", jump=f"{ME}@127.0.0.1:{bastion.port}")
    assert laptop.run("ssh", f"{ME}@inside.notebook", "echo", "through").stdout == "through\n"


def test_a_stopped_notebook_is_woken(laptop: Any, api: Any, notebook: Any) -> None:
    running = api.notebooks["my-notebook"]
    api.notebooks["my-notebook"] = described("My-Notebook", "stopped", wake=True)
    api.on_start = lambda _: api.notebooks.update({"my-notebook": running})
    done = laptop.run("ssh", f"{ME}@my-notebook", "echo", "awake")
    assert (done.stdout, done.returncode) == ("awake\n", 0), done.stderr
    assert re.search(r"Waiting \(\d+ min \d+ s of at most 15 min 00 s\)", done.stderr), done.stderr
    assert api.asked("/notebooks/my-notebook/start") == 1


def test_a_stopped_notebook_without_the_tag_is_left_alone(laptop: Any, api: Any, notebook: Any) -> None:
    api.notebooks["my-notebook"] = described("My-Notebook", "stopped")
    done = laptop.run("ssh", f"{ME}@my-notebook", "true")
    assert done.returncode == 255
    assert "notebook-ssh: My-Notebook is stopped. Do the next thing." in done.stderr
    assert api.asked("/notebooks/my-notebook/start") == 0


def test_notebook_ssh_ssh(laptop: Any, api: Any, notebook: Any) -> None:
    laptop.config.write_text(f"{laptop.config.read_text()}\nHost *\n  User {ME}\n")
    done = laptop.client("ssh", "my-notebook", "-l", ME, "echo", "here")
    assert (done.stdout, done.returncode) == ("here\n", 0), done.stderr


def test_a_name_that_could_be_read_by_a_shell_starts_nothing(laptop: Any, notebook: Any) -> None:
    for name in ("$(touch${IFS}owned)", "`touch${IFS}owned`", "';touch${IFS}owned;'", "x|touch${IFS}owned"):
        assert laptop.run("ssh", f"{name}.notebook", "true").returncode == 255
    assert not (laptop.folder / "owned").exists()


def connected(port: int) -> socket.socket | None:
    with contextlib.suppress(OSError):
        return socket.create_connection(("127.0.0.1", port), timeout=1)
    return None


def as_for_an_older_openssh(laptop: Any) -> None:
    """The hosts file as it is written where ssh knows no KnownHostsCommand."""
    hosts = laptop.home / "hosts"
    text = re.sub(r"    KnownHostsCommand .*\n", "", hosts.read_text())
    hosts.write_text(text.replace(" proxy ", " proxy --max-age 60 "))


def age_what_is_remembered(laptop: Any, name: str, seconds: int) -> None:
    """As if `name` had been looked up `seconds` earlier."""
    path = laptop.home / "remembered" / f"{name}.notebook"
    path.write_text(re.sub(r"(?<=looked-up )\d+", lambda found: str(int(found[0]) - seconds), path.read_text()))
