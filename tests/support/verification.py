"""The verification's experiments against the embedded AWS, which gives the answers that a test chooses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import botocore.session
from notebook_ssh_verify.account import Account
from notebook_ssh_verify.experiments import ALL
from notebook_ssh_verify.findings import Decision
from notebook_ssh_verify.journal import Journal, Place
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import RUN_TAG, Run
from support.stack import PROJECT

from emulator.place import ACCOUNT, REGION
from emulator.process import ROOT_KEYS, Emulator
from processes import wait_until

TEMPLATE = PROJECT / "verify" / "notebook_ssh_verify" / "lab.yaml"


@contextmanager
def emulated_account(emulator: Emulator, keys: Mapping[str, str] = ROOT_KEYS) -> Iterator[Account]:
    """The embedded account as the user with these keys sees it. While inside, AWS is there for all of this process."""
    with mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": emulator.endpoint}):
        session = botocore.session.Session()
        session.set_credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN"))
        yield Account(session, REGION)


def begin(account: Account, folder: Path, **more: Any) -> Lab:
    """A new run, with a journal in `folder`. It has nothing else yet; more: what else is known of it."""
    run = Run(uuid4().hex[:8], int(time.time()))
    journal = Journal.begin(folder, run, Place(ACCOUNT, account.region))
    return Lab(account, run, journal, **more)


def create_stack(lab: Lab, **parameters: str) -> dict[str, str]:
    """Create the lab's own stack from lab.yaml; its outputs."""
    formation = lab.account.client("cloudformation")
    formation.create_stack(
        StackName=lab.run.name(),
        TemplateBody=TEMPLATE.read_text("utf-8"),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in {"Prefix": lab.run.prefix, **parameters}.items()
        ],
        Tags=[{"Key": RUN_TAG, "Value": lab.run.id}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )

    def status() -> str:
        return str(formation.describe_stacks(StackName=lab.run.name())["Stacks"][0]["StackStatus"])

    wait_until("the lab's stack is created", lambda: not status().endswith("_IN_PROGRESS"))
    stack = formation.describe_stacks(StackName=lab.run.name())["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", formation.describe_stack_events(StackName=lab.run.name())
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def create_notebooks(lab: Lab, **more: Any) -> tuple[str, ...]:
    """Create two notebooks of the run, and return their names once they are InService."""
    names = lab.run.name("first"), lab.run.name("second")
    for name in names:
        lab.account.call(
            "sagemaker",
            "create_notebook_instance",
            NotebookInstanceName=name,
            InstanceType="ml.t3.medium",
            RoleArn=lab.outputs["NotebookRole"],
            **more,
        )
    for name in names:
        wait_until(f"{name} is InService", partial(_is_in_service, lab, name))
    return names


def _is_in_service(lab: Lab, notebook: str) -> bool:
    return bool(lab.describe_notebook(notebook)["NotebookInstanceStatus"] == "InService")


def decide(lab: Lab, fact: str) -> Decision:
    """What the experiment on a fact finds out."""
    lab.account.take_evidence()
    return next(each for each in ALL if each.fact == fact).run(lab)
