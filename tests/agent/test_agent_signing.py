"""The agent signs its reports with the standard library alone, with the credentials of the notebook's role."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings, strategies as st
from support.agent_env import (
    ACCESS,
    SECRET,
    SESSION,
    NotebookHost,
    Server,
    Stack,
    free_port,
    make_reply,
    metadata_address,
    wait_until,
)

from patience import LIMIT_S

NOW = 1_800_000_000
CREDENTIALS = {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET, "Token": SESSION}


def signed_by_botocore(url: str, body: bytes, keys: dict[str, str]) -> str:
    """Return the `Authorization` of the same request at NOW, by botocore."""
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
    date = datetime.fromtimestamp(NOW, UTC).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = date
    request.headers["X-Amz-Date"] = date
    request.headers["X-Amz-Security-Token"] = keys["Token"]
    signer = SigV4Auth(Credentials(keys["AccessKeyId"], keys["SecretAccessKey"]), "execute-api", "eu-west-1")
    signer._inject_signature_to_request(  # type: ignore[attr-defined]  # the stubs name what is public alone
        request, signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    )
    return str(request.headers["Authorization"])


class TestASignature:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
    @given(
        st.from_regex(r"(/[A-Za-z0-9._~:@%+=-]{1,12}){1,4}", fullmatch=True).filter(lambda path: "/." not in path),
        st.binary(max_size=50),
        st.text("ABCabc019+/=", min_size=1, max_size=50),
    )
    def test_is_the_one_that_botocore_makes(self, agent: ModuleType, path: str, body: bytes, secret: str) -> None:
        keys = CREDENTIALS | {"SecretAccessKey": secret}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agent, "REGION", "eu-west-1")
            patch.setattr(agent, "get_credentials", lambda: keys)
            url = f"https://a1b2c3.execute-api.eu-west-1.amazonaws.com{path}"
            assert agent.sign(url, body, NOW)["authorization"] == signed_by_botocore(url, body, keys)


class TestTheUsersOwnCredentials:
    """ec2-user may have an AWS configuration for other work: nothing of the agent's is done with it."""

    def test_sign_no_request_and_their_process_is_not_run(
        self, notebook: NotebookHost, stack: Stack, tmp_path: Path
    ) -> None:
        stack.reply = make_reply("bastion")
        notebook.start()
        notebook.wait_connected()
        notebook.stop()
        notebook.boot()
        started = tmp_path / "started"
        process = f"credential_process = touch '{started}'\nendpoint_url = http://127.0.0.1:{free_port()}\n"
        keys = "[Credentials]\naws_access_key_id = another\naws_secret_access_key = identity\n"
        for name, text in (("config", f"[default]\n{process}"), ("credentials", f"[default]\n{process}")):
            (notebook.home / ".aws").mkdir(exist_ok=True)
            (notebook.home / ".aws" / name).write_text(text)
        (notebook.home / ".boto").write_text(keys)
        notebook.environment["AWS_PROFILE"] = "default"
        stack.status, stack.tags = 503, {f"other-{number}": "" for number in range(50)} | {"ssh": "off"}
        notebook.start()
        wait_until(lambda: stack.signed_tags or started.exists(), "the tags are read", notebook)
        wait_until(lambda: "is off" in notebook.instructions.read_text(), "off by the tag on the second page", notebook)
        assert stack.signed_tags == [True, True]
        assert not started.exists()


class TestCredentials:
    def test_are_those_of_the_containers_address(self, agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fixed address of ECS's task metadata, of which the environment names the path."""
        requested = []

        def fetch(url: str, headers: dict[str, str]) -> tuple[int, str, None]:
            requested.append(url)
            return 200, "{}", None

        monkeypatch.setattr(agent, "fetch", fetch)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1")
        agent.get_credentials()
        assert requested == ["http://169.254.170.2/v2/credentials/1"]

    def test_are_otherwise_the_first_roles(self, agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_address() + "/")
        assert {name: agent.get_credentials()[name] for name in CREDENTIALS} == CREDENTIALS


class TestAReport:
    def test_needs_no_library_but_the_standard_one(self, notebook: NotebookHost, stack: Stack, tmp_path: Path) -> None:
        """A Python without botocore, with which the agent could say nothing before."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=LIMIT_S)
        python = str(tmp_path / "bare/bin/python")
        missing = subprocess.run([python, "-c", "import botocore"], capture_output=True, timeout=LIMIT_S)
        assert missing.returncode == 1
        stack.reply = make_reply("ngrok")
        notebook.start(python)
        notebook.wait_connected()

    def test_without_credentials_is_logged_and_retried(self, notebook: NotebookHost, stack: Stack) -> None:
        notebook.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        notebook.start()
        wait_until(lambda: notebook.logs().count("no reply: (0, ") > 1, "the reason is logged", notebook)
        assert "Connection refused" in notebook.logs()

    def test_follows_no_redirect(self, agent: ModuleType) -> None:
        """A redirect could lead the report, and its signature, to another server."""
        with Redirecting() as server:
            for code in (301, 302, 303, 307, 308):
                server.code = code
                status, text, _ = agent.fetch(f"{server.url}/report", {}, b"{}")
                assert (status, text) == (code, "moved")
            assert server.requests == ["/report"] * 5

    def test_reads_a_response_to_a_limit(self, agent: ModuleType) -> None:
        with Redirecting() as server:
            server.code, server.content = 200, b"x" * (1 << 21)
            assert len(agent.fetch(server.url)[1]) == 1 << 20

    def test_that_takes_too_long_is_aborted(self, agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """Single bytes keep a connection alive without end; the process that sends the report has a time limit."""
        child = SlowChild()
        monkeypatch.setattr(agent, "spawn", lambda *_: child)
        result = agent.StackClient().run_helper("agent.py", "send-report", {})
        assert (result["status"], "TimeoutExpired" in result["text"], child.killed) == (0, True, True)


class SlowChild:
    """A report sender that does not end in time, with the interface of Popen."""

    killed = False

    def communicate(self, request: bytes, timeout: float) -> tuple[bytes, bytes]:
        raise subprocess.TimeoutExpired("agent.py", timeout)

    def kill(self) -> None:
        self.killed = True

    def __enter__(self) -> SlowChild:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left of it."""


class Redirecting(Server):
    """A server that redirects to another address of its own. requests: the paths requested."""

    def __init__(self) -> None:
        self.code, self.content, self.requests = 302, b"moved", list[str]()
        super().__init__()

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.requests.append(path)
        return self.code, self.content
