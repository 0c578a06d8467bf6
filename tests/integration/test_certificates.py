"""Logging in with an AWS identity: on the local run, with a KMS that signs, IAM enforced, real curl, ssh and sshd."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.laptop import Laptop, Sshd, create_client_venv, create_laptop, extend_timeouts

import processes
from emulator.process import ACCOUNT, PROJECT, REGION
from environment import CURLED, STACK, LocalEnv

TEAM, OTHER = "Team-Box", "Other-Box"
LOGIN = f"arn:aws:iam::{ACCOUNT}:role/data-science"
AUDIT = f"arn:aws:iam::{ACCOUNT}:role/auditors"


@pytest.fixture(scope="module")
def env() -> Iterator[LocalEnv]:
    """Two notebooks that admit certificates, and no key of anybody."""
    env = LocalEnv(sync_seconds=4)
    try:
        env.start()
        env.make_network()
        env.update(Certificates="true", LoginPrincipals=LOGIN, AccessDays="30", AuditPrincipals=AUDIT)
        env.store_token(env.cloud.token)
        env.move_in()
        for name in (TEAM, OTHER):
            env.create_notebook(name)
            env.tag(name, ssh="ngrok")
        for name in (TEAM, OTHER):
            until(env, "it runs", lambda name=name: env.is_in(name, "InService"))
            env.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
        for name in (TEAM, OTHER):
            until(env, "it has the configuration", lambda name=name: attached(env, name))
            env.sagemaker.start_notebook_instance(NotebookInstanceName=name)
        for name in (TEAM, OTHER):
            until(env, "it is connected", lambda name=name: env.status(name) == "connected")
        yield env
    finally:
        env.close()


def until(env: LocalEnv, what: str, condition: Any) -> None:
    processes.wait_until(what, condition, alive=env.emulator.alive)


def attached(env: LocalEnv, name: str) -> bool:
    found = env.sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    return "NotebookInstanceLifecycleConfigName" in found and found["NotebookInstanceStatus"] == "Stopped"


def allow(*routes: str) -> dict[str, Any]:
    """A policy for these routes of the stack's API."""
    below = [f"arn:aws:execute-api:{REGION}:{ACCOUNT}:*/v1/{route}" for route in routes]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": below}],
    }


@pytest.fixture(scope="module")
def member(env: LocalEnv) -> dict[str, str]:
    """A session of the team that may enter its notebooks, as docs/certificates.md has the policy."""
    return env.make_session("data-science", allow("POST/notebooks/Team-*/certificate"))


def ask(env: LocalEnv, keys: dict[str, str], name: str = TEAM, path: str = "") -> tuple[int, dict[str, Any]]:
    body = json.dumps({"public_key": env.person.public_key, "seconds": 900})
    answer = env.curl(path or f"/notebooks/{name}/certificate", keys, "POST", body)
    return answer.status, json.loads(answer.body)


def log_in(env: LocalEnv, name: str, certificate: str, command: str = "true") -> subprocess.CompletedProcess[str]:
    """Log in with the person's key and a certificate next to it, where ssh looks for one by itself."""
    certificate_file = Path(f"{env.person.identity}-cert.pub")
    certificate_file.write_text(certificate + "\n")
    try:
        env.save_ssh_config(name)
        return env.ssh(name, command)
    finally:
        certificate_file.unlink()


def sshd_log(env: LocalEnv, name: str) -> str:
    logs = [path.read_text(errors="replace") for path in env.emulator.notebook_home(name).rglob("*sshd*.log")]
    return "\n".join(logs)


