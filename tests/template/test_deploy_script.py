"""What deploy.sh of a release says when something is wrong, and what it leaves alone, with a stand-in for aws."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import release
from support.stack import ACCOUNT, PROJECT

from patience import LIMIT_S

NEEDED = ("awk", "cat", "cut", "dirname", "grep", "head", "mktemp", "rm", "sed", "sh", "sha256sum", "tail", "tr")
"""What deploy.sh runs besides aws: POSIX, but for the checksums."""


STAND_IN = """#!/bin/sh
echo "$2" >> "$CALLS"
[ -f "$ANSWERS/$2" ] && . "$ANSWERS/$2"
case "$2" in
get-caller-identity) printf '%s\\tarn:aws:iam::%s:user/admin\\n' "$ACCOUNT" "$ACCOUNT" ;;
get-bucket-location) echo None ;;
describe-stacks) printf 'TagKey\\tssh\\nApiUrl\\thttps://a.example.com/v1\\n' ;;
esac
"""
"""The AWS command line of an account in which all goes well but what `ANSWERS` has a file for, by the command's name."""

READ_ONLY = {"get-caller-identity", "head-bucket", "get-bucket-location", "get"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where deploy.sh runs: nothing but what it needs, and the AWS command line's stand-in."""

    release: Path
    folder: Path

    def answer(self, command: str, script: str) -> None:
        """Let the AWS command `command` do `script` instead, in sh."""
        (self.folder / "answers" / command).write_text(script + "\n")

    def deploy(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", self.release / "deploy.sh", *words],
            env={
                "PATH": str(self.folder / "bin"),
                "CALLS": str(self.folder / "calls"),
                "ANSWERS": str(self.folder / "answers"),
                "ACCOUNT": ACCOUNT,
                "AWS_REGION": "us-east-1",
                "TMPDIR": str(self.folder / "tmp"),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def calls(self) -> list[str]:
        """The AWS commands that were run, without the service."""
        file = self.folder / "calls"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a release on it, in a folder whose name has a space; its code is of no account here."""
    folder = tmp_path / "the release"
    (folder / "code").mkdir(parents=True)
    shutil.copy(PROJECT / "packaging/release/deploy.sh", folder)
    (folder / "template.yaml").write_text(release.packaged((PROJECT / "template.yaml").read_text()))
    (folder / "code/functions.zip").write_bytes(b"PK")
    (folder / "notebook_ssh-1.2.3-py3-none-any.whl").write_bytes(b"PK")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    for name in ("bin", "answers", "tmp"):
        (tmp_path / name).mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    aws = tmp_path / "bin" / "aws"
    aws.write_text(STAND_IN)
    aws.chmod(0o755)
    return Machine(folder, tmp_path)


def refuses(code: str, operation: str, message: str) -> str:
    """What the AWS command line does when AWS answers with an error."""
    said = f"An error occurred ({code}) when calling the {operation} operation: {message}"
    return f"printf '\\n%s\\n' '{said}' >&2; exit 254"


NO_BUCKET = refuses("404", "HeadBucket", "Not Found")
ONE, MADE = ("--bucket", "mine"), ("--bucket", "mine", "--create-bucket")

WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no bucket is named": ((), {}, "name the bucket for the code with --bucket"),
    "an option is not known": (("--bukket", "mine"), {}, "there is no option --bukket"),
    "an option has no value": (("--bucket",), {}, "--bucket needs a value"),
    "a parameter is misspelled": ((*ONE, "TagKye=x"), {}, "the stack has no parameter TagKye; it has: TagKey "),
    "an option comes after a parameter": ((*ONE, "TagKey=x", "--dry-run"), {}, "options come first"),
    "nobody is signed in": (
        ONE,
        {"get-caller-identity": "echo 'Unable to locate credentials. You can configure credentials' >&2; exit 253"},
        "AWS does not know who you are (aws configure, aws sso login, or --profile): Unable to locate credentials.",
    ),
    "the bucket is not there": (ONE, {"head-bucket": NO_BUCKET}, "make it with --create-bucket"),
    "the bucket is another account's": (
        MADE,
        {"head-bucket": refuses("403", "HeadBucket", "Forbidden")},
        "bucket mine is another account's, or you may not use it",
    ),
    "the bucket is in another region": (
        ONE,
        {"get-bucket-location": "echo eu-central-1; exit 0"},
        "bucket mine is in eu-central-1, and Lambda takes code only from its own region, us-east-1",
    ),
    "no bucket may be made": (
        MADE,
        {"head-bucket": NO_BUCKET, "create-bucket": refuses("AccessDenied", "CreateBucket", "Access Denied")},
        "bucket mine cannot be made: An error occurred (AccessDenied)",
    ),
    "the bucket cannot be made private": (
        MADE,
        {"head-bucket": NO_BUCKET, "put-bucket-policy": refuses("AccessDenied", "PutBucketPolicy", "Access Denied")},
        "bucket mine could not be made private, and is taken away again",
    ),
    "nothing may be uploaded": (
        ONE,
        {"package": refuses("AccessDenied", "PutObject", "Access Denied")},
        "the code cannot be uploaded to bucket mine (it takes s3:PutObject and s3:GetObject there)",
    ),
    "the stack fails": (
        ONE,
        {
            "deploy": "printf '\\nFailed to create/update the stack. Run the following command\\n' >&2; exit 255",
            "describe-stack-events": "printf 'Table\\tToo many tables\\n'; exit 0",
        },
        "the stack notebook-ssh is not deployed: Failed to create/update the stack.",
    ),
    "it is deployed but cannot be read": (
        ONE,
        {"describe-stacks": refuses("AccessDenied", "DescribeStacks", "no")},
        "the stack notebook-ssh is deployed, but its outputs cannot be read",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_sentence(machine: Machine, wrong: str) -> None:
    words, answers, says = WRONG[wrong]
    for command, script in answers.items():
        machine.answer(command, script)
    done = machine.deploy(*words)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("deploy: ")
    assert says in last
    assert list((machine.folder / "tmp").iterdir()) == []


def test_a_stack_that_fails_shows_what_failed(machine: Machine) -> None:
    _, answers, _ = WRONG["the stack fails"]
    for command, script in answers.items():
        machine.answer(command, script)
    assert "Table\tToo many tables\n" in machine.deploy(*ONE).stderr


def test_a_bucket_that_could_not_be_made_private_is_gone(machine: Machine) -> None:
    _, answers, _ = WRONG["the bucket cannot be made private"]
    for command, script in answers.items():
        machine.answer(command, script)
    machine.deploy(*MADE)
    assert machine.calls()[-1] == "delete-bucket"
    assert "package" not in machine.calls()


def test_a_bucket_that_is_there_is_left_as_it_is(machine: Machine) -> None:
    assert machine.deploy(*MADE).returncode == 0
    assert [call for call in machine.calls() if "bucket" in call] == ["head-bucket", "get-bucket-location"]


def test_without_the_aws_command_line_it_says_so(machine: Machine) -> None:
    (machine.folder / "bin" / "aws").unlink()
    assert "the AWS command line (aws) is not installed" in machine.deploy(*ONE).stderr


def test_without_a_region_it_says_so(machine: Machine) -> None:
    assert "set --region" in machine.deploy(*ONE, AWS_REGION="").stderr


@pytest.mark.parametrize("changed", ["template.yaml", "code/functions.zip"])
def test_a_file_that_was_changed_is_named_and_nothing_is_asked(machine: Machine, changed: str) -> None:
    with open(machine.release / changed, "ab") as file:
        file.write(b"\n")
    done = machine.deploy(*ONE)
    assert done.returncode == 1
    assert f"{changed}: FAILED" in done.stderr
    assert "unpack the zip again" in done.stderr
    assert machine.calls() == []


@pytest.mark.parametrize("there", [True, False])
def test_a_dry_run_changes_nothing(machine: Machine, there: bool) -> None:
    if not there:
        machine.answer("head-bucket", NO_BUCKET)
    done = machine.deploy(*MADE, "--dry-run", "TagKey=x")
    assert done.returncode == 0, done.stderr
    assert "Nothing is done." in done.stdout
    assert ("make the bucket mine" in done.stdout) is not there
    assert "deploy the stack notebook-ssh with TagKey=x" in done.stdout
    assert set(machine.calls()) <= READ_ONLY


def test_help_asks_nothing(machine: Machine) -> None:
    done = machine.deploy("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: ./deploy.sh --bucket NAME" in done.stdout
    assert machine.calls() == []


def test_parameters_go_to_the_stack_word_for_word(machine: Machine) -> None:
    done = machine.deploy("--region", "eu-west-1", "--stack-name", "team", *ONE, "LookupPrincipals=a b", "TagKey=x")
    assert "in us-east-1, and Lambda takes code only from its own region, eu-west-1" in done.stderr
    machine.answer("get-bucket-location", "echo eu-west-1; exit 0")
    machine.answer("deploy", 'for word; do printf "<%s>" "$word"; done >"$ANSWERS/words"; exit 0')
    assert machine.deploy(
        "--region", "eu-west-1", "--stack-name", "team", *ONE, "LookupPrincipals=a b", "TagKey=x"
    ).stdout.endswith("notebook-ssh setup --stack team --region eu-west-1 && ssh NAME\n")
    words = (machine.folder / "answers" / "words").read_text()
    assert words.endswith("<--parameter-overrides><LookupPrincipals=a b><TagKey=x>")
    assert "<--stack-name><team>" in words
