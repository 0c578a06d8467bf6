"""The client against the whole system: by name, across restarts, with a real ssh and never a prompt."""

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
from support.laptop import Laptop, create_client_venv, create_laptop, extend_timeouts, free_port, wait_until

import processes
from emulator.process import REGION
from environment import STACK, LocalEnv
from patience import LIMIT_S

pytestmark = pytest.mark.takes_minutes


@dataclass(frozen=True)
class Notebook:
    """A notebook that has been connected once."""

    env: LocalEnv
    name: str

    def describe(self) -> dict[str, Any]:
        """Return the API's response for it."""
        return dict(json.loads(self.env.curl(f"/notebooks/{self.name}").body))

    def wait_for_status(self, status: str) -> None:
        self._wait(f"{self.name} is {status}", lambda: self.env.status(self.name) == status)

    def stop(self) -> None:
        self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        self.wait_for_state("Stopped")

    def start(self) -> None:
        self.env.sagemaker.start_notebook_instance(NotebookInstanceName=self.name)
        self.wait_for_status("connected")

    def wait_for_state(self, state: str) -> None:
        self._wait(f"{self.name} is {state}", lambda: self.env.state(self.name) == state)

    def wait_for_configuration(self) -> None:
        """Wait until the default lifecycle configuration is attached, which needs a stop."""

        def attached() -> bool:
            description = self.env.sagemaker.describe_notebook_instance(NotebookInstanceName=self.name)
            return (
                "NotebookInstanceLifecycleConfigName" in description
                and description["NotebookInstanceStatus"] == "Stopped"
            )

        self._wait(f"{self.name} has a lifecycle configuration", attached)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        processes.wait_until(what, condition, alive=self.env.emulator.alive)


@pytest.fixture(scope="module")
def connect(env: LocalEnv) -> Callable[..., Notebook]:
    """A function that creates a notebook and waits until it is connected."""

    def create(name: str, **tags: str) -> Notebook:
        env.create_notebook(name)
        notebook = Notebook(env, name)
        notebook.wait_for_state("InService")
        env.leave_key(name)
        env.tag(name, ssh="ngrok", **tags)
        notebook.stop()
        notebook.wait_for_configuration()
        notebook.start()
        return notebook

    return create


@pytest.fixture(scope="module")
def notebook(connect: Callable[..., Notebook]) -> Notebook:
    return connect("client-demo")


@pytest.fixture(scope="module")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend_timeouts(create_client_venv(tmp_path_factory.mktemp("client-environment")))