def test_someone_to_whom_no_key_was_given_logs_in_under_the_own_name(env: LocalEnv, member: dict[str, str]) -> None:
    details = json.loads(env.curl(f"/notebooks/{TEAM}").body)
    assert details["keys"] == {"own": 0, "central": 0, "certificates": True, "rejected": []}
    assert details["problem"] is None, "no key is needed"
    status, body = ask(env, member)
    assert status == 201, body
    done = log_in(env, TEAM, body["certificate"], "echo in")
    assert (done.returncode, done.stdout.strip()) == (0, "in"), done.stderr
    assert "assumed-role/data-science/data-science" in sshd_log(env, TEAM)
    assert log_in(env, TEAM, "").returncode == 255, "the key alone opens nothing"


@pytest.mark.parametrize("shell", [["bash", "-euo", "pipefail"], ["dash", "-eu"], ["zsh", "-feuo", "pipefail"]])
def test_the_commands_of_the_page_end_with_a_login(env: LocalEnv, member: dict[str, str], shell: list[str]) -> None:
    page = (PROJECT / "docs/certificates.md").read_text("utf-8")
    (typed,) = re.findall(r"^```sh\n(post\(\) .*?)^ssh my-notebook$", page, re.MULTILINE | re.DOTALL)
    place = {"API": env.stack.api, "AWS_REGION": REGION, "HOME": str(env.person.home), "PATH": os.environ["PATH"]}
    certificate_file = Path(f"{env.person.identity}-cert.pub")
    try:
        subprocess.run([*shell, "-c", typed.replace("my-notebook", TEAM)], env=place | member, check=True)
        env.save_ssh_config(TEAM)
        assert env.ssh(TEAM, "true").returncode == 0
    finally:
        certificate_file.unlink()


def test_a_certificate_opens_no_other_notebook(env: LocalEnv, member: dict[str, str]) -> None:
    _, body = ask(env, member)
    done = log_in(env, OTHER, body["certificate"])
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
    until(env, "sshd says why", lambda: "does not contain an authorized principal" in sshd_log(env, OTHER))


def test_iam_says_who_and_for_which_notebook(env: LocalEnv, member: dict[str, str]) -> None:
    administrator = env.make_session("administrator", allow("*"))
    notebook = env.session_of(f"arn:aws:iam::{ACCOUNT}:role/notebook", "SageMaker")
    assert env.curl(f"/notebooks/{TEAM}", administrator).status == 200
    for keys, name, why in (
        (administrator, TEAM, "an administrator who is not in LoginPrincipals"),
        (notebook, TEAM, "a notebook's own role"),
        (env.person.keys, TEAM, "a user without a policy"),
        (member, OTHER, "a notebook that the policy does not name"),
    ):
        status, body = ask(env, keys, name)
        assert (status, "certificate" in body) == (403, False), why


@pytest.mark.parametrize(
    "path",
    [
        f"/notebooks/{TEAM.lower()}/certificate",
        f"/notebooks/{TEAM.upper()}/certificate",
        "/notebooks/Team%2DBox/certificate",
        "/notebooks/%54eam-Box/certificate",
        f"/notebooks/{TEAM}/certificate/",
        f"/notebooks/{TEAM}/c%65rtificate",
        f"/notebooks/Team-/../{TEAM}/certificate",
        f"/notebooks//{TEAM}/certificate",
    ],
)
def test_no_other_spelling_gets_past_an_allow_or_a_deny(env: LocalEnv, member: dict[str, str], path: str) -> None:
    """A caller who may enter all notebooks but this one, whose policy names it as SageMaker spells it."""
    denied = allow("POST/*")
    denied["Statement"].append(allow(f"POST/notebooks/{TEAM}/certificate")["Statement"][0] | {"Effect": "Deny"})
    iam = env.emulator.client("iam")
    iam.put_role_policy(RoleName="data-science", PolicyName="given", PolicyDocument=json.dumps(denied))
    try:
        keys = env.session_of(LOGIN, "mario")
        assert ask(env, keys, OTHER)[0] == 201
        status, body = ask(env, keys, path=path)
        assert status in (403, 404, 409), body
        assert "certificate" not in body
    finally:
        given = json.dumps(allow("POST/notebooks/Team-*/certificate"))
        iam.put_role_policy(RoleName="data-science", PolicyName="given", PolicyDocument=given)


