"""The client in front of the whole system: by name, whatever happens to the notebook, with real ssh and never a prompt."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from laptop import Laptop, free_port, let_wait, make_client_environment, make_laptop, wait_until

import processes
from emulator.process import REGION
from patience import LIMIT_S
from world import STACK, World

"""Seconds for a notebook to start, which takes a few."""

SOON = 20
"""Seconds for a change of keys: several syncs, and less than the minute for which a patient stack keeps what it read."""


@dataclass(frozen=True)
class Notebook:
    """A notebook that the world has connected once."""

    world: World
    name: str

    def told(self) -> dict[str, Any]:
        """What the API says of it."""
        return dict(json.loads(self.world.curl(f"/notebooks/{self.name}").body))

    def until(self, status: str) -> None:
        self._wait(f"{self.name} is {status}", lambda: self.world.status(self.name) == status)

    def stop(self) -> None:
        self.world.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        self.until_state("Stopped")

    def start(self) -> None:
        self.world.sagemaker.start_notebook_instance(NotebookInstanceName=self.name)
        self.until("connected")

    def until_state(self, state: str) -> None:
        self._wait(f"{self.name} is {state}", lambda: self.world.state(self.name) == state)

    def until_set_up(self) -> None:
        """The fallback configuration is attached, which takes a stop."""

        def attached() -> bool:
            told = self.world.sagemaker.describe_notebook_instance(NotebookInstanceName=self.name)
            return "NotebookInstanceLifecycleConfigName" in told and told["NotebookInstanceStatus"] == "Stopped"

        self._wait(f"{self.name} is set up", attached)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        processes.wait_until(what, condition, alive=self.world.emulator.alive)


@pytest.fixture(scope="module")
def connect(world: World) -> Callable[..., Notebook]:
    """Makes notebooks that can be reached."""

    def made(name: str, **tags: str) -> Notebook:
        world.create_notebook(name)
        notebook = Notebook(world, name)
        notebook.until_state("InService")
        world.leave_key(name)
        world.tag(name, ssh="ngrok", **tags)
        notebook.stop()
        notebook.until_set_up()
        notebook.start()
        return notebook

    return made


@pytest.fixture(scope="module")
def notebook(connect: Callable[..., Notebook]) -> Notebook:
    return connect("client-story")


@pytest.fixture(scope="module")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return let_wait(make_client_environment(tmp_path_factory.mktemp("client-environment")))


@pytest.fixture
def bare_laptop(world: World, client_python: Path, tmp_path: Path) -> Laptop:
    """With the person's SSH key, and keys of AWS that may do nothing but describe stacks. `setup` never ran on it."""
    may_describe = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}],
    }
    return laptop_of(world, client_python, tmp_path, world.make_user(f"laptop-{tmp_path.name}", may_describe))


def laptop_of(world: World, python: Path, folder: Path, keys: dict[str, str]) -> Laptop:
    variables = {
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": world.emulator.endpoint,
        # Stands in for the DNS of API Gateway's host names.
        "AWS_ENDPOINT_URL_EXECUTE_API": world.stack.api,
    }
    made = make_laptop(folder, python, variables | keys)
    for suffix in ("", ".pub"):
        shutil.copy(f"{world.person.identity}{suffix}", f"{made.key}{suffix}")
    return made


@pytest.fixture
def laptop(notebook: Notebook, bare_laptop: Laptop) -> Laptop:
    """`notebook-ssh setup` ran once on it. Nothing else is ever done by hand."""
    set_up(bare_laptop)
    return bare_laptop


def set_up(laptop: Laptop) -> None:
    done = laptop.client("setup", "--ssh-config", str(laptop.config))
    assert done.returncode == 0, done.stderr


def in_session(laptop: Laptop, name: str, command: str) -> str:
    """The output of `command` on the notebook, by plain `ssh`."""
    done = laptop.run("ssh", name, command)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- setup ---------------------------------------------------------------------------------------


def test_setup_asks_cloudformation_where_the_api_is_and_can_be_taken_back(
    world: World, notebook: Notebook, bare_laptop: Laptop
) -> None:
    before = bare_laptop.config.read_bytes()
    set_up(bare_laptop)
    (stack,) = json.loads((bare_laptop.home / "stacks.json").read_text())["stacks"]
    assert (stack["name"], stack["region"], stack["api"]) == (STACK, REGION, world.stack.outputs["ApiUrl"])
    assert f"Host {notebook.name}\n" in (bare_laptop.home / "hosts").read_text()
    assert bare_laptop.client("setup", "--remove", "--ssh-config", str(bare_laptop.config)).returncode == 0
    assert bare_laptop.config.read_bytes() == before
    assert not bare_laptop.home.exists()


