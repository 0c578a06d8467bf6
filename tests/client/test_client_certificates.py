"""Logging in by a certificate that the client obtains unasked: real ssh and sshd, and a stack that signs."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.laptop import (
    REGION,
    Authority,
    FakeApi,
    Laptop,
    Sshd,
    create_host_key,
    notebook_json,
    wait_until,
)

from notebook_ssh_client import (
    certificate,
    certificate_store,
    name_list,
    settings,
    ssh_config,
    ssh_files,
    user_certificate,
)
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_config import ClientCommand

ME = getpass.getuser()
NAME = "My-Notebook"
HOST = "my-notebook.notebook"
ROUTE = f"/notebooks/{NAME}/certificate"
DENIED = {
    "message": "User: arn:aws:iam::1:user/ana is not authorized to perform: execute-api:Invoke with an explicit deny"
}


@pytest.fixture
def notebook(laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd], tmp_path: Path) -> Sshd:
    """A notebook that admits certificates alone; `setup` has been run on the laptop, whose user has no key there."""
    server = sshd()
    api.authority = Authority(tmp_path / "authority")
    (server.folder / "authorized_keys").write_text(api.authority.line(NAME))
    api.notebooks["my-notebook"] = server.notebook_json(NAME)
    laptop.setup(api)
    return server


@pytest.fixture
def here(
    laptop: Laptop,
    api: FakeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[], tuple[int, str]]:
    """A function that obtains a certificate in this process: its exit code, and what it prints."""
    api.authority = Authority(tmp_path / "authority")
    api.notebooks["my-notebook"] = notebook_json(NAME)
    home = str(laptop.home)
    for name, value in laptop.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")  # the user has other keys
    settings.add_stack(home, settings.Stack("team", "team", REGION, api.url), str(laptop.config))
    name_list.refresh_names(home)

    def run() -> tuple[int, str]:
        code = certificate.obtain(home, HOST)
        return code, capsys.readouterr().err

    return run


def log_in(laptop: Laptop, host: str = NAME, *options: str) -> subprocess.CompletedProcess[str]:
    return laptop.run("ssh", *options, f"{ME}@{host}", "echo", "in")


def admit_own_key(laptop: Laptop, server: Sshd) -> None:
    with (server.folder / "authorized_keys").open("a") as file:
        file.write(laptop.key.with_suffix(".pub").read_text())


def age(laptop: Laptop, seconds: int) -> None:
    """Make the refusal older by `seconds`."""
    path = laptop.home / "certificates" / f"{HOST}.refused"
    path.write_text(
        re.sub(
            r"(?<=^at )\S+|(?<=^until )\S+", lambda found: str(float(found[0]) - seconds), path.read_text(), flags=re.M
        )
    )


@pytest.mark.parametrize("name", ["my-notebook", "MY-NOTEBOOK.team.notebook"])
def test_someone_without_a_key_on_the_notebook_logs_in_by_name(laptop: Laptop, notebook: Sshd, name: str) -> None:
    done = log_in(laptop, name)
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "", 0)


def test_a_good_certificate_needs_no_request_and_no_other_files(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    for _ in range(3):
        assert log_in(laptop).returncode == 0
    assert api.request_count(ROUTE) == 1
    (laptop.home / "settings.json").unlink()
    assert laptop.run_client("certificate", HOST).returncode == 0


def test_the_key_is_made_once_and_private(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    key = laptop.home / "id_ecdsa"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert "256" in laptop.run("ssh-keygen", "-l", "-f", key).stdout
    assert "(ECDSA)" in laptop.run("ssh-keygen", "-l", "-f", key).stdout
    log_in(laptop)
    (asked,) = (json.loads(body) for body in api.bodies if body)
    assert asked == {"public_key": key.with_suffix(".pub").read_text().strip()}
    laptop.setup(api)
    assert key.read_bytes() == before


def test_a_certificate_near_its_end_is_renewed(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    assert api.authority
    api.authority.seconds = 9  # a sixth of its 69 seconds is 11
    assert log_in(laptop).returncode == 0
    api.authority.seconds = 3600
    assert log_in(laptop).returncode == 0
    assert log_in(laptop).returncode == 0
    assert api.request_count(ROUTE) == 2


def test_a_certificate_that_the_notebook_no_longer_admits_is_renewed_at_the_second_try(
    laptop: Laptop, api: FakeApi, notebook: Sshd
) -> None:
    """As after a withdrawal, or when a notebook was made again under its name. Its own times still say that it is good."""
    assert api.authority
    assert log_in(laptop).returncode == 0
    assert log_in(laptop).returncode == 0
    assert api.request_count(ROUTE) == 1, "it is new: short commands renew nothing"
    certificate = laptop.home / "certificates" / f"{HOST}-cert.pub"
    os.utime(certificate, (time.time() - 301,) * 2)
    api.authority.principal = "team/{}/2"
    (notebook.folder / "authorized_keys").write_text(api.authority.line(NAME))
    assert log_in(laptop).returncode == 255
    for _ in range(3):
        assert log_in(laptop).stdout == "in\n"
    assert api.request_count(ROUTE) == 2


def test_a_certificate_with_which_a_session_lasts_is_not_doubted(tmp_path: Path) -> None:
    home = str(tmp_path)
    path = Path(certificate_store.certificate_path(home, HOST))
    assert not certificate_store.doubt(home, HOST), "there is none"
    path.parent.mkdir()
    path.write_text("")
    assert not certificate_store.doubt(home, HOST), "it is new"
    os.utime(path, (time.time() - 301,) * 2)
    assert certificate_store.doubt(home, HOST)
    assert certificate_store.is_doubted(home, HOST)
    certificate_store.believe(home, HOST)
    assert not certificate_store.is_doubted(home, HOST)


def test_a_certificate_that_cannot_be_renewed_is_used_to_its_end(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    assert api.authority
    api.authority.seconds = 30
    laptop.run_client("certificate", HOST)
    api.authority.seconds = 9
    path = laptop.home / "certificates" / f"{HOST}-cert.pub"
    path.write_text(api.authority.sign((laptop.home / "id_ecdsa.pub").read_text().strip(), NAME) + "\n")
    api.queued_responses.append((403, DENIED))
    done = laptop.run_client("certificate", HOST)
    assert (done.returncode, "may not log in" in done.stderr) == (0, True), done.stderr


def test_who_is_refused_gets_a_sentence_and_goes_on_with_other_keys(
    laptop: Laptop, api: FakeApi, notebook: Sshd
) -> None:
    admit_own_key(laptop, notebook)
    laptop.environment["SSH_AUTH_SOCK"] = "/nowhere"  # there are other keys: one sentence is enough
    api.queued_responses.append((403, DENIED))
    done = log_in(laptop)
    assert (done.stdout, done.returncode) == ("in\n", 0)
    assert done.stderr == (
        "notebook-ssh: no certificate for my-notebook.notebook: your AWS identity may not log in to my-notebook.notebook: the "
        "admin of stack team adds it to LoginPrincipals and to a policy that names the notebook. ssh goes on with your "
        "other keys\n"
    )
    again = log_in(laptop)
    assert (again.stdout, again.stderr) == ("in\n", "")
    assert api.request_count(ROUTE) == 1, "the refusal is remembered"
    age(laptop, 901)
    assert log_in(laptop).returncode == 0
    assert api.request_count(ROUTE) == 2, "for a bounded time"


def test_who_has_no_other_key_is_told_each_time(laptop: Laptop, api: FakeApi, notebook: Sshd, tmp_path: Path) -> None:
    api.queued_responses.append((403, DENIED))
    for _ in range(2):
        done = laptop.run(*in_an_empty_home(laptop, tmp_path))
        assert (done.returncode, done.stderr.count("may not log in")) == (1, 1)
    assert api.request_count(ROUTE) == 1


def in_an_empty_home(laptop: Laptop, tmp_path: Path) -> list[str]:
    """The command `certificate`, where this user's .ssh is an empty folder."""
    program = (
        "import sys; from notebook_ssh_client import certificate, files; "
        f"files.ssh_dir = lambda: {str(tmp_path / 'no-ssh')!r}; "
        f"sys.exit(certificate.main(['{HOST}'], {str(laptop.home)!r}))"
    )
    return [str(laptop.python), "-I", "-c", program]