ROUTES = ["", "/ssh", "/address", "/ssh-config", "/known-hosts", "/doctor", "/start", "/certificate"]
SPELLINGS = [
    f"/notebooks/{TEAM.lower()}{{}}",
    f"/notebooks/{TEAM.upper()}{{}}",
    "/notebooks/Team%2DBox{}",
    "/notebooks/%54eam-Box{}",
    "/n%6Ftebooks/Team-Box{}",
    f"/notebooks/{TEAM}{{}}/",
    f"/notebooks//{TEAM}{{}}",
    f"/notebooks/Team-/../{TEAM}{{}}",
    f"/notebooks/./{TEAM}{{}}",
]


@pytest.fixture(scope="module")
def all_but_one(env: LocalEnv) -> dict[str, str]:
    """A session that may call every route, but none about one notebook, whose policy names it as SageMaker spells it."""
    policy = allow("*")
    policy["Statement"].append(
        allow(f"*/notebooks/{TEAM}", f"*/notebooks/{TEAM}/*")["Statement"][0] | {"Effect": "Deny"}
    )
    return env.make_session("all-but-one", policy)


@pytest.mark.parametrize("end", ROUTES)
def test_no_other_spelling_gets_past_a_deny_on_any_route(env: LocalEnv, all_but_one: dict[str, str], end: str) -> None:
    method = "POST" if end in ("/start", "/certificate") else "GET"
    of_another = env.curl(f"/notebooks/{OTHER}{end}", all_but_one, method)
    assert of_another.status in ((200,) if method == "GET" else (403, 409)), of_another.body
    address = json.loads(env.curl(f"/notebooks/{TEAM}").body)["address"]
    for path in (f"/notebooks/{TEAM}{{}}", *SPELLINGS):
        told = env.curl(path.format(end), all_but_one, method)
        assert told.status in (400, 403, 404, 409), (path, told.body)
        assert address.rpartition(":")[2] not in told.body, path


# ---- with the client -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend_timeouts(create_client_venv(tmp_path_factory.mktemp("client-environment")))


def make_laptop(env: LocalEnv, python: Path, folder: Path, keys: dict[str, str]) -> Laptop:
    """A laptop with an SSH key that no notebook knows, on which `setup` has been run."""
    variables = {"AWS_REGION": REGION, "AWS_ENDPOINT_URL_EXECUTE_API": env.stack.api, "SSH_AUTH_SOCK": "/nowhere"}
    folder.mkdir()
    laptop = create_laptop(folder, python, variables | keys)
    laptop.config.write_text(f'IdentityFile "{laptop.key}"\n')
    api = env.stack.outputs["ApiUrl"]
    done = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--stack", STACK, "--api", api)
    assert done.returncode == 0, done.stderr
    return laptop


def test_the_client_obtains_certificates_by_itself(
    env: LocalEnv, member: dict[str, str], client_python: Path, tmp_path: Path
) -> None:
    laptop = make_laptop(env, client_python, tmp_path / "member", member)
    done = laptop.run("ssh", TEAM.lower(), "echo in; basename ~")
    assert (done.stdout, done.stderr, done.returncode) == ("in\nec2-user\n", "", 0)
    (certificate,) = (laptop.home / "certificates").glob("*-cert.pub")
    first = certificate.read_text()
    assert laptop.run("ssh", f"{TEAM}.notebook", "true").returncode == 0
    assert certificate.read_text() == first, "it is good for a while"
    told = " ".join(laptop.run_client("doctor", TEAM).stdout.split())
    assert re.search(r"ok certificate a certificate for arn:aws:sts::\d+:assumed-role/data-science/", told), told
    certificate.unlink()
    assert laptop.run("ssh", TEAM, "true").returncode == 0
    assert certificate.read_text() != first
    by_label = laptop.run("ssh", f"{TEAM}.{STACK}.notebook", "true")
    assert (by_label.returncode, by_label.stderr) == (0, "")


