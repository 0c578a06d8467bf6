"""A release is the same each time, holds what it says, and deploys without a checkout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import release
import version
from artifact import BuildError
from samtranslator.yaml_helper import yaml_parse

import processes
from emulator.process import PROJECT, REGION
from emulator.stack import Stack, build
from environment import OWNERS_SCRIPT, LocalEnv
from patience import LIMIT_S as LIMIT
from terminal import virtual_environment

PYTHON = PROJECT / ".venv" / "release" / "bin" / "python"
AWS = PROJECT / ".venv" / "aws" / "bin" / "aws"
ADMIN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
NAME = f"notebook-ssh-{version.read()}"
BUCKET = "the-admins-own-code"


def checkout(folder: Path) -> Path:
    """A repository in `folder` that holds what this one would commit, and has fetched what goes into the layer."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=PROJECT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=folder, env=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}, check=True)
    build()  # fetches it, unless a test before has
    unfinished = shutil.ignore_patterns("unfinished-*")
    shutil.copytree(PROJECT / ".build/dependencies", folder / ".build/dependencies", ignore=unfinished)
    return folder


def built(folder: Path, target: Path, umask: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, folder / "packaging/release.py", target],
        capture_output=True,
        text=True,
        umask=umask,
        cwd=target.parent,
        check=False,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release, built from a checkout of its own."""
    folder = tmp_path_factory.mktemp("release")
    done = built(checkout(folder / "checkout"), folder / "dist", umask=0o022)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / f"{NAME}.zip"


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """The release, unpacked where nothing else is."""
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path / "else where")
    return tmp_path / "else where" / NAME


# ---- what is in it -----------------------------------------------------------------------------


@pytest.mark.nightly(sibling="tests/template/test_build.py::test_the_same_source_gives_the_same_bytes_and_times")
def test_the_same_commit_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    """On another day, in another folder, with another umask."""
    other = Path(shutil.copytree(archive.parent.parent / "checkout", tmp_path / "another folder"))
    for path in other.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (1_000_000_000, 1_000_000_000))
    done = built(other, tmp_path / "dist", umask=0o077)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dist" / archive.name).read_bytes() == archive.read_bytes()


def test_what_is_not_committed_is_not_released(archive: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(archive.parent.parent / "checkout", tmp_path / "checkout"))
    (folder / "functions" / "mine.py").write_text("SECRET = 1\n")
    done = built(folder, tmp_path / "dist", umask=0o022)
    assert done.returncode == 1
    assert "these files are not committed" in done.stderr
    assert "functions/mine.py" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_each_file_is_listed_with_its_checksum(archive: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        files = {name.removeprefix(f"{NAME}/"): zipped.read(name) for name in zipped.namelist()}
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in zipped.infolist()}
    lines = files.pop("SHA256SUMS").decode().splitlines()
    sums = {name: total for total, name in (line.split("  ") for line in lines)}
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert set(files) == {
        *("INSTALL.md", "LICENSE", "deploy.sh", "sbom.cdx.json", "template.yaml", "verify.pyz", "verify.sh"),
        *("code/core.zip", "code/functions.zip", "code/notebook_agent.zip"),
        f"notebook_ssh-{version.read()}-py3-none-any.whl",
    }
    assert {name: mode for name, mode in modes.items() if mode != 0o644} == {
        f"{NAME}/deploy.sh": 0o755,
        f"{NAME}/verify.sh": 0o755,
    }
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert archive.with_suffix(".zip.sha256").read_text() == f"{digest}  {archive.name}\n"


def test_every_user_may_read_the_code(unpacked: Path) -> None:
    """Lambda runs it as a user that owns none of it."""
    seen = set()
    for part in ("core", "functions", "notebook_agent"):
        with zipfile.ZipFile(unpacked / "code" / f"{part}.zip") as code:
            seen |= set(code.namelist())
            assert {entry.external_attr >> 16 & 0o777 for entry in code.infolist()} == {0o644}
    assert {"lookup_api/handler.py", "python/notebook_ssh/__init__.py", "notebook_agent/agent.py"} <= seen


def test_the_list_of_components_is_what_the_layer_carries(unpacked: Path) -> None:
    listed = json.loads((unpacked / "sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["version"]) == ("CycloneDX", version.read())
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / "requirements/functions.txt").read_text(), re.MULTILINE)
    assert sorted((each["name"], each["version"]) for each in listed["components"]) == sorted(pinned)
    with zipfile.ZipFile(unpacked / "code/core.zip") as code:
        packed = {name.split("/")[1].removesuffix(".dist-info") for name in code.namelist() if ".dist-info/" in name}
    assert packed == {f"{name.replace('-', '_')}-{number}" for name, number in pinned}


def test_facts_are_verified_without_a_checkout(unpacked: Path) -> None:
    with zipfile.ZipFile(unpacked / "verify.pyz") as zipped:
        packed = {name.partition("notebook_ssh_verify/")[2] for name in zipped.namelist()} - {""}
    package = PROJECT / "verify/notebook_ssh_verify"
    ours = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert packed == {name for name in ours if "__pycache__" not in name} | {"facts.md"}
    virtual_environment(unpacked / ".verify", PROJECT / "client")  # as pip would install the wheel there
    done = subprocess.run(["sh", unpacked / "verify.sh", "--list"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = re.findall(r"^\| `([a-z-]+)` \|", (PROJECT / "docs/facts.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(facts)


def test_the_wheel_is_the_client(unpacked: Path) -> None:
    (wheel,) = unpacked.glob("*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        (about,) = (name for name in zipped.namelist() if name.endswith("/METADATA"))
        assert f"\nVersion: {version.read()}\n" in zipped.read(about).decode()
        ours = {path.name for path in (PROJECT / "client/notebook_ssh_client").glob("*.py")}
        assert {name.rpartition("/")[2] for name in zipped.namelist() if name.endswith(".py")} == ours
        page = (PROJECT / "docs/connect.md").read_bytes()
        assert zipped.read("notebook_ssh_client/connect.md") == page, "for `notebook-ssh help`"


def test_the_template_is_the_same_but_for_where_the_code_is(unpacked: Path) -> None:
    ours: dict[str, Any] = yaml_parse((PROJECT / "template.yaml").read_text())
    theirs: dict[str, Any] = yaml_parse((unpacked / "template.yaml").read_text())
    del ours["Globals"]["Function"]["CodeUri"]
    for resource in ours["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "code/functions.zip"
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            part = resource["Properties"]["ContentUri"].removeprefix("layers/")
            resource["Properties"]["ContentUri"] = f"code/{part}.zip"
        if "BuildMethod" in resource.get("Metadata", {}):
            del resource["Metadata"]
    assert theirs == ours


def test_a_template_that_names_code_in_another_way_is_refused() -> None:
    text = (PROJECT / "template.yaml").read_text()
    with pytest.raises(BuildError, match=r"template\.yaml names code in a way"):
        release.packaged(text.replace("    CodeUri: functions/\n", "    CodeUri: elsewhere/\n"))


# ---- deployed ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account() -> Iterator[LocalEnv]:
    """An account without the stack, with a notebook that runs its owner's script."""
    env = LocalEnv()
    try:
        env.start()
        env.make_network()
        env.move_in()
        env.create_lifecycle_config("gpu-setup", OWNERS_SCRIPT)
        env.create_notebook("my-notebook", "gpu-setup")
        yield env
    finally:
        env.close()