@pytest.fixture
def bare_laptop(env: LocalEnv, client_python: Path, tmp_path: Path) -> Laptop:
    """A laptop with the user's SSH key and AWS credentials that only allow DescribeStacks; `setup` has not been run."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}],
    }
    return create_laptop_for(env, client_python, tmp_path, env.make_user(f"laptop-{tmp_path.name}", policy))


def create_laptop_for(env: LocalEnv, python: Path, folder: Path, credentials: dict[str, str]) -> Laptop:
    variables = {
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": env.emulator.endpoint,
        # Replaces the DNS entry of the API Gateway host name.
        "AWS_ENDPOINT_URL_EXECUTE_API": env.stack.api,
    }
    laptop = create_laptop(folder, python, variables | credentials)
    for suffix in ("", ".pub"):
        shutil.copy(f"{env.person.identity}{suffix}", f"{laptop.key}{suffix}")
    return laptop


@pytest.fixture
def laptop(notebook: Notebook, bare_laptop: Laptop) -> Laptop:
    """A laptop on which `notebook-ssh setup` has been run, and nothing else."""
    setup(bare_laptop)
    return bare_laptop


def setup(laptop: Laptop) -> None:
    result = laptop.run_client("setup", "--ssh-config", str(laptop.config))
    assert result.returncode == 0, result.stderr


def run_on_notebook(laptop: Laptop, name: str, command: str) -> str:
    """Run `command` on the notebook through plain `ssh`, and return its output."""
    result = laptop.run("ssh", name, command)
    assert result.returncode == 0, result.stderr
    return result.stdout


# ---- setup ---------------------------------------------------------------------------------------


def test_setup_reads_the_api_url_from_cloudformation_and_remove_reverts_it(
    env: LocalEnv, notebook: Notebook, bare_laptop: Laptop
) -> None:
    before = bare_laptop.config.read_bytes()
    setup(bare_laptop)
    (stack,) = json.loads((bare_laptop.home / "settings.json").read_text())["stacks"]
    assert (stack["name"], stack["region"], stack["api_url"]) == (STACK, REGION, env.stack.outputs["ApiUrl"])
    assert f"Host {notebook.name}\n" in (bare_laptop.home / "hosts").read_text()
    assert bare_laptop.run_client("setup", "--remove", "--ssh-config", str(bare_laptop.config)).returncode == 0
    assert bare_laptop.config.read_bytes() == before
    assert not bare_laptop.home.exists()


def test_setup_without_access_to_cloudformation_reports_what_to_do(
    env: LocalEnv, client_python: Path, tmp_path: Path
) -> None:
    laptop = create_laptop_for(env, client_python, tmp_path, env.make_user("may-describe-nothing"))
    before = laptop.config.read_bytes()
    result = laptop.run_client("setup", "--ssh-config", str(laptop.config))
    assert result.returncode == 3
    assert "notebook-ssh setup --api URL" in result.stderr
    assert laptop.config.read_bytes() == before
    with_url = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--api", env.stack.outputs["ApiUrl"])
    assert with_url.returncode == 0, with_url.stderr


def test_permissions_of_a_notebook_user_allow_setup_and_no_other_stack(
    env: LocalEnv, notebook: Notebook, client_python: Path, tmp_path: Path
) -> None:
    laptop = create_laptop_for(env, client_python, tmp_path, env.person.keys)
    setup(laptop)
    other = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--stack", "another-stack")
    assert (other.returncode, "not authorized" in other.stderr) == (3, True), other.stderr


# ---- ssh and the programs that use it ------------------------------------------------------------


def test_programs_work_across_a_restart_that_changes_address_and_host_key(
    notebook: Notebook, laptop: Laptop, tmp_path: Path
) -> None:
    check_programs(notebook, laptop, tmp_path / "before")
    old = notebook.describe()
    notebook.stop()
    notebook.wait_for_status("stopped")
    notebook.start()
    new = notebook.describe()
    assert new["address"] != old["address"]
    assert not set(new["host_keys"]) & set(old["host_keys"])
    check_programs(notebook, laptop, tmp_path / "after")


def check_programs(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    """Run what users run. `Laptop.run` has no terminal, so that a prompt fails."""
    folder.mkdir()
    assert run_on_notebook(laptop, notebook.name, "basename ~") == "ec2-user\n"
    check_copies(notebook, laptop, folder)
    check_git_clone(notebook, laptop, folder)
    check_port_forwarding(notebook, laptop)


def check_copies(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    # These programs use /usr/bin/ssh; on a real laptop, that one reads the ssh_config too.
    ssh = laptop.run("sh", "-c", "command -v ssh").stdout.strip()
    remote = f"{notebook.name}:SageMaker"
    content = os.urandom(1_000_000)
    (folder / "here").write_bytes(content)
    for command in (
        ["scp", "-S", ssh, "here", f"{remote}/scp"],
        ["rsync", "-a", "-e", ssh, "here", f"{remote}/rsync"],
        ["sh", "-c", f'echo "put here sftp" | sftp -b - -S "{ssh}" {remote}'],
        ["scp", "-S", ssh, f"{remote}/scp", "back"],
    ):
        result = laptop.run(*command, cwd=folder)
        assert result.returncode == 0, (command, result.stderr)
    volume = notebook.env.volume(notebook.name)
    copies = [folder / "back", *(volume / name for name in ("scp", "rsync", "sftp"))]
    assert [copy.read_bytes() == content for copy in copies] == [True] * len(copies)
    for copy in copies:
        copy.unlink()


def check_git_clone(notebook: Notebook, laptop: Laptop, folder: Path) -> None:
    commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"
    run_on_notebook(
        laptop, notebook.name, f"cd SageMaker && rm -rf project && git init -q project && cd project && {commit}"
    )
    result = laptop.run("git", "clone", "-q", f"{notebook.name}:SageMaker/project", folder / "clone")
    assert result.returncode == 0, result.stderr
    assert laptop.run("git", "-C", folder / "clone", "log", "--format=%s").stdout == "first\n"


def check_port_forwarding(notebook: Notebook, laptop: Laptop) -> None:
    port, listener = free_port(), socket.create_server(("127.0.0.1", 0))
    forward = f"{port}:127.0.0.1:{listener.getsockname()[1]}"
    ssh = subprocess.Popen(
        ["ssh", "-N", "-L", forward, notebook.name], env=laptop.environment, stdin=subprocess.DEVNULL
    )
    try:
        local = wait_until(lambda: try_connect(port))
        remote, _ = listener.accept()
        with local, remote:
            local.sendall(b"ping")
            assert remote.recv(10) == b"ping"
    finally:
        ssh.kill()  # a SIGTERM can be missed just before ssh begins to wait for its peers
        ssh.wait(LIMIT_S)
        listener.close()


def try_connect(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=1)
    except OSError:
        return None


def test_ssh_logs_in_as_the_user_in_the_hosts_file(notebook: Notebook, laptop: Laptop) -> None:
    result = laptop.run("ssh", notebook.name, "whoami; pwd")
    assert result.returncode == 0, result.stderr
    user, folder = result.stdout.split()
    assert (user, Path(folder).name) == ("ec2-user", "ec2-user")


def test_address_list_and_doctor(notebook: Notebook, laptop: Laptop) -> None:
    described = notebook.describe()
    assert laptop.run_client("address", notebook.name).stdout == f"{described['host']} {described['port']}\n"
    (listed,) = [row for row in json.loads(laptop.run_client("list", "--json").stdout) if row["name"] == notebook.name]
    assert (listed["status"], listed["address"]) == ("connected", described["address"])
    doctor = laptop.run_client("doctor", notebook.name)
    assert (doctor.returncode, "  ok       from-here     " in doctor.stdout) == (0, True), doctor.stdout


def test_another_server_at_the_notebooks_address_is_refused(
    notebook: Notebook, laptop: Laptop, connect: Callable[..., Notebook]
) -> None:
    """ngrok reuses addresses: here, the cached address is another real notebook's."""
    other = connect("client-other").describe()
    run_on_notebook(laptop, notebook.name, "true")
    cached = laptop.home / "addresses" / f"{notebook.name}.notebook"
    moved = re.sub(r"^path \S+ \d+", f"path {other['host']} {other['port']}", cached.read_text(), flags=re.M)
    cached.write_text(moved)
    result = laptop.run("ssh", notebook.name, "echo", "never")
    assert (result.stdout, result.returncode) == ("", 255)
    assert "Host key verification failed" in result.stderr