def test_setup_without_leave_to_ask_cloudformation_says_what_to_do(
    world: World, client_python: Path, tmp_path: Path
) -> None:
    laptop = laptop_of(world, client_python, tmp_path, world.make_user("may-describe-nothing"))
    before = laptop.config.read_bytes()
    done = laptop.client("setup", "--ssh-config", str(laptop.config))
    assert done.returncode == 3
    assert "notebook-ssh setup --api ADDRESS" in done.stderr
    assert laptop.config.read_bytes() == before
    by_hand = laptop.client("setup", "--ssh-config", str(laptop.config), "--api", world.stack.outputs["ApiUrl"])
    assert by_hand.returncode == 0, by_hand.stderr


def test_what_a_notebooks_user_may_do_is_enough_for_setup_and_describes_no_other_stack(
    world: World, notebook: Notebook, client_python: Path, tmp_path: Path
) -> None:
    laptop = laptop_of(world, client_python, tmp_path, world.person.keys)
    set_up(laptop)
    other = laptop.client("setup", "--ssh-config", str(laptop.config), "--stack", "another-stack")
    assert (other.returncode, "not authorized" in other.stderr) == (3, True), other.stderr


# ---- everything that stands on ssh ---------------------------------------------------------------


def test_everything_by_name_across_a_restart_that_changes_address_and_host_key(
    notebook: Notebook, laptop: Laptop, tmp_path: Path
) -> None:
    everything(notebook, laptop, tmp_path / "before")
    old = notebook.told()
    notebook.stop()
    notebook.until("stopped")
    notebook.start()
    new = notebook.told()
    assert new["address"] != old["address"]
    assert not set(new["host_keys"]) & set(old["host_keys"])
    everything(notebook, laptop, tmp_path / "after")


