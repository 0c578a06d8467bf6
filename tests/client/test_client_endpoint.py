"""`ssh=eice`: the client through a stand-in for an EC2 Instance Connect Endpoint, with real ssh, scp and rsync."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable

import pytest
from support.endpoints import ID, PRIVATE_IP, Endpoint, WebProxy, deny
from support.laptop import REGION, FakeApi, Laptop, Sshd, start_forward, wait_until
from support.terminals import run_on_terminal

from endpoint.server import Limits
from notebook_ssh_client.endpoint import open_endpoint
from notebook_ssh_client.ssh_address import Endpoint as EndpointAddress, SshAddress
from notebook_ssh_client.transport import receive_banner
from patience import LIMIT_S


@pytest.fixture
def notebook(laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd], endpoint: Endpoint) -> Sshd:
    """A notebook that an endpoint alone leads to; `setup` has been run on the laptop."""
    server = sshd(login="ec2-user")
    api.notebooks["demo"] = endpoint.notebook_json(server, "demo")
    laptop.setup(api)
    return server


def test_ssh_by_name(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    for _ in range(2):  # the second time by the cached address
        result = laptop.run("ssh", "demo", "echo", "here")
        assert (result.stdout, result.stderr, result.returncode) == ("here\n", "", 0)
    (first, second) = endpoint.server.opened
    assert (first.endpoint, first.private_ip, first.port, first.seconds) == (ID, PRIVATE_IP, 22, None)
    assert second == first
    assert wait_until(lambda: endpoint.server.open_count == 0)


def test_scp_and_rsync(laptop: Laptop, notebook: Sshd) -> None:
    data = bytes(range(256)) * 8_000
    (laptop.folder / "model").write_bytes(data)
    (laptop.folder / "again").mkdir()
    ssh = laptop.folder.parent / "bin" / "ssh"
    for command in (
        ("scp", "-q", "-S", ssh, "model", "demo:copied"),
        ("scp", "-q", "-S", ssh, "demo:copied", "back"),
        ("rsync", "-e", f"'{ssh}'", "model", "demo:synced"),
        ("rsync", "-e", f"'{ssh}'", "demo:synced", "again/"),
    ):
        result = laptop.run(*command)
        assert result.returncode == 0, result.stderr
    copies = [
        notebook.home / "copied",
        notebook.home / "synced",
        laptop.folder / "back",
        laptop.folder / "again/synced",
    ]
    assert [copy.read_bytes() == data for copy in copies] == [True] * 4


def test_much_in_both_directions_at_once(laptop: Laptop, notebook: Sshd) -> None:
    data = os.urandom(24 * 1024 * 1024)
    result = subprocess.run(["ssh", "demo", "cat"], env=laptop.environment, input=data, capture_output=True, check=True)
    assert result.stdout == data


def test_forward(laptop: Laptop, notebook: Sshd) -> None:
    forward = start_forward(laptop, "demo")
    known_hosts = f'UserKnownHostsFile="{laptop.home}/known_hosts"'
    try:
        result = laptop.run("ssh", "-p", str(forward.port), "-o", known_hosts, "ec2-user@127.0.0.1", "echo", "here")
    finally:
        forward.stop()
    assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr


def test_the_end_of_ssh_ends_the_tunnel(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    process = subprocess.Popen(
        ["ssh", "-v", "demo", "sleep", "1000"], env=laptop.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        assert wait_until(lambda: endpoint.server.open_count == 1)
        process.kill()
    assert wait_until(lambda: endpoint.server.open_count == 0)


def test_another_mode_loads_neither_signer_nor_websocket(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    def imported() -> set[str]:
        laptop.run_client("proxy", "demo.notebook", "22")  # fetches the address
        return laptop.imported_modules("-m", "notebook_ssh_client", "proxy", "demo.notebook", "22")

    assert {"websockets", "botocore.auth", "notebook_ssh_client.endpoint"} <= imported()
    api.notebooks["demo"] = notebook.notebook_json("demo")
    (laptop.home / "addresses" / "demo.notebook").unlink()
    assert not {"websockets", "botocore", "notebook_ssh_client.endpoint", "ssl"} & imported()


def refused(laptop: Laptop) -> tuple[int, str]:
    """Return the exit code and the message of a ProxyCommand that gets no connection."""
    result = laptop.run_client("proxy", "demo.notebook", "22")
    assert result.stdout == ""
    return result.returncode, result.stderr.strip()


def test_a_user_without_the_right_reads_which_policy_to_ask_for(
    laptop: Laptop, endpoint: Endpoint, notebook: Sshd
) -> None:
    endpoint.denied = deny
    code, message = refused(laptop)
    assert code == 7
    assert "is not authorized to perform: ec2-instance-connect:OpenTunnel on resource: arn:aws:ec2:" in message
    assert "ask the admin for the stack's policy for users, its output UserPolicyArn" in message
    assert laptop.run("ssh", "demo", "true").returncode == 255
    said = laptop.run_client("doctor", "demo")
    assert said.stdout.count("OpenTunnel on resource") == 2, "the check, and the last failure of ssh"


def test_an_endpoint_without_a_connection_left(
    laptop: Laptop, api: FakeApi, start_endpoint: Callable[..., Endpoint], sshd: Callable[..., Sshd]
) -> None:
    endpoint, server = start_endpoint(limits=Limits(connections=0)), sshd(login="ec2-user")
    endpoint.trusted_by(laptop)
    api.notebooks["demo"] = endpoint.notebook_json(server, "demo")
    laptop.setup(api)
    code, message = refused(laptop)
    assert code == 8
    assert "has no connection free" in message
    assert '"verdict": "endpoint-busy"' in laptop.run_client("doctor", "demo", "--json").stdout


def test_the_next_connection_after_one_has_ended(
    laptop: Laptop, api: FakeApi, start_endpoint: Callable[..., Endpoint], sshd: Callable[..., Sshd]
) -> None:
    endpoint, server = start_endpoint(limits=Limits(connections=1)), sshd(login="ec2-user")
    endpoint.trusted_by(laptop)
    api.notebooks["demo"] = endpoint.notebook_json(server, "demo")
    laptop.setup(api)
    process = subprocess.Popen(["ssh", "demo", "sleep", "1000"], env=laptop.environment, stdin=subprocess.DEVNULL)
    with process:
        assert wait_until(lambda: "Accepted publickey" in (server.folder / "log").read_text())
        assert refused(laptop)[0] == 8
        process.kill()
    assert wait_until(lambda: endpoint.server.open_count == 0)
    assert laptop.run("ssh", "demo", "true").returncode == 0


def test_an_hour_of_the_endpoints_own(
    laptop: Laptop, api: FakeApi, start_endpoint: Callable[..., Endpoint], sshd: Callable[..., Sshd]
) -> None:
    endpoint = start_endpoint(limits=Limits(seconds=2))
    endpoint.trusted_by(laptop)
    api.notebooks["demo"] = endpoint.notebook_json(sshd(login="ec2-user"), "demo")
    laptop.setup(api)
    assert laptop.run("ssh", "demo", "sleep", "1000").returncode == 255


def test_another_port_is_refused_in_aws_words(laptop: Laptop, api: FakeApi, endpoint: Endpoint, notebook: Sshd) -> None:
    api.notebooks["demo"]["paths"][0]["port"] = 2222
    code, message = refused(laptop)
    assert code == 7
    assert "Specify either 22 or 3389 as the RemotePort" in message


def test_nothing_answers_at_the_address(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    endpoint.targets.clear()
    code, message = refused(laptop)
    assert code == 6
    assert f"could not connect to {PRIVATE_IP} port 22 (AWS: Unable to connect to target)" in message


def test_wrong_keys_are_refused(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    laptop.environment["AWS_SECRET_ACCESS_KEY"] = "another"
    code, message = refused(laptop)
    assert code == 7
    assert "signature" in message


def test_a_clock_that_is_wrong_is_named(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    endpoint.clock_ahead_s = 1000
    code, message = refused(laptop)
    assert code == 3
    assert "the clock of this machine is 16 min behind AWS's" in message
    endpoint.clock_ahead_s = -200  # which signatures allow: it is not the reason
    endpoint.denied = deny
    assert refused(laptop)[0] == 7


def test_a_certificate_of_another_authority_is_refused(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    del laptop.environment["AWS_CA_BUNDLE"]
    code, message = refused(laptop)
    assert code == 6
    assert "is not trusted" in message
    assert "AWS_CA_BUNDLE" in message
    assert endpoint.server.opened == []


def test_through_a_web_proxy(laptop: Laptop, api: FakeApi, endpoint: Endpoint, notebook: Sshd) -> None:
    proxy = WebProxy(endpoint.server.port)
    laptop.environment |= {"HTTPS_PROXY": f"http://me:s%20cret@127.0.0.1:{proxy.port}", "NO_PROXY": ""}
    try:
        result = laptop.run("ssh", "demo", "echo", "here")
        assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr
        assert f"CONNECT {endpoint.dns_name} HTTP/1.1" in proxy.requests[0]
        assert "Proxy-Authorization: Basic bWU6cyBjcmV0" in proxy.requests[0]
        laptop.environment["NO_PROXY"] = "localhost"
        assert laptop.run("ssh", "demo", "true").returncode == 0
        assert len(proxy.requests) == 1
    finally:
        proxy.close()


def test_the_end_is_announced_once(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    laptop.environment["NOTEBOOK_SSH_TUNNEL_SECONDS"] = "4"
    result = laptop.run("ssh", "demo", "sleep", "100")
    assert result.returncode == 255
    assert result.stderr.count("AWS ends this connection in 2 seconds") == 1
    assert endpoint.server.opened[0].seconds == 4


@pytest.mark.parametrize("options", [(), ("-o", "ControlMaster=auto", "-o", "ControlPersist=60")], ids=["", "persist"])
def test_the_end_is_announced_on_the_terminal(
    laptop: Laptop, endpoint: Endpoint, notebook: Sshd, options: tuple[str, ...]
) -> None:
    """Also where ssh has the terminal in raw mode, and where it has sent the client's messages to the null device."""
    laptop.environment["NOTEBOOK_SSH_TUNNEL_SECONDS"] = "4"
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket may have about 100 characters
        own = [*options, "-o", f"ControlPath={folder}/%C"] if options else []
        code, shown = run_on_terminal(["ssh", "-tt", *own, "demo", "sleep", "100"], laptop.environment)
    assert code == 255
    (line,) = (line for line in shown.splitlines() if "AWS ends" in line)
    assert line.startswith("notebook-ssh: AWS ends this connection in 2 seconds")