@pytest.mark.parametrize("change", ["keys in the environment", "a login that wrote a file", "doctor"])
def test_a_refusal_is_forgotten_when_the_identity_may_be_another(
    laptop: Laptop,
    api: FakeApi,
    here: Callable[[], tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    api.queued_responses.append((403, DENIED))
    assert here()[0] == 1
    assert here() == (1, "")
    if change == "keys in the environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    elif change == "doctor":
        laptop.run_client("doctor", NAME)
    else:
        (laptop.folder / ".aws/sso/cache").mkdir(parents=True)
        (laptop.folder / ".aws/sso/cache/token.json").write_text("{}")
    assert here() == (0, "")
    assert api.request_count(ROUTE) == 2


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (403, {"error": "not-a-principal", "message": "Assume a role."}, "your AWS identity: Assume a role. ssh"),
        (403, {"message": "The security token included in the request is expired"}, "credentials have expired"),
        (404, {"error": "unknown-notebook", "message": "No notebook."}, ""),
        (409, {"error": "off", "message": "SSH is off."}, ""),
        (409, {"error": "unknown-age", "message": "Try again in a minute."}, "Try again in a minute. ssh"),
        (403, {"message": "Missing Authentication Token"}, ""),
        (503, {"error": "signing-key-unavailable", "message": "An admin."}, "status 503"),
        (201, {"certificate": "ssh-ed25519 AAAA"}, "returned cannot be used"),
        (201, {"certificate": None}, "returned cannot be used"),
        (201, [], "returned cannot be used"),
        (201, {"certificate": "\x1b[2J"}, "returned cannot be used"),
    ],
)
def test_each_refusal_falls_back_and_is_remembered(
    laptop: Laptop, api: FakeApi, here: Callable[[], tuple[int, str]], status: int, body: Any, sentence: str
) -> None:
    api.queued_responses.append((status, body))
    code, told = here()
    assert (code, told.count("\n")) == (1, 1 if sentence else 0), told
    assert sentence in told
    assert here() == (1, "")
    assert api.request_count(ROUTE) == 1
    assert not list((laptop.home / "certificates").glob("*-cert.pub"))


