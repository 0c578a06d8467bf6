"""The program that verifies facts, run as a user does: in a terminal of the embedded AWS, from a release's folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import release
from notebook_ssh_verify.builder import LOG_GROUP
from notebook_ssh_verify.ownership import PREFIX
from support.stack import PROJECT

from account import ADMIN
from emulator.process import Emulator
from emulator.stack import build
from environment import OWNERS_SCRIPT, SYNC_SECONDS, LocalEnv
from terminal import virtual_environment

EVENT_SECONDS = 8
"""An event of the emulator takes less than one."""


class Verification:
    """An account with things of other people in it, and a user who verifies facts there."""

    def __init__(self) -> None:
        self.env = LocalEnv()
        self.env.start()
        self.env.make_network()
        self.env.move_in()
        self.home = self.env.person.home
        self.env.person.keys = self.env.make_session("admin", ADMIN)
        self._variables = self.env.open_terminal(self.env.person)._environment()
        self._python = virtual_environment(self.home / ".verify", PROJECT / "client", PROJECT / "verify")
        self._release = a_release(self.home / "release")
        (self.home / "token").write_text(self.env.cloud.token)
        self.journals = self.home / "state/notebook-ssh-verify"
        self._invite_others()

    def close(self) -> None:
        self.env.close()

    def _invite_others(self) -> None:
        """What other people have in the account: notebooks, configurations, rules, a stack."""
        env, emulator = self.env, self.env.emulator
        env.create_lifecycle_config("theirs", OWNERS_SCRIPT, on_create=b"#!/bin/bash\ntrue\n")
        env.create_lifecycle_config("nbssh-verify-of-theirs", OWNERS_SCRIPT)
        env.create_notebook("their-notebook", "theirs")
        env.create_notebook("nbssh-verify-notebook")
        env.sagemaker.add_tags(
            ResourceArn=env.arn("their-notebook"),
            Tags=[{"Key": "ssh", "Value": "ngrok"}, {"Key": "team", "Value": "ml"}],
        )
        emulator.client("ec2").authorize_security_group_ingress(
            GroupId=env.network.notebook_group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="192.0.2.0/24"
        )
        emulator.client("s3").create_bucket(Bucket="their-bucket")
        emulator.client("sqs").create_queue(QueueName="their-queue")

    def words(self, *words: str) -> list[str]:
        """The command line."""
        parameters = {
            "SyncSeconds": str(SYNC_SECONDS),
            "NgrokDownload": self.env.cloud.download,
            "NgrokSha256": self.env.cloud.sha256,
        }
        return [
            *(str(self._python), "-m", "notebook_ssh_verify", "--yes", "--subnet", self.env.network.subnet),
            *("--event-seconds", str(EVENT_SECONDS), "--ngrok-token-file", str(self.home / "token")),
            *(word for name, value in parameters.items() for word in ("--parameter", f"{name}={value}")),
            *words,
        ]

    def variables(self, keys: Mapping[str, str] | None = None) -> dict[str, str]:
        """The user's environment. keys: of another principal."""
        own = {
            "NOTEBOOK_SSH_NGROK_DOWNLOAD": self.env.cloud.download,
            "NBSSH_RELEASE": str(self._release),
            "XDG_STATE_HOME": str(self.home / "state"),
        }
        variables = self._variables | own
        if keys:
            variables = {name: value for name, value in variables.items() if name != "AWS_SESSION_TOKEN"} | dict(keys)
        return variables

    def run(self, *words: str, keys: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.words(*words),
            cwd=self.home,
            env=self.variables(keys),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self, *words: str, keys: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Run it to its end; its report, with the exit status."""
        file = self.home / "report.json"
        file.unlink(missing_ok=True)
        done = self.run("--json", str(file), *words, keys=keys)
        assert file.exists(), done.stdout + done.stderr
        told: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return told | {"status": done.returncode, "output": done.stdout + done.stderr}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it; what it prints is in a file."""
        with open(self.home / "output", "a") as output:
            return subprocess.Popen(
                self.words(*words),
                cwd=self.home,
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )

    def lines_of_journals(self) -> int:
        """How much unfinished runs have written down."""
        return sum(len(path.read_text().splitlines()) for path in self.journals.glob("*.jsonl"))


def a_release(folder: Path) -> Path:
    """A release's template and code, as the emulator runs it."""
    (folder / "code").mkdir(parents=True)
    for part, archive in build().items():
        (folder / "code" / f"{part}.zip").write_bytes(archive.read_bytes())
    (folder / "template.yaml").write_text(release.packaged((PROJECT / "template.yaml").read_text("utf-8")))
    return folder


def picture(emulator: Emulator) -> dict[str, Any]:
    """Everything in the account that a run could touch, as AWS tells it."""
    sagemaker, ec2, iam = (emulator.client(name) for name in ("sagemaker", "ec2", "iam"))
    notebooks = [each["NotebookInstanceName"] for each in sagemaker.list_notebook_instances()["NotebookInstances"]]
    configs = [
        each["NotebookInstanceLifecycleConfigName"]
        for each in sagemaker.list_notebook_instance_lifecycle_configs()["NotebookInstanceLifecycleConfigs"]
    ]
    seen = {
        "notebooks": [sagemaker.describe_notebook_instance(NotebookInstanceName=name) for name in notebooks],
        "tags": {
            name: sagemaker.list_tags(
                ResourceArn=sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceArn"]
            )["Tags"]
            for name in notebooks
        },
        "configs": [
            sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
            for name in configs
        ],
        "rules": ec2.describe_security_group_rules()["SecurityGroupRules"],
        "groups": ec2.describe_security_groups()["SecurityGroups"],
        "endpoints": ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"],
        "buckets": emulator.client("s3").list_buckets()["Buckets"],
        "queues": emulator.client("sqs").list_queues().get("QueueUrls", []),
        "tables": emulator.client("dynamodb").list_tables()["TableNames"],
        "roles": [each["RoleName"] for each in iam.list_roles()["Roles"]],
        "functions": [each["FunctionName"] for each in emulator.client("lambda").list_functions()["Functions"]],
        "event rules": [each["Name"] for each in emulator.client("events").list_rules()["Rules"]],
        "secrets": [each["Name"] for each in emulator.client("secretsmanager").list_secrets()["SecretList"]],
        "log groups": [
            each["logGroupName"]
            for each in emulator.client("logs").describe_log_groups()["logGroups"]
            # The first is shared by all notebooks. A function of the emulator that ends late makes its own again, which its
            # role does not allow.
            if each["logGroupName"] != LOG_GROUP and not each["logGroupName"].startswith("/aws/lambda/")
        ],
        "parameters": [each["Name"] for each in emulator.client("ssm").describe_parameters()["Parameters"]],
        "stacks": [
            each["StackName"]
            for each in emulator.client("cloudformation").describe_stacks()["Stacks"]
            if each["StackStatus"] != "DELETE_COMPLETE"
        ],
    }
    told = json.loads(json.dumps(seen, default=str, sort_keys=True))
    for answers in (told["notebooks"], told["configs"]):
        for answer in answers:
            answer.pop("ResponseMetadata", None)
    assert isinstance(told, dict)
    return told


def of_runs(seen: Mapping[str, Any]) -> list[str]:
    """Whatever in a picture belongs to a run: a name with an id of eight characters."""
    words = json.dumps(seen).replace("/", '"').split('"')
    return sorted(
        {
            word
            for word in words
            if word.startswith(PREFIX) and not word.startswith((f"{PREFIX}of-", f"{PREFIX}notebook"))
        }
    )