def everything(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    """What people do with a notebook. `Laptop.run` has no terminal, so that whatever prompts fails."""
    folder.mkdir()
    assert in_session(laptop, notebook.name, "basename ~") == "ec2-user\n"
    copies_arrive(notebook, laptop, folder)
    a_repository_is_cloned(notebook, laptop, folder)
    a_port_is_forwarded(notebook, laptop)


def copies_arrive(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    # These look for ssh at a place of their own; on a laptop that one reads the configuration anyway.
    ssh = laptop.run("sh", "-c", "command -v ssh").stdout.strip()
    there = f"{notebook.name}:SageMaker"
    content = os.urandom(1_000_000)
    (folder / "here").write_bytes(content)
    for command in (
        ["scp", "-S", ssh, "here", f"{there}/scp"],
        ["rsync", "-a", "-e", ssh, "here", f"{there}/rsync"],
        ["sh", "-c", f'echo "put here sftp" | sftp -b - -S "{ssh}" {there}'],
        ["scp", "-S", ssh, f"{there}/scp", "back"],
    ):
        done = laptop.run(*command, cwd=folder)
        assert done.returncode == 0, (command, done.stderr)
    volume = notebook.world.volume(notebook.name)
    copies = [folder / "back", *(volume / name for name in ("scp", "rsync", "sftp"))]
    assert [copy.read_bytes() == content for copy in copies] == [True] * len(copies)
    for copy in copies:
        copy.unlink()


def a_repository_is_cloned(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"
    in_session(
        laptop, notebook.name, f"cd SageMaker && rm -rf project && git init -q project && cd project && {commit}"
    )
    done = laptop.run("git", "clone", "-q", f"{notebook.name}:SageMaker/project", folder / "clone")
    assert done.returncode == 0, done.stderr
    assert laptop.run("git", "-C", folder / "clone", "log", "--format=%s").stdout == "first\n"


def a_port_is_forwarded(notebook: Notebook, laptop: Laptop) -> None:
    port, there = free_port(), socket.create_server(("127.0.0.1", 0))
    forward = f"{port}:127.0.0.1:{there.getsockname()[1]}"
    ssh = subprocess.Popen(
        ["ssh", "-N", "-L", forward, notebook.name], env=laptop.environment, stdin=subprocess.DEVNULL
    )
    try:
        here = wait_until(lambda: dialled(port))
        far, _ = there.accept()
        with here, far:
            here.sendall(b"ping")
            assert far.recv(10) == b"ping"
    finally:
        ssh.kill()  # a SIGTERM can be missed just before ssh begins to wait for its peers
        ssh.wait(LIMIT_S)
        there.close()


def dialled(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=1)
    except OSError:
        return None


def test_ssh_logs_in_as_the_user_that_the_client_names(notebook: Notebook, laptop: Laptop) -> None:
    done = laptop.run("ssh", notebook.name, "whoami; pwd")
    assert done.returncode == 0, done.stderr
    user, folder = done.stdout.split()
    assert (user, Path(folder).name) == ("ec2-user", "ec2-user")


def test_what_people_ask_the_client(notebook: Notebook, laptop: Laptop) -> None:
    told = notebook.told()
    assert laptop.client("address", notebook.name).stdout == f"{told['host']} {told['port']}\n"
    (listed,) = [row for row in json.loads(laptop.client("list", "--json").stdout) if row["name"] == notebook.name]
    assert (listed["status"], listed["address"]) == ("connected", told["address"])
    doctor = laptop.client("doctor", notebook.name)
    assert (doctor.returncode, "From this machine: ok: " in doctor.stdout) == (0, True), doctor.stdout


def test_somebody_elses_server_at_the_notebooks_address_is_refused(
    notebook: Notebook, laptop: Laptop, connect: Callable[..., Notebook]
) -> None:
    """ngrok gives addresses away again: here the remembered address leads to another real notebook."""
    other = connect("client-stranger").told()
    in_session(laptop, notebook.name, "true")
    remembered = laptop.home / "remembered" / f"{notebook.name}.notebook"
    moved = re.sub(r"^address .*$", f"address {other['host']} {other['port']}", remembered.read_text(), flags=re.M)
    remembered.write_text(moved)
    done = laptop.run("ssh", notebook.name, "echo", "never")
    assert (done.stdout, done.returncode) == ("", 255)
    assert "Host key verification failed" in done.stderr


# ---- wake on connect -----------------------------------------------------------------------------


def test_ssh_starts_a_stopped_notebook_that_may_be_woken(laptop: Laptop, connect: Callable[..., Notebook]) -> None:
    sleeper = connect("client-sleeper", ssh_wake="yes")
    sleeper.stop()
    sleeper.until("stopped")
    done = laptop.run("ssh", "client-sleeper.notebook", "echo", "awake", timeout=LIMIT_S)
    assert (done.stdout, done.returncode) == ("awake\n", 0), done.stderr
    assert "Waiting (" in done.stderr
    assert "of at most 15 min 00 s)" in done.stderr


def test_ssh_leaves_a_stopped_notebook_alone_whose_owner_did_not_allow_it(
    world: World, laptop: Laptop, connect: Callable[..., Notebook]
) -> None:
    private = connect("client-private")
    private.stop()
    private.until("stopped")
    done = laptop.run("ssh", "client-private.notebook", "true")
    assert (done.returncode, world.state("client-private")) == (255, "Stopped")
    assert "notebook-ssh: " in done.stderr
    asked = laptop.client("start", "client-private")
    assert (asked.returncode, world.state("client-private")) == (5, "Stopped")
    assert "ssh-wake=yes" in asked.stderr


# ---- central keys --------------------------------------------------------------------------------


@pytest.fixture
def central_key(world: World) -> Iterator[Callable[[str, Laptop], str]]:
    """Puts a laptop's own public key into the stack under a user's name; the parameter's name."""
    parameters = world.emulator.client("ssm")
    made = []

    def put(user: str, laptop: Laptop) -> str:
        made.append(f"{world.stack.outputs['KeysPath']}/{user}")
        text = laptop.key.with_suffix(".pub").read_text()
        parameters.put_parameter(Name=made[-1], Value=text, Type="String", Overwrite=True)
        return made[-1]

    yield put
    # Names that are gone already are only listed in the answer.
    parameters.delete_parameters(Names=made)


@pytest.fixture
def ana(world: World, notebook: Notebook, client_python: Path, tmp_path: Path) -> Laptop:
    """Somebody else's laptop, set up, whose key is not on the notebook."""
    folder = tmp_path / "ana"
    folder.mkdir()
    laptop = laptop_of(world, client_python, folder, world.make_user(f"ana-{tmp_path.name}"))
    for path in (laptop.key, laptop.key.with_suffix(".pub")):
        path.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", laptop.key], check=True)
    done = laptop.client("setup", "--ssh-config", str(laptop.config), "--api", world.stack.outputs["ApiUrl"])
    assert done.returncode == 0, done.stderr
    return laptop


@pytest.mark.parametrize("revoked_by", ["the parameter", "the tag"])
def test_a_central_key_admits_and_admits_no_more(
    world: World,
    notebook: Notebook,
    laptop: Laptop,
    ana: Laptop,
    central_key: Callable[[str, Laptop], str],
    revoked_by: str,
) -> None:
    def admitted() -> bool:
        done = ana.run("ssh", notebook.name, "true")
        assert done.returncode == 0 or "Permission denied (publickey)" in done.stderr, done.stderr
        return done.returncode == 0

    assert not admitted()
    parameter = central_key("ana", ana)
    world.tag(notebook.name, ssh_users="ana")
    processes.wait_until("she is admitted", admitted, SOON)
    if revoked_by == "the parameter":
        world.emulator.client("ssm").delete_parameter(Name=parameter)
    else:
        world.untag(notebook.name, "ssh-users")
    processes.wait_until("she is refused", lambda: not admitted(), SOON)
    in_session(laptop, notebook.name, "true")  # the owner's own key stays
