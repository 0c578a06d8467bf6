"""Messages that arrive: on the terminal when ssh discards them, in the log, and never a question to ssh's own input."""

from __future__ import annotations

import getpass
import re
import shlex
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.laptop import notebook_json, wait_until
from support.terminals import run_on_terminal

from notebook_ssh_client import messages, transport
from notebook_ssh_client.messages import Messenger
from notebook_ssh_client.ssh_address import SshAddress
from notebook_ssh_client.transport import unreachable_message

pytestmark = pytest.mark.posix
ME = getpass.getuser()
REASON = "notebook-ssh: demo is stopped. Do the next thing."


@pytest.fixture
def stopped(laptop: Any, api: Any) -> Any:
    """A laptop with a notebook that is stopped and that the client may not start."""
    api.notebooks["demo"] = notebook_json("demo", "stopped")
    laptop.setup(api)
    return laptop


@pytest.fixture
def persisting() -> Iterator[list[str]]:
    """An ssh with the options that make it discard the messages of its ProxyCommand."""
    # A short path: a socket's path may have about 100 characters only.
    with tempfile.TemporaryDirectory() as folder:
        options = ("ControlMaster=auto", f"ControlPath={folder}/%C", "ControlPersist=60")
        yield ["ssh", *(word for option in options for word in ("-o", option)), f"{ME}@demo", "true"]


# ---- the terminal --------------------------------------------------------------------------------


def test_reason_is_shown_although_controlpersist_discards_it(stopped: Any, persisting: list[str]) -> None:
    code, shown = run_on_terminal(persisting, stopped.environment)
    assert code == 255
    assert shown.count(REASON) == 1


def test_reason_is_shown_once_without_controlpersist(stopped: Any) -> None:
    _, shown = run_on_terminal(["ssh", f"{ME}@demo", "true"], stopped.environment)
    assert shown.count(REASON) == 1


def test_nothing_is_shown_where_the_user_discards_it(stopped: Any, persisting: list[str]) -> None:
    command = shlex.join(persisting)
    code, shown = run_on_terminal(["sh", "-c", f"{command} 2>/dev/null; exit $?"], stopped.environment)
    assert (code, shown) == (255, "")


def test_nothing_is_shown_on_a_terminal_in_raw_mode(stopped: Any, persisting: list[str]) -> None:
    code, shown = run_on_terminal(persisting, stopped.environment, raw=True)
    assert code == 255
    assert REASON not in shown


def test_nothing_is_shown_by_a_background_job(stopped: Any, persisting: list[str]) -> None:
    command = shlex.join(persisting)
    _, shown = run_on_terminal(["sh", "-c", f"set -m; {command} & wait; echo over"], stopped.environment)
    assert "over" in shown
    assert REASON not in shown


@pytest.mark.parametrize(("elapsed", "shown_at_once"), [(0.0, False), (2.0, True)])
def test_waiting_is_shown_after_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elapsed: float, shown_at_once: bool
) -> None:
    shown: list[str] = []
    now = [100.0]
    monkeypatch.setattr(messages, "_show_on_terminal", shown.append)
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime, gmtime=time.gmtime)
    monkeypatch.setattr(messages, "time", clock)
    monkeypatch.setattr(messages, "TERMINAL_DELAY_S", messages.TERMINAL_DELAY_S if shown_at_once else 0.05)
    messenger = Messenger(str(tmp_path), "demo.notebook")
    now[0] += elapsed
    messenger.waiting("one")
    assert (shown == ["one"]) is shown_at_once
    messenger.waiting("two")
    wait_until(lambda: shown[-1:] == ["two"])


def test_wait_that_is_over_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(messages, "_show_on_terminal", shown.append)
    messenger = Messenger(str(tmp_path), "demo.notebook")
    messenger.waiting("one")
    messenger.connected()
    messenger._show_pending()  # what the timer would do now
    assert shown == []


# ---- the log -------------------------------------------------------------------------------------


def test_doctor_shows_the_last_failure(stopped: Any) -> None:
    assert stopped.run("sh", "-c", f"ssh {ME}@demo true 2>/dev/null").returncode == 255
    shown = stopped.run_client("doctor", "demo").stdout
    assert re.search(
        r"Last failure of ssh here: \S+ \S+ \(\d+ s ago\): demo is stopped\. Do the next", " ".join(shown.split())
    )


def test_log_stays_small_and_private(tmp_path: Path) -> None:
    for number in range(3000):
        messages.append_to_log(str(tmp_path), "demo.notebook", f"message {number} \x1b[2J\n" + "x" * 50)
    log = tmp_path / "log"
    assert log.stat().st_size < 70_000
    assert log.stat().st_mode & 0o777 == 0o600
    kept = messages.logged(str(tmp_path), "demo.notebook")
    assert kept[-1][1].startswith("message 2999 \N{REPLACEMENT CHARACTER}[2J x")
    assert messages.logged(str(tmp_path), "other.notebook") == []