# ---- wake on connect -----------------------------------------------------------------------------


def test_ssh_starts_a_stopped_notebook_with_the_wake_tag(laptop: Laptop, connect: Callable[..., Notebook]) -> None:
    sleeper = connect("client-sleeper", ssh_wake="yes")
    sleeper.stop()
    sleeper.wait_for_status("stopped")
    result = laptop.run("ssh", "client-sleeper.notebook", "echo", "awake", timeout=LIMIT_S)
    assert (result.stdout, result.returncode) == ("awake\n", 0), result.stderr
    assert "Waiting (" in result.stderr
    assert "of at most 15 min 00 s)" in result.stderr


def test_ssh_does_not_start_a_stopped_notebook_without_the_wake_tag(
    env: LocalEnv, laptop: Laptop, connect: Callable[..., Notebook]
) -> None:
    private = connect("client-private")
    private.stop()
    private.wait_for_status("stopped")
    result = laptop.run("ssh", "client-private.notebook", "true")
    assert (result.returncode, env.state("client-private")) == (255, "Stopped")
    assert "notebook-ssh: " in result.stderr
    started = laptop.run_client("start", "client-private")
    assert (started.returncode, env.state("client-private")) == (5, "Stopped")
    assert "ssh-wake=yes" in started.stderr


# ---- central keys --------------------------------------------------------------------------------


@pytest.fixture
def central_key(env: LocalEnv) -> Iterator[Callable[[str, Laptop], str]]:
    """A function that stores a laptop's public key as a user's central key, and returns the parameter's name."""
    parameters = env.emulator.client("ssm")
    created = []

    def put(user: str, laptop: Laptop) -> str:
        created.append(f"{env.stack.outputs['KeysPath']}/{user}")
        text = laptop.key.with_suffix(".pub").read_text()
        parameters.put_parameter(Name=created[-1], Value=text, Type="String", Overwrite=True)
        return created[-1]

    yield put
    # Parameters that do not exist are only listed in the response.
    parameters.delete_parameters(Names=created)


@pytest.fixture
def ana(env: LocalEnv, notebook: Notebook, client_python: Path, tmp_path: Path) -> Laptop:
    """Another user's laptop after `setup`, whose key is not on the notebook."""
    folder = tmp_path / "ana"
    folder.mkdir()
    laptop = create_laptop_for(env, client_python, folder, env.make_user(f"ana-{tmp_path.name}"))
    for path in (laptop.key, laptop.key.with_suffix(".pub")):
        path.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", laptop.key], check=True)
    result = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--api", env.stack.outputs["ApiUrl"])
    assert result.returncode == 0, result.stderr
    return laptop


@pytest.mark.parametrize("revoked_by", ["the parameter", "the tag"])
def test_central_key_grants_and_revokes_access(
    env: LocalEnv,
    notebook: Notebook,
    laptop: Laptop,
    ana: Laptop,
    central_key: Callable[[str, Laptop], str],
    revoked_by: str,
) -> None:
    def is_route_open() -> bool:
        result = ana.run("ssh", notebook.name, "true")
        assert result.returncode == 0 or "Permission denied (publickey)" in result.stderr, result.stderr
        return result.returncode == 0

    assert not is_route_open()
    parameter = central_key("ana", ana)
    env.tag(notebook.name, ssh_users="ana")
    processes.wait_until("she is admitted", is_route_open)
    if revoked_by == "the parameter":
        env.emulator.client("ssm").delete_parameter(Name=parameter)
    else:
        env.untag(notebook.name, "ssh-users")
    processes.wait_until("she is refused", lambda: not is_route_open())
    run_on_notebook(laptop, notebook.name, "true")  # the key on the notebook still works
