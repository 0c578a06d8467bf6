"""Deploying the real template.yaml to the embedded AWS, with the artifacts that `sam build` would make."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import yaml
from samtranslator.yaml_helper import intrinsics_multi_constructor

from emulator.process import BUILT, PROJECT, PYTHON, UNPACKED
from patience import LIMIT_S

BUCKET = "artifacts"
PARTS = {"functions": "functions/", "core": "layers/core", "notebook_agent": "layers/notebook_agent"}
"""What packaging/artifact.py builds, and where template.yaml says that it lies."""

DAY = 86_400

SOURCES = ("functions", "layers", "packaging", "requirements/functions.txt")

PATIENCE = {("RuleQueue", "DelaySeconds"): 1}
"""Properties that make the real stack cheaper by waiting, and what a short run has instead."""


class Account(Protocol):
    """Where a stack is deployed to: an embedded AWS, of this process or of another."""

    @property
    def endpoint(self) -> str:
        """The base address of every service."""

    def client(self, service: str) -> Any:
        """A client of `service` that may do what an admin may."""


class NotDeployedError(Exception):
    """The stack could not be built or created; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack. api: base address of its API on this machine. outputs: as the template names them."""

    name: str
    api: str
    outputs: dict[str, str]


def build() -> dict[str, Path]:
    """The artifacts as zip files, by part. Nothing is built when the same sources were built before.

    Raises NotDeployedError.
    """
    state = _state()
    BUILT.mkdir(parents=True, exist_ok=True)
    archives = {part: BUILT / f"{part}-{state}.zip" for part in PARTS}
    for part, archive in archives.items():
        if not archive.exists():
            _build(part, archive)
    # Not the younger ones: another run may be about to upload them.
    for old in BUILT.glob("*.zip"):
        if old not in archives.values() and time.time() - old.stat().st_mtime > DAY:
            old.unlink(missing_ok=True)
    for folder in UNPACKED.glob("*"):
        if time.time() - folder.stat().st_mtime > DAY:
            shutil.rmtree(folder, ignore_errors=True)
    return archives


def _state() -> str:
    """A name for the state of everything that goes into an artifact: what tools leave there (.ruff_cache) does not."""
    digest = hashlib.sha256(sys.version.encode())
    for source in SOURCES:
        place = PROJECT / source
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            aside = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(PROJECT).parts)
            if path.is_file() and not aside:
                digest.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(part: str, archive: Path) -> None:
    unpacked = Path(tempfile.mkdtemp()) / part
    # The emulator runs functions with its own Python, so that is what bytecode is made for here.
    environment = {**os.environ, "TARGET_PYTHON": str(PYTHON)}
    command = [str(PYTHON), str(PROJECT / "packaging" / "artifact.py"), part, str(unpacked)]
    finished = archive.with_suffix(f".{os.getpid()}.zip")
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise NotDeployedError(f"{part} could not be built: {said[-1]}")
        with zipfile.ZipFile(finished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
            for path in sorted(unpacked.rglob("*")):
                zipped.write(path, path.relative_to(unpacked))
        finished.replace(archive)
    finally:
        finished.unlink(missing_ok=True)
        shutil.rmtree(unpacked.parent)


# libyaml's, where PyYAML was built with it: it takes a tenth of the time.
_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


@cache
def _read_template(text: str) -> str:
    """A template in JSON: `!Ref` and its like in their long forms."""
    return json.dumps(yaml.load(text, _Loader))  # noqa: S506  derived from a safe one


def local_template(keys: Mapping[str, str]) -> dict[str, Any]:
    """template.yaml as it is deployed here: the code comes from the bucket, and a queue waits for less long.

    keys: where each part lies in the bucket.
    """
    template: dict[str, Any] = json.loads(_read_template((PROJECT / "template.yaml").read_text("utf-8")))
    template["Globals"]["Function"]["CodeUri"] = {"Bucket": BUCKET, "Key": keys["functions"]}
    for (resource, name), value in PATIENCE.items():
        template["Resources"][resource]["Properties"][name] = value
    for resource in template["Resources"].values():
        place = resource.get("Properties", {}).get("ContentUri")
        if place:
            part = next(part for part, path in PARTS.items() if path == place)
            resource["Properties"]["ContentUri"] = {"Bucket": BUCKET, "Key": keys[part]}
    return template


def deploy(account: Account, name: str, archives: Mapping[str, Path] | None = None, /, **parameters: str) -> Stack:
    """Upload and create the stack `name`, or update it if there is one; return when it is complete. Raises NotDeployedError.

    archives: the parts as zip files, by part; None builds them from this tree.
    """
    storage = account.client("s3")
    storage.create_bucket(Bucket=BUCKET)
    keys = {}
    for part, archive in (archives or build()).items():
        content = archive.read_bytes()
        keys[part] = f"{part}-{hashlib.sha256(content).hexdigest()[:16]}.zip"
        storage.put_object(Bucket=BUCKET, Key=keys[part], Body=content)
    # Larger than the 51,200 bytes that a request may carry, so it goes the way of `sam deploy`.
    storage.put_object(Bucket=BUCKET, Key="template.json", Body=json.dumps(local_template(keys)).encode())
    formation = account.client("cloudformation")
    exists = any(stack["StackName"] == name for stack in formation.describe_stacks()["Stacks"])
    (formation.update_stack if exists else formation.create_stack)(
        StackName=name,
        TemplateURL=f"{account.endpoint}/{BUCKET}/template.json",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    deadline = time.monotonic() + LIMIT_S
    while True:
        stack = formation.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] == ("UPDATE_COMPLETE" if exists else "CREATE_COMPLETE"):
            break
        if not stack["StackStatus"].endswith("_IN_PROGRESS") or time.monotonic() > deadline:
            raise NotDeployedError(f"the stack is {stack['StackStatus']}: {_first_failure(formation, name)}")
        time.sleep(0.1)
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
    found = re.fullmatch(r"https://([^.]+)\.execute-api\.[^/]+/(.+)", outputs["ApiUrl"])
    if not found:
        raise NotDeployedError(f"the output ApiUrl is {outputs['ApiUrl']!r}, which is no address of a REST API")
    return Stack(name, f"{account.endpoint}/_aws/execute-api/{found[1]}/{found[2]}", outputs)


def _first_failure(formation: Any, name: str) -> str:
    events = formation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [each for each in events if each["ResourceStatus"].endswith("FAILED")]
    told = [f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', '')}" for each in reversed(failed)]
    return told[0] if told else "no resource says why"
