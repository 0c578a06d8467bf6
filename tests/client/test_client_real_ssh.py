"""ssh, scp, rsync and git by a notebook's name, against a real sshd: host key verified, never a prompt."""

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
from support.laptop import free_port, notebook_json, wait_until

from patience import LIMIT_S

ME = getpass.getuser()


@pytest.fixture
def notebook(laptop: Any, api: Any, sshd: Callable[..., Any]) -> Any:
    """A running notebook called My-Notebook; `setup` has been run on the laptop."""
    server = sshd()
    api.notebooks["my-notebook"] = server.notebook_json("My-Notebook")
    laptop.setup(api)
    return server


@pytest.mark.parametrize("name", ["My-Notebook", "my-notebook", "my-notebook.notebook", "my-notebook.team.notebook"])
def test_ssh_by_name(laptop: Any, notebook: Any, name: str) -> None:
    result = laptop.run("ssh", f"{ME}@{name}", "echo", "here")
    assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr


def test_cached_address_needs_no_request(laptop: Any, api: Any, notebook: Any) -> None:
    requests = []
    for _ in range(3):
        assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
        requests.append(api.request_count("/notebooks/My-Notebook"))
    assert requests == [1, 1, 1]


def test_changed_address_and_host_key(laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]) -> None:
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    api.notebooks["my-notebook"] = sshd().notebook_json("My-Notebook")
    result = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (result.stdout, result.returncode) == ("again\n", 0), result.stderr


def test_changed_host_key_at_the_same_address(laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]) -> None:
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    age_cached_address(laptop, "my-notebook", seconds=30)
    api.notebooks["my-notebook"] = sshd(port=notebook.port).notebook_json("My-Notebook")
    result = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (result.stdout, result.returncode) == ("again\n", 0), result.stderr


def test_older_openssh_verifies_by_the_file_only(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    use_older_openssh(laptop)
    assert laptop.run("ssh", f"{ME}@my-notebook", "true").returncode == 0
    notebook.stop()
    age_cached_address(laptop, "my-notebook", seconds=61)
    api.notebooks["my-notebook"] = sshd(port=notebook.port).notebook_json("My-Notebook")
    result = laptop.run("ssh", f"{ME}@my-notebook", "echo", "again")
    assert (result.stdout, result.returncode) == ("again\n", 0), result.stderr


@pytest.mark.parametrize("older", [False, True])
def test_unreported_host_key_is_refused(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any], older: bool
) -> None:
    if older:
        use_older_openssh(laptop)
    stranger = sshd()
    api.notebooks["my-notebook"]["port"] = stranger.port
    result = laptop.run("ssh", f"{ME}@my-notebook", "echo", "never")
    assert (result.stdout, result.returncode) == ("", 255)
    assert "Host key verification failed" in result.stderr
    if not older:
        assert "the notebook never reported" in result.stderr


def test_host_key_of_another_notebook_is_refused(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]
) -> None:
    other = sshd()
    api.notebooks["other"] = other.notebook_json("other")
    assert laptop.run("ssh", f"{ME}@other.notebook", "true").returncode == 0
    api.notebooks["my-notebook"]["port"] = other.port
    assert laptop.run("ssh", f"{ME}@my-notebook", "echo", "never").stdout == ""


def test_port_on_the_command_line_is_verified_too(laptop: Any, notebook: Any) -> None:
    assert laptop.run("ssh", "-p", "2222", f"{ME}@my-notebook", "true").returncode == 0
    use_older_openssh(laptop)
    assert laptop.run("ssh", "-p", "2222", f"{ME}@my-notebook", "true").returncode == 0