def test_a_silence_is_broken_before_a_proxy_ends_it(
    endpoint: Endpoint, notebook: Sshd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_CA_BUNDLE": str(endpoint.authority),
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    address = SshAddress(PRIVATE_IP, 22, (), None, 0, endpoint=EndpointAddress(ID, endpoint.dns_name, REGION, "team"))
    with caplog.at_level(logging.DEBUG, logger="endpoint"):
        transport = open_endpoint(address, None, LIMIT_S, print, ping_interval_s=0.05)
        assert receive_banner(transport, address).startswith(b"SSH-")
        thread = threading.Thread(target=transport.read)
        thread.start()
        assert wait_until(lambda: sum("< PING" in record.getMessage() for record in caplog.records) >= 2)
        transport.write(b"SSH-2.0-Test\r\n")  # the server answers with its first packet, which ends the reading
        thread.join(LIMIT_S)
        transport.close()


def test_a_tunnel_that_is_cut_ends_ssh(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    process = subprocess.Popen(["ssh", "demo", "sleep", "1000"], env=laptop.environment, stdin=subprocess.DEVNULL)
    with process:
        assert wait_until(lambda: "Accepted publickey" in (notebook.folder / "log").read_text())
        endpoint.server.end_tunnels()
        assert process.wait() == 255


def test_no_question_is_asked_for_an_mfa_code(laptop: Laptop, endpoint: Endpoint, notebook: Sshd) -> None:
    """The address is cached, so that the endpoint alone needs credentials."""
    assert laptop.run("ssh", "demo", "true").returncode == 0
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del laptop.environment[name]
    config = laptop.folder / "config"
    config.write_text(
        "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = s\n"
        "mfa_serial = arn:aws:iam::111122223333:mfa/m\n[profile s]\naws_access_key_id = a\naws_secret_access_key = b\n"
    )
    laptop.environment["AWS_CONFIG_FILE"] = str(config)
    code, message = refused(laptop)
    assert code == 3
    assert "asks for an MFA code" in message
