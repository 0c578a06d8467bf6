"""Several paths to one notebook: one at a time, the one that worked last first, and never two authentications."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import PRIVATE_IP, Endpoint, deny, path
from support.laptop import FakeApi, Laptop, Sshd, free_port, notebook_json, wait_until

from notebook_ssh_client import address_cache, lookup, paths
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.settings import Stack
from notebook_ssh_client.ssh_address import Endpoint as Eice, SshAddress
from notebook_ssh_client.transport import EndpointError

KEYS = ("ssh-ed25519 AAAA",)
EICE = {"id": "eice-0123456789abcdef0", "dns_name": "eice-0.amazonaws.com", "region": "eu-west-1"}


def address(mode: str, port: int = 22, **fields: Any) -> SshAddress:
    return SshAddress("127.0.0.1", port, KEYS, None, 0, mode=mode, **fields)


# ---- what the API says ---------------------------------------------------------------------------

NGROK = path("ngrok", "0.tcp.ngrok.io", 12345)
BASTION = path("bastion", "10.0.3.7", 22, jump="me@bastion.example.com:22")
TUNNEL = path("eice", "10.0.3.7", 22, endpoint=EICE)

RESPONSES: dict[str, tuple[list[Any], list[str]]] = {
    "one": ([NGROK], ["ngrok"]),
    "in the order of the tag": ([TUNNEL, NGROK, BASTION], ["eice", "ngrok", "bastion"]),
    "without an address yet": ([path("eice", None, None), NGROK], ["ngrok"]),
    "failed, and another has not": ([{**TUNNEL, "state": "failed"}, NGROK], ["ngrok"]),
    "failed all": ([{**TUNNEL, "state": "failed"}, {**NGROK, "state": "failed"}], ["eice", "ngrok"]),
    "reconnecting": ([{**NGROK, "state": "waiting"}, TUNNEL], ["ngrok", "eice"]),
    "a mode of the future": ([{**NGROK, "mode": "carrier-pigeon"}, TUNNEL], ["eice"]),
    "an endpoint that is not told": ([{**TUNNEL, "endpoint": None}, NGROK], ["ngrok"]),
    "no object": (["ngrok", NGROK], ["ngrok"]),
}


def notebook(response: dict[str, Any]) -> lookup.NotebookInfo:
    stack = Stack("team", "team", "eu-west-1", "https://api")
    return lookup.NotebookInfo(stack, None, "demo", {"host_keys": list(KEYS), **response})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", RESPONSES)
def test_paths_that_are_tried(case: str) -> None:
    listed, modes = RESPONSES[case]
    found = lookup.parse_address(notebook({"paths": listed}))
    assert [path.mode for path in found.paths] == modes


def test_a_stack_without_paths_has_one() -> None:
    found = lookup.parse_address(notebook({"host": "0.tcp.ngrok.io", "port": 12345, "jump": None}))
    assert found.paths == (found,)
    assert (found.host, found.port, found.mode, found.endpoint) == ("0.tcp.ngrok.io", 12345, "", None)


def test_the_stack_of_an_endpoint_is_known() -> None:
    (found,) = lookup.parse_address(notebook({"paths": [TUNNEL]})).paths
    assert found.endpoint == Eice(EICE["id"], EICE["dns_name"], EICE["region"], "team")


@pytest.mark.parametrize(
    ("field", "value"),
    [("dns_name", "-oProxyCommand=x"), ("dns_name", "a/../b"), ("region", "eu west"), ("id", "eice-0&remotePort=1")],
)
def test_an_endpoint_that_is_not_valid_is_refused(field: str, value: str) -> None:
    with pytest.raises(CliError, match="the API returned an invalid"):
        lookup.parse_address(notebook({"paths": [NGROK, {**TUNNEL, "endpoint": {**EICE, field: value}}]}))


@pytest.mark.parametrize("status", ["ready", "connected", "reconnecting", "stale"])
def test_statuses_with_an_address(status: str) -> None:
    assert notebook({"status": status, "host": None, "paths": [TUNNEL]}).is_connectable
    assert not notebook({"status": status, "host": None, "paths": [path("eice", None, None)]}).is_connectable


def test_every_path_is_cached(tmp_path: Path) -> None:
    found = lookup.parse_address(notebook({"paths": [TUNNEL, NGROK, BASTION]}))
    assert address_cache.loads(address_cache.dumps(found)) == found
    address_cache.put(str(tmp_path), "demo.notebook", found)
    now = found.fetched_at
    assert address_cache.get(str(tmp_path), "demo.notebook", now=now, max_age=300) == found


def test_an_entry_of_an_older_client_is_fetched_again() -> None:
    assert address_cache.loads("notebook-ssh 1\nfetched-at 0\naddress 127.0.0.1 22\nkey ssh-ed25519 AAAA\n") is None


# ---- one at a time -------------------------------------------------------------------------------


class Server:
    """Answers with a banner, or closes, and knows how many connections it has."""

    def __init__(self, *, has_banner: bool, others: list[Server] | None = None) -> None:
        self.connections, self.open, self.open_elsewhere = 0, 0, 0
        self._has_banner, self._others = has_banner, others or []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections, self.open = self.connections + 1, self.open + 1
            self.open_elsewhere += sum(other.open for other in self._others)
            with connection:
                if self._has_banner:
                    connection.sendall(b"SSH-2.0-Test\r\n")
                    connection.recv(1)
            self.open -= 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    dead = Server(has_banner=False)
    alive = Server(has_banner=True, others=[dead])
    yield dead, alive
    dead.close()
    alive.close()


def connect(home: Path, address: SshAddress, noted: list[str]) -> str:
    taken, transport, _ = paths.connect(str(home), "demo.notebook", address, 30, noted.append, noted.append)
    transport.close()
    return taken.mode


def test_the_next_path_is_begun_when_one_is_refused_and_closed(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    dead, alive = servers
    noted: list[str] = []
    found = address("eice", dead.port, others=(address("ngrok", alive.port),))
    assert connect(tmp_path, found, noted) == "ngrok"
    assert (dead.connections, alive.connections, alive.open_elsewhere) == (1, 1, 0)
    (sentence,) = noted
    assert sentence.startswith("demo.notebook is reached by ngrok, not by eice: 127.0.0.1 port")
    logged = (tmp_path / "log").read_text()
    assert sentence in logged


def test_the_path_that_worked_last_comes_first(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    dead, alive = servers
    found = address("eice", dead.port, others=(address("ngrok", alive.port),))
    noted: list[str] = []
    assert [connect(tmp_path, found, noted) for _ in range(3)] == ["ngrok"] * 3
    assert (dead.connections, alive.connections) == (1, 3)
    assert noted[1:] == ["demo.notebook is reached by ngrok"] * 2
    address_cache.put(str(tmp_path), "demo.notebook", found)
    address_cache.delete(str(tmp_path), "demo.notebook")
    assert paths.last_mode(str(tmp_path), "demo.notebook") == "ngrok"


def test_the_first_path_needs_no_word_and_one_path_no_memory(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    _, alive = servers
    noted: list[str] = []
    assert connect(tmp_path, address("ngrok", alive.port), noted) == "ngrok"
    assert not (tmp_path / "paths").exists()
    assert connect(tmp_path, address("ngrok", alive.port, others=(address("eice"),)), noted) == "ngrok"
    assert noted == []


ORDERS = [
    (["eice", "ngrok"], "", ["eice", "ngrok"]),
    (["eice", "ngrok"], "ngrok", ["ngrok", "eice"]),
    (["eice", "ngrok", "bastion"], "bastion", ["bastion", "eice", "ngrok"]),
    (["eice", "ngrok"], "bastion", ["eice", "ngrok"]),
]


@pytest.mark.parametrize(("modes", "last", "expected"), ORDERS)
def test_order(modes: list[str], last: str, expected: list[str]) -> None:
    assert [path.mode for path in paths.in_order(tuple(map(address, modes)), last)] == expected


FAILURES: list[tuple[list[Exception], int]] = [
    ([ConnectionRefusedError(111, "refused")], 6),
    ([EndpointError("endpoint eice-0 refused", "endpoint-refused", 7)], 7),
    ([EndpointError("endpoint eice-0 refused", "endpoint-refused", 7), ConnectionRefusedError(111, "refused")], 6),
    ([CliError("no credentials", 3)], 3),
]


@pytest.mark.parametrize(("errors", "code"), FAILURES)
def test_exit_code_without_a_path(errors: list[Any], code: int) -> None:
    tried = [address("eice"), address("ngrok")]
    failures = list(zip(tried, errors))  # noqa: B905  3.9 has no strict
    assert paths.NoPathError(failures).to_cli_error("demo").exit_code == code


# ---- with real ssh -------------------------------------------------------------------------------


@pytest.fixture
def server(laptop: Laptop, api: FakeApi, endpoint: Endpoint, sshd: Callable[..., Sshd]) -> Sshd:
    """The sshd of a notebook with the paths `eice ngrok`; `setup` has been run on the laptop."""
    server = sshd(login="ec2-user")
    api.notebooks["demo"] = both(endpoint, server)
    laptop.setup(api)
    return server


def both(endpoint: Endpoint, server: Sshd) -> dict[str, Any]:
    listed = [endpoint.path(server), path("ngrok", "127.0.0.1", server.port)]
    return server.notebook_json("demo", modes=["eice", "ngrok"], paths=listed)


def ssh(laptop: Laptop) -> str:
    """Log in; return what the client said."""
    result = laptop.run("ssh", "demo", "echo", "here")
    assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr
    return result.stderr


def logins(server: Sshd) -> int:
    return (server.folder / "log").read_text().count("Accepted publickey")


def test_a_path_that_is_killed_before_a_session(laptop: Laptop, endpoint: Endpoint, server: Sshd) -> None:
    assert ssh(laptop) == ""
    endpoint.denied = deny
    assert "demo.notebook is reached by ngrok, not by eice: endpoint eice-" in ssh(laptop)
    assert ssh(laptop) == "notebook-ssh: demo.notebook is reached by ngrok\n"
    assert logins(server) == 3
    assert len(endpoint.server.refused) == 1, "the path that worked last is the first now"


def test_a_path_that_is_killed_during_a_session(laptop: Laptop, endpoint: Endpoint, server: Sshd) -> None:
    process = subprocess.Popen(["ssh", "demo", "sleep", "1000"], env=laptop.environment, stdin=subprocess.DEVNULL)
    with process:
        assert wait_until(lambda: logins(server) == 1)
        endpoint.denied = deny
        endpoint.server.end_tunnels()
        assert process.wait() == 255
    assert "is reached by ngrok" in ssh(laptop)


def test_a_path_that_stays_silent_is_left(laptop: Laptop, api: FakeApi, endpoint: Endpoint, server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        listed = [path("ngrok", "127.0.0.1", port), endpoint.path(server)]
        api.notebooks["demo"] = server.notebook_json("demo", modes=["ngrok", "eice"], paths=listed)
        laptop.environment["PATH_TIMEOUT_S"] = "1"
        assert "is reached by eice, not by ngrok: 127.0.0.1 port" in ssh(laptop)
    assert logins(server) == 1


def test_doctor_judges_each_path(laptop: Laptop, api: FakeApi, endpoint: Endpoint, server: Sshd) -> None:
    endpoint.denied = deny
    problem = {"code": "no-endpoint", "message": "The bastion is gone."}
    api.notebooks["demo"]["paths"].append(path("bastion", None, None, state="failed", problem=problem))
    result = laptop.run_client("doctor", "demo", "--json")
    checks = [check for check in json.loads(result.stdout)["checks"] if check["check"] == "from-here"]
    assert [(check["path"], check["result"], check["verdict"]) for check in checks] == [
        ("eice", "failed", "endpoint-refused"),
        ("ngrok", "ok", None),
        ("bastion", "waiting", None),
    ]
    assert "OpenTunnel" in checks[0]["reason"]
    assert checks[2]["reason"] == "by bastion: The bastion is gone."
    assert result.returncode == 0, "one path is enough"
    assert logins(server) == 0


def test_no_path_at_all(laptop: Laptop, api: FakeApi, endpoint: Endpoint, server: Sshd) -> None:
    endpoint.targets.clear()
    api.notebooks["demo"]["paths"][1]["port"] = free_port()
    result = laptop.run_client("proxy", "demo.notebook", "22")
    assert result.returncode == 6
    assert f"by eice: endpoint {EICE['id']} could not connect to {PRIVATE_IP}" in result.stderr
    assert "by ngrok: 127.0.0.1 port" in result.stderr
    assert result.stderr.rstrip().endswith("To check every step: notebook-ssh doctor demo.notebook")


def test_the_notebook_of_an_older_stack(laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd]) -> None:
    server = sshd(login="ec2-user")
    api.notebooks["demo"] = server.notebook_json("demo")
    assert "paths" not in notebook_json("demo")
    laptop.setup(api)
    assert ssh(laptop) == ""