@pytest.mark.takes_minutes
def test_from_the_zip_to_a_notebook_that_is_reached(account: LocalEnv, unpacked: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "aws").symlink_to(AWS.resolve(strict=True))
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": account.emulator.endpoint,
        "AWS_REGION": REGION,
        **account.make_session("admin", ADMIN),
    }

    def deploy(*words: str) -> str:
        command = ["sh", str(unpacked / "deploy.sh"), "--bucket", BUCKET, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=5 * LIMIT, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    parameters = [f"NgrokDownload={account.cloud.download}", f"NgrokSha256={account.cloud.sha256}", "SyncSeconds=5"]
    said = deploy("--create-bucket", *parameters)
    outputs = dict(re.findall(r"^(\w+)\t(.+)$", said, re.MULTILINE))
    api = re.sub(r"https://(\w+)\.[^/]+", rf"{account.emulator.endpoint}/_aws/execute-api/\1", outputs["ApiUrl"])
    account.stack = Stack("notebook-ssh", api, outputs)
    assert f"notebook-ssh setup --stack notebook-ssh --region {REGION}" in said
    assert f"Key=ssh,Value=ngrok Key=ssh-restart,Value=now --region {REGION}" in said

    account.store_token(account.cloud.token)
    account.tag("my-notebook", ssh="ngrok", ssh_restart="now")
    processes.wait_until("the notebook is connected", lambda: account.status("my-notebook") == "connected", LIMIT)
    assert re.search(r"^ssh -p \d+ ec2-user@", account.curl("/notebooks/my-notebook/ssh").body)

    storage = account.emulator.client("s3")
    before = {each["Key"]: each["LastModified"] for each in storage.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert "No changes to deploy" in deploy()
    after = {each["Key"]: each["LastModified"] for each in storage.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert after == before, "what was uploaded is uploaded again"
    blocked = storage.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert "aws:SecureTransport" in storage.get_bucket_policy(Bucket=BUCKET)["Policy"]