def test_large_data_is_unchanged(laptop: Any, notebook: Any, tmp_path: Path) -> None:
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
    remote = f"{ME}@my-notebook:{tmp_path}"
    for command in (
        ["scp", "-S", ssh, tmp_path / "here", f"{remote}/scp"],
        ["scp", "-O", "-S", ssh, tmp_path / "here", f"{remote}/scp-old"],
        ["rsync", "-a", "-e", ssh, tmp_path / "here", f"{remote}/rsync"],
        ["sh", "-c", f'echo "put here sftp" | sftp -b - -S "{ssh}" {remote}'],
    ):
        result = laptop.run(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    copies = {path.name for path in tmp_path.iterdir() if path.is_file() and path.read_text() == "text"}
    assert {"scp", "scp-old", "sftp", "rsync"} <= copies


def test_git_clone(laptop: Any, notebook: Any, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    laptop.run("git", "init", "-q", repository)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]
    assert laptop.run("git", "-C", repository, *commit).returncode == 0
    result = laptop.run("git", "clone", "-q", f"{ME}@my-notebook:{repository}", tmp_path / "clone")
    assert result.returncode == 0, result.stderr
    assert laptop.run("git", "-C", tmp_path / "clone", "log", "--format=%s").stdout == "first\n"


def test_port_forwarding(laptop: Any, notebook: Any) -> None:
    port, listener = free_port(), socket.create_server(("127.0.0.1", 0))
    forward = f"{port}:127.0.0.1:{listener.getsockname()[1]}"
    ssh = subprocess.Popen(["ssh", "-N", "-L", forward, f"{ME}@my-notebook"], env=laptop.environment)
    try:
        local = wait_until(lambda: try_connect(port))
        remote, _ = listener.accept()
        with local, remote:
            local.sendall(b"ping")
            assert remote.recv(10) == b"ping"
    finally:
        terminate(ssh)
        listener.close()


def terminate(ssh: subprocess.Popen[bytes]) -> None:
    """Terminate ssh; kill it if it misses the SIGTERM, as it does just before it begins to wait for its peers."""
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
        result = laptop.run("ssh", "-A", f"{ME}@my-notebook", "ssh-add", "-L")
        assert laptop.key.with_suffix(".pub").read_text().split()[1] in result.stdout
    finally:
        laptop.run("ssh-agent", "-k")


def test_connection_sharing(laptop: Any, notebook: Any) -> None:
    # A short path: a socket's path may have about 100 characters only.
    with tempfile.TemporaryDirectory() as folder:
        run_shared_session(laptop, ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C"])


def run_shared_session(laptop: Any, options: list[str]) -> None:
    master = subprocess.Popen(["ssh", *options, "-N", f"{ME}@my-notebook"], env=laptop.environment)
    try:
        wait_until(lambda: laptop.run("ssh", *options, "-O", "check", f"{ME}@my-notebook").returncode == 0)
        assert laptop.run("ssh", *options, f"{ME}@my-notebook", "echo", "shared").stdout == "shared\n"
    finally:
        terminate(master)


def test_connection_through_a_bastion(laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any]) -> None:
    bastion = sshd()
    known = laptop.folder / "bastion_known_hosts"
    known.write_text(f"[127.0.0.1]:{bastion.port} {bastion.host_key}\n")
    laptop.config.write_text(f'{laptop.config.read_text()}\nHost 127.0.0.1\n  UserKnownHostsFile "{known}"\n')
    inside = sshd()
    api.notebooks["inside"] = inside.notebook_json("inside", modes=["bastion"], jump=f"{ME}@127.0.0.1:{bastion.port}")
    for _ in range(2):  # fetched first, cached then
        result = laptop.run("ssh", f"{ME}@inside.notebook", "echo", "through")
        assert (result.stdout, result.returncode) == ("through\n", 0), result.stderr
    assert api.request_count("/notebooks/inside") == 1
    inside.stop()
    restarted = sshd()
    api.notebooks["inside"] = restarted.notebook_json(
        "inside", modes=["bastion"], jump=f"{ME}@127.0.0.1:{bastion.port}"
    )
    assert laptop.run("ssh", f"{ME}@inside.notebook", "echo", "through").stdout == "through\n"


@pytest.mark.parametrize("right", [True, False])
def test_host_key_of_the_bastion_is_the_stacks_word(
    laptop: Any, api: Any, notebook: Any, sshd: Callable[..., Any], right: bool
) -> None:
    """The first connection needs no yes of the user, and no known_hosts of the user's helps another server."""
    bastion, inside, other = sshd(), sshd(), sshd()
    if not right:
        laptop.config.write_text(f"{laptop.config.read_text()}\nHost 127.0.0.1\n  StrictHostKeyChecking no\n")
    keys = [bastion.host_key] if right else [other.host_key]
    jump = f"{ME}@127.0.0.1:{bastion.port}"
    api.notebooks["inside"] = inside.notebook_json("inside", modes=["bastion"], jump=jump, jump_host_keys=keys)
    for _ in range(2):  # fetched first, cached then
        result = laptop.run("ssh", f"{ME}@inside.notebook", "echo", "through")
        assert (result.stdout, "Host key verification failed" in result.stderr) == (
            "through\n" if right else "",
            not right,
        )
    assert "Permanently added" not in result.stderr


def test_stopped_notebook_is_started(laptop: Any, api: Any, notebook: Any) -> None:
    running = api.notebooks["my-notebook"]
    api.notebooks["my-notebook"] = notebook_json("My-Notebook", "stopped", wake=True)
    api.on_start = lambda _: api.notebooks.update({"my-notebook": running})
    result = laptop.run("ssh", f"{ME}@my-notebook", "echo", "awake")
    assert (result.stdout, result.returncode) == ("awake\n", 0), result.stderr
    assert re.search(r"Waiting \(\d+ min \d+ s of at most 15 min 00 s\)", result.stderr), result.stderr
    assert api.request_count("/notebooks/My-Notebook/start") == 1


def test_stopped_notebook_without_the_tag_is_not_started(laptop: Any, api: Any, notebook: Any) -> None:
    api.notebooks["my-notebook"] = notebook_json("My-Notebook", "stopped")
    result = laptop.run("ssh", f"{ME}@my-notebook", "true")
    assert result.returncode == 255
    assert "notebook-ssh: My-Notebook is stopped. Do the next thing." in result.stderr
    assert api.request_count("/notebooks/My-Notebook/start") == 0


def test_ssh_subcommand(laptop: Any, api: Any, notebook: Any) -> None:
    laptop.config.write_text(f"{laptop.config.read_text()}\nHost *\n  User {ME}\n")
    result = laptop.run_client("ssh", "my-notebook", "-l", ME, "echo", "here")
    assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr


def test_shell_metacharacters_in_a_name_are_not_executed(laptop: Any, notebook: Any) -> None:
    for name in ("$(touch${IFS}owned)", "`touch${IFS}owned`", "';touch${IFS}owned;'", "x|touch${IFS}owned"):
        assert laptop.run("ssh", f"{name}.notebook", "true").returncode == 255
    assert not (laptop.folder / "owned").exists()


def try_connect(port: int) -> socket.socket | None:
    with contextlib.suppress(OSError):
        return socket.create_connection(("127.0.0.1", port), timeout=1)
    return None


def use_older_openssh(laptop: Any) -> None:
    """Rewrite the hosts file as for an OpenSSH without KnownHostsCommand."""
    hosts = laptop.home / "hosts"
    text = re.sub(r"    KnownHostsCommand .*\n", "", hosts.read_text())
    hosts.write_text(text.replace(" proxy ", " proxy --max-age 60 "))


def age_cached_address(laptop: Any, name: str, seconds: int) -> None:
    """Make the cached address of `name` older by `seconds`."""
    path = laptop.home / "addresses" / f"{name}.notebook"
    path.write_text(re.sub(r"(?<=fetched-at )\d+", lambda match: str(int(match[0]) - seconds), path.read_text()))
