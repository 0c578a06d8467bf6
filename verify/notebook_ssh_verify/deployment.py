"""Creates the two stacks of a run: the lab's, and the stack under test from a release's files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path

from notebook_ssh_verify.account import Account, AwsError
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import Kind
from notebook_ssh_verify.resources import failures

CREATE_LIMIT_S = 1200.0
"""Seconds for a stack to be created. An endpoint takes three to five minutes of it."""

POLL_S = 2.0

CODE = ("functions", "core", "notebook_agent")
"""The archives of a release, in its folder code/."""


class DeploymentError(Exception):
    """A stack could not be created; the message says which and why."""


def missing_files(release: Path) -> list[str]:
    """Return which files of a release are not in the folder."""
    names = ["template.yaml", *(f"code/{part}.zip" for part in CODE)]
    return [name for name in names if not (release / name).is_file()]


def create_lab_stack(lab: Lab, vpc: str) -> None:
    """Begin to create the stack of the lab (lab.yaml). vpc: of the first notebook, empty for none. Raises AwsError."""
    template = (package_files("notebook_ssh_verify") / "lab.yaml").read_text("utf-8")
    name = lab.run.name("lab")
    lab.creating(Kind.LAB, name)
    lab.account.call(
        "cloudformation",
        "create_stack",
        StackName=name,
        TemplateBody=template,
        Parameters=_parameters({"Prefix": lab.run.prefix, "Vpc": vpc}),
        Capabilities=["CAPABILITY_IAM"],
        Tags=lab.tags,
    )


def create_stack(lab: Lab, release: Path, parameters: Mapping[str, str]) -> None:
    """Upload the release and begin to create the stack under test. Raises AwsError."""
    bucket = lab.outputs["Code"]
    template = (release / "template.yaml").read_text("utf-8")
    for part in CODE:
        lab.account.call(
            "s3", "put_object", Bucket=bucket, Key=f"{part}.zip", Body=(release / f"code/{part}.zip").read_bytes()
        )
        template = template.replace(f"Uri: code/{part}.zip", f"Uri: s3://{bucket}/{part}.zip")
    # Larger than the 51,200 bytes that a request may carry.
    lab.account.call("s3", "put_object", Bucket=bucket, Key="template.yaml", Body=template.encode())
    lab.creating(Kind.STACK, lab.run.prefix)
    lab.account.call(
        "cloudformation",
        "create_stack",
        StackName=lab.run.prefix,
        TemplateURL=f"{lab.account.client('s3').meta.endpoint_url}/{bucket}/template.yaml",
        Parameters=_parameters(parameters),
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Tags=lab.tags,
    )


def outputs_of(account: Account, stack: str) -> dict[str, str]:
    """Return a stack's outputs once it is complete. Raises DeploymentError and AwsError."""
    ends = time.monotonic() + CREATE_LIMIT_S
    while True:
        found = account.call("cloudformation", "describe_stacks", StackName=stack)["Stacks"][0]
        if found["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
            return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}
        if not found["StackStatus"].endswith("_IN_PROGRESS") or time.monotonic() > ends:
            raise DeploymentError(f"the stack {stack} is {found['StackStatus']}: {_reason(account, stack)}")
        time.sleep(POLL_S)


def _reason(account: Account, stack: str) -> str:
    try:
        return failures(account, stack) or "no event says why"
    except AwsError as error:
        return f"its events cannot be read ({error.refusal.code})"


def _parameters(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