def test_another_identity_is_told_and_goes_on_with_an_ordinary_key(
    env: LocalEnv, client_python: Path, tmp_path: Path
) -> None:
    keys = env.make_session("finance", allow("*"))
    laptop = make_laptop(env, client_python, tmp_path / "finance", keys)
    done = laptop.run("ssh", TEAM, "true")
    assert (done.returncode, "Permission denied (publickey)" in done.stderr) == (255, True)
    assert "your AWS identity may not log in to team-box.notebook: the admin of stack notebook-ssh adds" in done.stderr
    listed = env.volume(TEAM) / "ssh/authorized_keys"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text(laptop.key.with_suffix(".pub").read_text())
    try:
        until(env, "the ordinary key opens", lambda: laptop.run("ssh", TEAM, "true").returncode == 0)
        again = laptop.run("ssh", TEAM, "echo in")
        assert (again.stdout, again.returncode) == ("in\n", 0), again.stderr
    finally:
        listed.unlink()


ADMITTED_BY_FIPS = ",".join(
    f"{kind}{end}"
    for kind in ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-256", "rsa-sha2-512")
    for end in ("", "-cert-v01@openssh.com")
)
FIPS = f"""\
Ciphers aes256-gcm@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr
MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512
KexAlgorithms ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group16-sha512
HostKeyAlgorithms {ADMITTED_BY_FIPS}
PubkeyAcceptedAlgorithms {ADMITTED_BY_FIPS}
CASignatureAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-256,rsa-sha2-512
"""
"""What sshd admits under the policy FIPS of fedora-crypto-policies (FIPS-opensshserver), on which AL2023's are based, without
methods that not every OpenSSH of today knows."""


def test_an_sshd_with_the_fips_policy_admits_the_clients_key(
    env: LocalEnv, member: dict[str, str], client_python: Path, tmp_path: Path
) -> None:
    laptop = make_laptop(env, client_python, tmp_path / "member", member)
    assert laptop.run_client("certificate", TEAM).returncode == 0
    section = (env.emulator.notebook_home(TEAM) / "disk/home/ec2-user/.ssh/authorized_keys").read_text()
    (line,) = re.findall(r"^cert-authority.*$", section, re.MULTILINE)
    server = Sshd(tmp_path / "fips", laptop.key, options=FIPS)
    try:
        (server.folder / "authorized_keys").write_text(f"{line}\n{laptop.key.with_suffix('.pub').read_text()}")
        (laptop.folder / "known").write_text(f"[127.0.0.1]:{server.port} {server.host_keys[0]}\n")
        options = ["-F", "none", "-o", f'UserKnownHostsFile="{laptop.folder}/known"', "-o", "BatchMode=yes"]

        def log_in_with(key: Path, *more: str) -> int:
            command = ["ssh", *options, "-o", "IdentitiesOnly=yes", "-i", str(key), *more]
            return laptop.run(*command, "-p", str(server.port), "127.0.0.1", "true").returncode

        (certificate,) = (laptop.home / "certificates").glob("*-cert.pub")
        ours = laptop.home / "id_ecdsa"
        assert log_in_with(ours, "-o", f'CertificateFile="{certificate}"') == 0
        assert log_in_with(ours) == 255, "the certificate, not the key"
        assert log_in_with(laptop.key) == 255, "an Ed25519 key is refused there"
    finally:
        server.stop()