def test_a_certificate_for_another_key_is_not_used(
    api: FakeApi, here: Callable[[], tuple[int, str]], tmp_path: Path
) -> None:
    assert api.authority
    other = create_host_key(tmp_path / "other", "ecdsa")
    api.queued_responses.append((201, {"certificate": api.authority.sign(other, NAME)}))
    code, told = here()
    assert (code, "it is for another key" in told) == (1, True), told


def test_a_key_that_others_can_read_is_not_used(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    key = laptop.home / "id_ecdsa"
    key.chmod(0o644)
    done = laptop.run_client("certificate", HOST)
    assert (done.returncode, f"run: chmod 600 '{key}'" in done.stderr) == (1, True)
    assert api.request_count(ROUTE) == 0
    doctor = laptop.run_client("doctor", NAME)
    assert re.search(r"  failed   certificate +other users can read your private key", doctor.stdout), doctor.stdout


def test_a_folder_that_others_can_write_is_refused(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    assert laptop.run_client("certificate", HOST).returncode == 0
    (laptop.home / "certificates").chmod(0o777)
    done = laptop.run_client("certificate", HOST)
    assert (done.returncode, "other users can change the files" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["../../x", "a b.notebook", "-a.notebook", "a$(touch x).notebook", "x" * 70])
def test_a_hostile_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(CliError, match="not a valid notebook name"):
        certificate.main([name], str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_no_name_reaches_the_shell(laptop: Laptop, notebook: Sshd) -> None:
    """OpenSSH 9.6 refuses such names by itself; an older one would put them into the command."""
    text = (laptop.home / "certificates.conf").read_text()
    assert re.search(r"""^Match host "\*\.notebook,!\*'\*" exec "[^"]* certificate '%h'"$""", text, re.M), text
    for name in ("$(touch${IFS}owned)", "`touch${IFS}owned`", "';touch${IFS}owned;'", "x|touch${IFS}owned"):
        assert laptop.run("ssh", f"{name}.notebook", "true").returncode == 255
    assert not list(laptop.folder.rglob("owned"))


def test_no_other_host_starts_a_process(laptop: Laptop, notebook: Sshd, tmp_path: Path) -> None:
    conf = laptop.home / "certificates.conf"
    conf.write_text(re.sub(r'exec "', f'exec "touch {tmp_path}/ran; ', conf.read_text()))
    laptop.run("ssh", "-G", "example.com")
    assert not (tmp_path / "ran").exists()
    laptop.run("ssh", "-G", HOST)
    assert (tmp_path / "ran").exists()


# ---- the user's own keys -------------------------------------------------------------------------


def test_a_key_in_the_users_agent_works_beside_it(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    """The notebook refuses the certificate, which is good here: as after a notebook was made again."""
    laptop.config.write_text(re.sub("Identit.*\n", "", laptop.config.read_text()))
    admit_own_key(laptop, notebook)
    (notebook.folder / "authorized_keys").write_text(laptop.key.with_suffix(".pub").read_text())
    started = laptop.run("ssh-agent", "-s").stdout
    laptop.environment.update(dict(re.findall(r"(SSH_\w+)=([^;]+);", started)))
    try:
        laptop.run("ssh-add", "-q", laptop.key)
        done = log_in(laptop, NAME, "-v", "-o", "AddKeysToAgent=yes")
        assert (done.stdout, done.returncode) == ("in\n", 0), done.stderr
        offered = re.findall(r"Offering public key: .* ([A-Z0-9-]+) SHA256", done.stderr)
        assert offered[:2] == ["ECDSA-CERT", "ED25519"], done.stderr
        assert laptop.run("ssh-add", "-L").stdout.count("\n") == 1, "nothing was added to the agent"
    finally:
        laptop.run("ssh-agent", "-k")


def test_the_users_identity_files_are_still_tried(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    (notebook.folder / "authorized_keys").write_text(laptop.key.with_suffix(".pub").read_text())
    assert log_in(laptop).stdout == "in\n"
    files = re.findall(r"^identityfile (.*)$", laptop.run("ssh", "-G", NAME).stdout, re.M)
    assert files[0].endswith("/id_ecdsa")
    assert files[-1] == str(laptop.key)


def test_keys_with_their_usual_names_are_still_offered(tmp_path: Path) -> None:
    for name in ("id_ed25519", "id_ed25519_sk", "id_ed25519.pub", "work"):
        (tmp_path / name).write_text("")
    command = ClientCommand("/p", None, True, "hosts", "known", "~/c.conf", "~/c/id_ecdsa", "~/c/certificates")
    text = ssh_config.certificates_file(command, ["a.notebook"], "check", ssh_files.default_keys(str(tmp_path)))
    lines = re.findall(r"IdentityFile (.*)", text)
    assert lines == ["~/c/id_ecdsa", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk"]


def test_options_of_the_user_for_all_hosts_do_not_hinder_it(laptop: Laptop, notebook: Sshd) -> None:
    """IdentitiesOnly, and identity files that are not there: the laptop's ssh_config has the first."""
    laptop.config.write_text(f"{laptop.config.read_text()}Host *\n  IdentityFile ~/.ssh/no-such-key\n")
    assert "IdentitiesOnly yes" in laptop.config.read_text()
    assert log_in(laptop).stdout == "in\n"


# ---- setup ---------------------------------------------------------------------------------------


def test_a_stack_without_certificates_changes_nothing(laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd]) -> None:
    api.notebooks["my-notebook"] = sshd().notebook_json(NAME)
    laptop.setup(api)
    assert "certificate" not in (laptop.home / "hosts").read_text()
    assert {path.name for path in laptop.home.iterdir()} & {"id_ecdsa", "certificates.conf", "certificates"} == set()


def test_a_stack_that_gets_or_loses_certificates_is_noticed_by_list(
    laptop: Laptop, api: FakeApi, notebook: Sshd
) -> None:
    hosts = laptop.home / "hosts"
    authority, api.authority = api.authority, None
    laptop.run_client("list")
    assert "Include" not in hosts.read_text()
    assert not (laptop.home / "certificates.conf").exists()
    api.authority = authority
    laptop.run_client("list")
    assert hosts.read_text().endswith('/certificates.conf"\n')
    assert log_in(laptop).stdout == "in\n"


def test_remove_removes_key_and_certificates(laptop: Laptop, notebook: Sshd) -> None:
    before = laptop.config.read_bytes().split(b"\n", 3)[3]
    assert log_in(laptop).returncode == 0
    assert laptop.run_client("setup", "--remove").returncode == 0
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


def test_two_stacks_of_which_one_has_certificates(
    laptop: Laptop, api: FakeApi, other_api: FakeApi, notebook: Sshd, sshd: Callable[..., Sshd]
) -> None:
    other = sshd()
    other_api.notebooks["other"] = other.notebook_json("other")
    laptop.setup(other_api, "two")
    assert log_in(laptop).stdout == "in\n"
    assert log_in(laptop, "other").stdout == "in\n"  # the laptop's own key is there
    assert other_api.request_count("/notebooks/other/certificate") == 0
    assert re.search(
        r"""^Match host "\*\.notebook,!\*'\*,!\*\.two\.notebook" exec """,
        (laptop.home / "certificates.conf").read_text(),
        re.M,
    )


@pytest.mark.parametrize("refused", ["certificatefile", "knownhostscommand", "exec"])
def test_an_openssh_that_refuses_the_files(laptop: Laptop, api: FakeApi, tmp_path: Path, refused: str) -> None:
    """Of what an older one does not know, certificates are left out; anything else leaves the old state."""
    api.authority = Authority(tmp_path / "authority")
    api.notebooks["demo"] = {
        "name": "demo",
        "modes": [],
        "status": "off",
        "address": None,
        "since": None,
        "last_used": None,
    }
    old = tmp_path / "old"
    old.mkdir()
    ssh = old / "ssh"
    ssh.write_text(
        f"""#!/bin/sh
for word; do
    case $word in */hosts) if cat "$word" "${{word%/*}}/certificates.conf" 2>/dev/null | grep -qi '{refused}'; then
        echo "$word: line 2: Bad configuration option: {refused}" >&2; exit 255; fi;;
    esac
done
exec {laptop.run("which", "ssh").stdout.strip()} "$@"
"""
    )
    ssh.chmod(0o755)
    laptop.environment["PATH"] = f"{old}:{laptop.environment['PATH']}"
    before = laptop.config.read_bytes()
    done = laptop.run_client(
        "setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", "eu-west-1", "--api", api.url
    )
    if refused == "knownhostscommand":
        assert (done.returncode, laptop.config.read_bytes()) == (1, before)
        assert f"{ssh} refuses the configuration for notebooks" in done.stderr
        assert "Bad configuration option: knownhostscommand); nothing was changed" in done.stderr
        assert not (laptop.home / "hosts").exists()
        assert not (laptop.home / "settings.json").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert "was not seen to obtain them" in done.stderr
        assert not (laptop.home / "certificates.conf").exists()
        assert "Include" not in (laptop.home / "hosts").read_text()


def test_an_ssh_that_could_not_be_run_is_tried_again_and_no_other(
    laptop: Laptop, notebook: Sshd, tmp_path: Path
) -> None:
    """A second `ssh` on PATH. What one was seen to do is kept, whatever PATH is."""
    other = tmp_path / "other"
    other.mkdir()
    counted = tmp_path / "counted"
    (other / "ssh").write_text(
        f'#!/bin/sh\necho x >> {counted}\nexec {laptop.run("which", "ssh").stdout.strip()} "$@"\n'
    )
    usual = laptop.environment["PATH"]
    laptop.environment["PATH"] = f"{other}:{usual}"
    for mode, is_there in ((0o644, False), (0o755, True)):
        (other / "ssh").chmod(mode)
        laptop.run_client("list")
        assert (laptop.home / "certificates.conf").exists() is is_there
    runs = counted.read_text().count("x")
    for path in (usual, f"{other}:{usual}"):
        laptop.environment["PATH"] = path
        laptop.run_client("list")
    assert counted.read_text().count("x") - runs <= 1, "its version, which is kept for one PATH alone"
    works = json.loads((laptop.home / "ssh_certificates.json").read_text())["works"]
    assert set(works.values()) == {True}
    (laptop.home / "ssh_certificates.json").write_text("damaged")
    laptop.run_client("list")
    assert json.loads((laptop.home / "ssh_certificates.json").read_text())["works"] == works


def test_a_refresh_starts_no_process(laptop: Laptop, notebook: Sshd, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "def refuse(*given, **_): raise SystemExit(f'a process was started: {given}')\n"
        "subprocess.run = subprocess.Popen = refuse\n"
        "from notebook_ssh_client import name_list\n"
        "name_list.refresh_names(sys.argv[1])\n"
    )
    before = (laptop.home / "certificates.conf").read_text()
    done = laptop.run(laptop.python, "-I", "-c", program, laptop.home)
    assert (done.returncode, done.stderr) == (0, "")
    assert (laptop.home / "certificates.conf").read_text() == before


# ---- doctor --------------------------------------------------------------------------------------


def certificate_line(laptop: Laptop) -> str:
    (line,) = re.findall(r"^  \w+ +certificate .*(?:\n {6,}.*)*", laptop.run_client("doctor", NAME).stdout, re.M)
    return " ".join(line.split())


def test_doctor_tells_what_this_machine_has(laptop: Laptop, api: FakeApi, notebook: Sshd) -> None:
    assert (
        certificate_line(laptop)
        == "waiting certificate the client's key is there, and the next ssh asks for a certificate"
    )
    log_in(laptop)
    assert re.fullmatch(
        r"ok certificate a certificate for arn:aws:iam::111122223333:user/mario AIDA1 until \S+Z, serial 7",
        certificate_line(laptop),
    )
    path = laptop.home / "certificates" / f"{HOST}-cert.pub"
    path.unlink()
    api.queued_responses.append((403, DENIED))
    log_in(laptop)
    told = certificate_line(laptop)
    assert told.startswith(
        "failed certificate your AWS identity may not log in to my-notebook.notebook: the admin of stack team"
    )
    assert told.endswith("→ the next ssh asks again; until it gets one, ssh uses your own keys")
    (laptop.home / "certificates.conf").unlink()
    assert "was not seen to obtain certificates" in certificate_line(laptop)


# ---- time ----------------------------------------------------------------------------------------


def test_an_api_that_does_not_answer_delays_one_connection(
    laptop: Laptop, api: FakeApi, notebook: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit_own_key(laptop, notebook)
    laptop.run("ssh", "-o", "CertificateFile=none", f"{ME}@{NAME}", "true")  # the address is cached
    certificate_store.clear(str(laptop.home))
    laptop.environment["AWS_ENDPOINT_URL_EXECUTE_API"] = "http://127.0.0.1:9"
    laptop.environment["SSH_AUTH_SOCK"] = "/nowhere"
    first = log_in(laptop)
    assert (first.stdout, "cannot reach the API" in first.stderr) == ("in\n", True), first.stderr
    second = log_in(laptop)
    assert (second.stdout, second.stderr) == ("in\n", "")


def test_a_good_certificate_imports_nothing_that_loads_slowly(laptop: Laptop, notebook: Sshd) -> None:
    assert laptop.run_client("certificate", HOST).returncode == 0
    program = (
        "import sys; before = set(sys.modules); from notebook_ssh_client import __main__; "
        f"sys.argv = ['x', '--home', {str(laptop.home)!r}, 'certificate', {HOST!r}]; "
        "code = __main__.main(); print(code, *sorted(set(sys.modules) - before))"
    )
    code, *modules = laptop.run(laptop.python, "-I", "-c", program).stdout.split()
    assert code == "0"
    slow = {"botocore", "json", "re", "dataclasses", "subprocess", "socket", "threading", "typing", "pathlib"}
    assert not slow & set(modules)
    assert f"{user_certificate.__name__}" in modules


@pytest.mark.parametrize(("ahead", "told"), [(9000, "2 h ahead of"), (-9000, "2 h behind")])
def test_a_laptop_with_a_wrong_clock_is_told_and_goes_on_with_other_keys(
    laptop: Laptop, api: FakeApi, notebook: Sshd, ahead: int, told: str
) -> None:
    """By such a clock a certificate of an hour is over, or is from the future: the stack is asked, and AWS refuses."""
    assert log_in(laptop).returncode == 0
    admit_own_key(laptop, notebook)
    laptop.environment |= {"CLOCK_AHEAD": str(ahead), "SSH_AUTH_SOCK": "/nowhere"}
    api.queued_responses.append((403, {"message": "Signature expired"}))
    done = log_in(laptop)
    assert (done.stdout, done.returncode) == ("in\n", 0), done.stderr
    assert f"no certificate for {HOST}: the clock of this machine is {told} AWS's" in done.stderr


def test_a_stolen_laptop_opens_a_notebook_until_the_certificate_ends(
    laptop: Laptop, api: FakeApi, notebook: Sshd
) -> None:
    """The thief has every file, but no AWS session; sshd's clock counts."""
    assert api.authority
    api.authority.seconds = 6
    assert log_in(laptop).returncode == 0
    requests = api.request_count(ROUTE)
    for name in list(laptop.environment):
        if name.startswith("AWS_"):
            del laptop.environment[name]
    laptop.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    stolen = laptop.home / "certificates" / f"{HOST}-cert.pub"
    (laptop.folder / "known").write_text(f"[127.0.0.1]:{notebook.port} {notebook.host_key}\n")
    by_hand: list[str | Path] = [
        "ssh",
        "-F",
        "none",
        "-i",
        laptop.home / "id_ecdsa",
        "-o",
        f'UserKnownHostsFile="{laptop.folder}/known"',
    ]
    by_hand += ["-o", f'CertificateFile="{stolen}"', "-p", str(notebook.port), f"{ME}@127.0.0.1", "true"]
    wait_until(lambda: laptop.run(*by_hand).returncode == 255)
    assert "Certificate invalid: expired" in (notebook.folder / "log").read_text()
    assert log_in(laptop).returncode == 255
    assert api.request_count(ROUTE) == requests


def test_the_clock_of_the_laptop() -> None:
    """The certificate's own end counts; a clock that is behind, as far as the stack accepts its requests, is no reason to ask."""
    one = user_certificate.UserCertificate("", "", ("p",), 1, 1000, 4660)
    told = {
        seconds: (one.is_good(seconds), one.is_valid(seconds)) for seconds in (699, 700, 1000, 4359, 4360, 4659, 4660)
    }
    assert told == {
        699: (False, False),
        700: (True, True),
        1000: (True, True),
        4359: (True, True),
        4360: (False, True),
        4659: (False, True),
        4660: (False, False),
    }