def test_log_is_no_way_into_another_file(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("mine\n")
    (tmp_path / "log").symlink_to(tmp_path / "profile")
    messages.append_to_log(str(tmp_path), "demo.notebook", "message")
    assert (tmp_path / "profile").read_text() == "mine\n"


# ---- no question to ssh's input ------------------------------------------------------------------


class FakeSts(ThreadingHTTPServer):
    """STS, which answers each AssumeRole with `answer`, and keeps what was sent."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.answer = (403, "AccessDenied", "not allowed")
        sts = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sts.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, code, message = sts.answer
                text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


ROLE = (
    "[profile work]\nrole_arn = arn:aws:iam::111122223333:role/data\nsource_profile = base\n{mfa}"
    "[profile base]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
)


@pytest.fixture
def sts(laptop: Any) -> Any:
    server = FakeSts()
    laptop.environment["AWS_ENDPOINT_URL_STS"] = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()


def use_profile(laptop: Any, config: str) -> None:
    """Take the credentials from `config`, and none from the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        laptop.environment.pop(name, None)
    (laptop.folder / ".aws").mkdir(exist_ok=True)
    (laptop.folder / ".aws" / "config").write_text(config)
    laptop.environment["AWS_PROFILE"] = "work"


@pytest.mark.parametrize("command", [["ssh", f"{ME}@demo", "true"], ["ssh", f"{ME}@new.notebook", "true"]])
def test_no_byte_of_ssh_is_taken_for_an_mfa_code(stopped: Any, sts: FakeSts, command: list[str]) -> None:
    use_profile(stopped, ROLE.format(mfa="mfa_serial = arn:aws:iam::111122223333:mfa/ana\n"))
    result = stopped.run(*command)
    assert sts.bodies == []
    assert result.returncode == 255
    assert result.stderr.startswith("notebook-ssh: profile work asks for an MFA code"), result.stderr
    assert "run in a terminal: notebook-ssh list" in result.stderr


def test_input_is_left_to_the_one_that_took_it(laptop: Any) -> None:
    """Also where botocore renames what the client sets, and asks standard input by itself."""
    code = (
        "import os; from notebook_ssh_client import messages; source = messages.take_standard_input(); "
        "print(os.read(0, 9), os.read(source, 9))"
    )
    result = laptop.run(laptop.python, "-I", "-c", code, stdin=None, input="SSH-2.0")
    assert result.stdout == "b'' b'SSH-2.0'\n", result.stderr


def test_mfa_code_is_asked_for_on_a_terminal(stopped: Any, sts: FakeSts) -> None:
    use_profile(stopped, ROLE.format(mfa="mfa_serial = arn:aws:iam::111122223333:mfa/ana\n"))
    run_on_terminal(
        [stopped.python, "-I", "-m", "notebook_ssh_client", "list"],
        stopped.environment,
        typed=lambda shown: "123456\n" if shown.endswith("mfa/ana: ") else "",
    )
    run_on_terminal(
        ["ssh", f"{ME}@demo", "true"],
        stopped.environment,
        typed=lambda shown: "654321\n" if shown.endswith("mfa/ana: ") else "",
    )
    assert ["TokenCode=123456" in sts.bodies[0], "TokenCode=654321" in sts.bodies[-1]] == [True, True]
    assert not stopped.run_client("list").stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_no_traceback_from_a_closed_stream(stopped: Any, sts: FakeSts, closed: str) -> None:
    use_profile(stopped, ROLE.format(mfa="mfa_serial = arn:aws:iam::111122223333:mfa/ana\n"))
    for arguments in (
        "list",
        "address demo",
        "doctor demo",
        "proxy demo.notebook 22",
        "known-hosts demo.notebook AAAA",
    ):
        result = stopped.run("sh", "-c", f'"{stopped.python}" -I -m notebook_ssh_client {arguments} {closed}')
        assert "Traceback" not in result.stderr, result.stderr
        assert "Error" not in result.stderr
        assert result.returncode in (1, 3)


# ---- credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "text"), [(750, "12 min behind"), (-7250, "2 h ahead of")])
def test_wrong_clock_is_called_one(laptop: Any, api: Any, ahead_s: int, text: str) -> None:
    laptop.setup(api)
    api.clock_ahead_s = ahead_s
    api.queued_responses.append((403, {"message": "Signature expired: 20260701T080000Z is now earlier than …"}))
    result = laptop.run_client("list")
    assert (result.returncode, f"clock of this machine is {text}" in result.stderr) == (3, True), result.stderr
    assert "expired" not in result.stderr


SSO = "[profile work]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\nregion = eu-west-1\n" + (
    "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://example.com/start\n"
)
KEYS = "[profile work]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
EXPIRED = (403, {"message": "The security token included in the request is expired"})
INVALID = (403, {"message": "The security token included in the request is invalid."})
REMEDIES: dict[str, tuple[str, Any, str]] = {
    "SSO, no login": (SSO, None, "run: aws sso login --profile work"),
    "SSO of a role's source": (
        f"{ROLE.format(mfa='').partition('[profile base]')[0]}{SSO.replace('profile work', 'profile base')}",
        None,
        "run: aws sso login --profile base",
    ),
    "static keys, invalid": (KEYS, INVALID, "run: aws configure --profile work"),
    "temporary keys, expired": (
        f"{KEYS}aws_session_token = x\n",
        EXPIRED,
        "store new temporary credentials in profile work",
    ),
    "unknown profile": ("[profile home]\n", None, "there are: home"),
    "a role that may not be assumed": (ROLE.format(mfa=""), None, "check role_arn of profile work"),
    "a process": ("[profile work]\ncredential_process = false\n", None, "credential_process of profile work"),
    "none": ("[profile work]\nregion = eu-west-1\n", None, "run: aws configure sso --profile work"),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_each_kind_of_credentials_has_its_remedy(laptop: Any, api: Any, sts: FakeSts, case: str) -> None:
    config, response, remedy = REMEDIES[case]
    laptop.setup(api)
    use_profile(laptop, config)
    if response:
        api.queued_responses.append(response)
    result = laptop.run_client("list")
    assert (result.returncode, remedy in result.stderr) == (3, True), result.stderr
    assert ("aws sso login" in result.stderr) is ("aws sso login" in remedy)
    assert result.stderr.count("\n") == 1


def test_expired_credentials_of_the_environment_have_their_remedy(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    api.queued_responses.append(EXPIRED)
    result = laptop.run_client("list")
    assert "AWS_SESSION_TOKEN in the environment" in result.stderr
    assert "sso" not in result.stderr


# ---- what is said --------------------------------------------------------------------------------


def test_waking_prints_what_happens(laptop: Any, api: Any, sshd: Any) -> None:
    running = sshd().notebook_json("demo")
    api.notebooks["demo"] = notebook_json("demo", "stopped", wake=True, next_step="Start it: aws sagemaker start-…")
    api.on_start = lambda _: api.notebooks.update(demo=running)
    laptop.setup(api)
    result = laptop.run("ssh", f"{ME}@demo", "true")
    assert result.returncode == 0
    assert (
        "notebook-ssh: demo is stopped and is being started. Waiting (0 min 00 s of at most 15 min 00 s)"
        in result.stderr
    )
    assert "aws sagemaker" not in result.stderr


ADDRESS = SshAddress("h.example.com", 17887, ("ssh-ed25519 AAAA",), None, 0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "h.example.com port 17887 refused the connection"),
        (TimeoutError("timed out"), "h.example.com port 17887 did not answer"),
        (OSError(113, "No route to host"), "h.example.com port 17887 cannot be reached (No route to host)"),
        (socket.gaierror(-2, "Name or service not known"), "h.example.com cannot be resolved"),
        (transport.NoBannerError("x"), "h.example.com port 17887 is no SSH server"),
    ],
)
def test_each_network_failure_has_its_words(error: OSError, text: str) -> None:
    assert text in unreachable_message(ADDRESS, error)


def test_stack_with_the_programs_name_is_called_a_stack(laptop: Any, api: Any) -> None:
    laptop.setup(api, "notebook-ssh")
    api.queued_responses.append((400, {"error": "x", "message": "No."}))
    result = laptop.run_client("list")
    assert result.stderr == "notebook-ssh: stack notebook-ssh returned an error: No.\n"


@pytest.mark.parametrize("muted", [False, True])
def test_unknown_bastion_names_the_command(laptop: Any, api: Any, sshd: Any, muted: bool) -> None:
    bastion = sshd()
    api.notebooks["demo"] = sshd().notebook_json("demo", modes=["bastion"], jump=f"{ME}@127.0.0.1:{bastion.port}")
    laptop.config.write_text(f'UserKnownHostsFile "{laptop.folder}/none"\n{laptop.config.read_text()}')
    laptop.setup(api)
    client = [laptop.python, "-I", "-m", "notebook_ssh_client", "proxy", "demo.notebook", "22"]
    if muted:
        laptop.run("sh", "-c", f"{' '.join(map(str, client))} 2>/dev/null")
        (_, message) = messages.logged(str(laptop.home), "demo.notebook")[-1]
    else:
        message = laptop.run(*client).stderr
    assert f"in a terminal: ssh -l {ME} -p {bastion.port} 127.0.0.1" in message, message
    assert "Host key verification failed" in message