def test_stolen_session_credentials_are_over_when_the_policy_goes(env: LocalEnv, member: dict[str, str]) -> None:
    """The thief has the keys of a session. What they get names whose they are, and ends by itself."""
    status, body = ask(env, member)
    assert status == 201
    assert time.time() < body["valid_before"] <= time.time() + 900
    iam = env.emulator.client("iam")
    given = json.dumps(allow("POST/notebooks/Team-*/certificate"))
    revoked = json.dumps(allow("POST/notebooks/Team-*/certificate") | {"Statement": [revoke_all()]})
    iam.put_role_policy(RoleName="data-science", PolicyName="revoked", PolicyDocument=revoked)
    try:
        assert ask(env, member)[0] == 403, "the same keys get no more"
    finally:
        iam.delete_role_policy(RoleName="data-science", PolicyName="revoked")
        iam.put_role_policy(RoleName="data-science", PolicyName="given", PolicyDocument=given)
    assert log_in(env, TEAM, body["certificate"]).returncode == 0, "what was got before opens until its end"
    assert "assumed-role/data-science/data-science" in sshd_log(env, TEAM)


def revoke_all() -> dict[str, Any]:
    """A Deny of everything, as IAM's "Revoke active sessions" attaches it, for sessions of any time."""
    return {"Effect": "Deny", "Action": "*", "Resource": "*"}


def test_no_other_principal_signs_with_the_key(env: LocalEnv) -> None:
    kms = env.emulator.client("kms")
    (key,) = (
        each["KeyId"]
        for each in kms.list_keys()["Keys"]
        if STACK in kms.describe_key(KeyId=each["KeyId"])["KeyMetadata"]["Description"]
    )
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    administrator = env.emulator.client("kms", env.make_session("all-of-aws", everything))
    assert administrator.describe_key(KeyId=key)["KeyMetadata"]["KeySpec"] == "ECC_NIST_P256"
    with pytest.raises(ClientError, match="AccessDenied"):
        administrator.sign(KeyId=key, Message=b"a certificate", MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
    with pytest.raises(ClientError, match="AccessDenied"):
        administrator.create_grant(KeyId=key, GranteePrincipal=LOGIN, Operations=["Sign"])


def test_after_the_tag_went_no_certificate_is_given_or_admitted(env: LocalEnv, member: dict[str, str]) -> None:
    _, body = ask(env, member)
    section = env.emulator.notebook_home(TEAM) / "disk/home/ec2-user/.ssh/authorized_keys"
    assert re.search(r'^cert-authority,principals="notebook-ssh/Team-Box/\d+" ecdsa', section.read_text(), re.MULTILINE)
    env.untag(TEAM, "ssh")
    until(env, "no certificate is given", lambda: ask(env, member)[0] in (404, 409))
    until(env, "the line is gone", lambda: "cert-authority" not in section.read_text())
    env.tag(TEAM, ssh="ngrok")
    until(env, "it is back", lambda: "cert-authority" in section.read_text())
    until(env, "it is connected", lambda: env.status(TEAM) == "connected")
    assert log_in(env, TEAM, body["certificate"]).returncode == 0, "it is still valid"


def test_a_session_ends_with_the_tag(env: LocalEnv, member: dict[str, str]) -> None:
    """The worker ends the process of sshd, and says whose it was; the tunnel closes as well."""
    _, body = ask(env, member)
    certificate_file = Path(f"{env.person.identity}-cert.pub")
    certificate_file.write_text(body["certificate"] + "\n")
    env.save_ssh_config(TEAM)
    log = env.emulator.notebook_home(TEAM) / "disk/var/log/notebook-ssh.log"
    command = ["ssh", "-F", CURLED, "-o", "BatchMode=yes", TEAM, "echo in; sleep 600"]
    place: dict[str, Any] = {
        "cwd": env.person.home / ".ssh",
        "env": {"PATH": os.environ["PATH"], "HOME": env.person.home},
    }
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **place) as session:
        assert session.stdout
        assert session.stdout.readline() == b"in\n"
        certificate_file.unlink()
        env.untag(TEAM, "ssh")
        until(env, "the session is over", lambda: session.poll() is not None)
    until(env, "the log says whose", lambda: "assumed-role/data-science/data-science" in log.read_text())
    assert re.search("session [0-9]+ of arn:.* ended: SSH to this notebook was turned off", log.read_text())


def entries(env: LocalEnv, keys: dict[str, str], path: str = "/access") -> list[dict[str, Any]]:
    answer = env.curl(path, keys)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = json.loads(answer.body)["entries"]
    return found


def test_who_was_there_is_for_those_alone_who_audit(env: LocalEnv, member: dict[str, str]) -> None:
    """The stack's word about the certificates, and the notebook's about the sessions; without the right, neither."""
    auditor = env.make_session("auditors", allow("GET/nothing"))
    administrator = env.make_session("another-administrator", allow("*"))
    notebook = env.session_of(f"arn:aws:iam::{ACCOUNT}:role/notebook", "SageMaker")
    for keys in (administrator, notebook, member, env.person.keys):
        for path in (
            "/access",
            f"/notebooks/{TEAM}/access",
            f"/notebooks/{TEAM}/access/",
            f"/notebooks/{TEAM}/acc%65ss",
            "/access/",
        ):
            assert env.curl(path, keys).status in (403, 404), path
    mine = [each for each in entries(env, auditor) if each["kind"] == "certificate"]
    assert {each["witness"] for each in mine} == {"stack"}
    assert any(each["who"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/data-science/") for each in mine)
    until(env, "the session is told, with its end", lambda: any(is_session(each) for each in entries(env, auditor)))
    of_one = entries(env, auditor, f"/notebooks/{TEAM.lower()}/access")
    assert {each["notebook"] for each in of_one} == {TEAM}
    assert {each["id"] for each in mine} >= {each["id"] for each in of_one if each["kind"] == "certificate"}


def is_session(entry: dict[str, Any]) -> bool:
    """Whether an entry is of a session by a certificate, that is over."""
    return entry["kind"] == "session" and "assumed-role/data-science/" in entry["who"] and entry["end"] is not None


def test_a_revocation_refuses_what_was_signed_before_and_nothing_after(env: LocalEnv, member: dict[str, str]) -> None:
    """With ssh and sshd: the notebook hears of it, refuses the older certificate, and admits a new one."""
    section = env.emulator.notebook_home(TEAM) / "disk/home/ec2-user/.ssh/authorized_keys"
    env.tag(TEAM, ssh="ngrok")
    until(env, "it admits certificates", lambda: "cert-authority" in section.read_text())
    until(env, "it is connected", lambda: env.status(TEAM) == "connected")
    _, older = ask(env, member, TEAM)
    assert log_in(env, TEAM, older["certificate"]).returncode == 0
    ssm = env.emulator.client("ssm")
    path = f"/notebook-ssh/{STACK}/authorized-keys/revoked"
    ssm.put_parameter(Name=f"{path}/one", Value=older["serial"], Type="String")
    _, newer = ask_until(env, member, lambda body: body["principal"] != older["principal"])
    assert log_in(env, TEAM, newer["certificate"]).returncode == 0, "before the notebook has heard of it"
    until(env, "the notebook requires it", lambda: newer["principal"] in section.read_text())
    assert log_in(env, TEAM, older["certificate"]).returncode == 255
    assert log_in(env, TEAM, newer["certificate"]).returncode == 0
    ssm.put_parameter(Name=f"{path}/two", Value=LOGIN, Type="String")
    status, body = ask_until(env, member, lambda body: "certificate" not in body)
    assert (status, body["error"]) == (403, "revoked")
    ssm.delete_parameter(Name=f"{path}/two")
    ask_until(env, member, lambda body: "certificate" in body)


def ask_until(env: LocalEnv, keys: dict[str, str], condition: Any) -> tuple[int, dict[str, Any]]:
    """Ask for a certificate until the answer is as expected: what is withdrawn is cached for seconds."""
    answers: list[tuple[int, dict[str, Any]]] = []

    def asked() -> bool:
        answers.append(ask(env, keys, TEAM))
        return bool(condition(answers[-1][1]))

    until(env, "the answer is another one", asked)
    return answers[-1]
