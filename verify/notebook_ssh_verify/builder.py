"""Builds what a run has in the account. What the account refuses becomes the reason why experiments are skipped."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from notebook_ssh_verify import deployment, probe, resources
from notebook_ssh_verify.account import AwsError, Refusal
from notebook_ssh_verify.deployment import DeploymentError
from notebook_ssh_verify.experiments.base import Need
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import Kind
from notebook_ssh_verify.plan import NOTEBOOKS, STACK, Item

ROLE_LIMIT_S = 120.0
"""Seconds until SageMaker may assume a new role."""

READY_LIMIT_S = 1200.0
"""Seconds until a new notebook is InService."""

LOG_GROUP = "/aws/sagemaker/NotebookInstances"
LOG_LIMIT_S = 180.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    subnet: of the first notebook, "" for one of the default VPC. parameters: of the stack. mode: of the scenario's tag, ""
    for what the account allows.
    """

    minutes: float
    subnet: str = ""
    instance_type: str = "ml.t3.medium"
    ngrok_token: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)
    event_limit_s: float = 180.0
    release: Path = Path()
    mode: str = ""


class Builder:
    """Fills a lab.

    unmet: why a need of experiments is not met. scripts: what each lifecycle configuration has, by its name.
    """

    def __init__(self, lab: Lab, settings: Settings, say: Say) -> None:
        self.lab, self.settings, self._say = lab, settings, say
        self.unmet: dict[Need, str] = {}
        self.scripts: dict[str, bytes] = {}
        self._network: dict[str, Any] = {}
        self._vpc = ""

    def build(self, creates: Sequence[Item], public_key: str) -> None:
        """Create what a plan has. Raises TimeOverError, and botocore's errors if AWS does not answer any more."""
        self._choose_network()
        lab = self.lab
        self._say("creating the lab's stack")
        try:
            deployment.create_lab_stack(lab, self._vpc)
            lab.outputs = deployment.outputs_of(lab.account, lab.run.name("lab"))
        except (AwsError, DeploymentError) as error:
            self._miss(Need, f"the lab's stack could not be created: {error}")
            return
        if NOTEBOOKS in creates:
            self._create_notebooks(public_key)
        else:
            self._miss([Need.NOTEBOOK, Need.PROBE], "no notebook was needed")
        if STACK in creates:
            self._create_stack()
        else:
            self._miss([Need.STACK, Need.NGROK, Need.ENDPOINT], "no stack was needed")
        if lab.notebooks:
            self._wait_for_notebooks()

    def build_nothing(self) -> None:
        """Say of everything but a stack that was named that this run does not create it."""
        there = {Need.STACK} if self.lab.stack else set()
        self.unmet |= {need: f"it needs {need.value}" for need in Need if need not in there}

    def _miss(self, needs: Iterable[Need], why: str) -> None:
        for need in needs:
            self.unmet.setdefault(need, why)

    def _choose_network(self) -> None:
        """Choose the subnet of the first notebook, and whether the stack makes an endpoint there."""
        account, subnet = self.lab.account, self.settings.subnet
        filters = [{"Name": "default-for-az", "Values": ["true"]}]
        try:
            if subnet:
                found = account.call("ec2", "describe_subnets", SubnetIds=[subnet])["Subnets"]
            else:
                found = account.call("ec2", "describe_subnets", Filters=filters)["Subnets"]
            if not found:
                self._miss([Need.ENDPOINT], "the account has no default VPC here; name a subnet with --subnet")
                return
            self._vpc, self._network["SubnetId"] = found[0]["VpcId"], found[0]["SubnetId"]
            there = account.call(
                "ec2",
                "describe_instance_connect_endpoints",
                Filters=[{"Name": "vpc-id", "Values": [self._vpc]}],
            )["InstanceConnectEndpoints"]
        except AwsError as error:
            self._miss([Need.ENDPOINT], f"the network cannot be read ({error})")
            return
        if there:
            # A VPC has one at most, and this one is somebody's.
            self._miss(
                [Need.ENDPOINT], "the VPC has an endpoint already, which is not the run's; name a subnet of another VPC"
            )

    def _create_notebooks(self, public_key: str) -> None:
        """Begin to create both notebooks."""
        lab, created = self.lab, []
        try:
            for letter in ("a", "b"):
                name = lab.run.name(letter)
                script = probe.script(lab.run.prefix, public_key)
                lab.creating(Kind.LIFECYCLE_CONFIG, name)
                lab.account.call(
                    "sagemaker",
                    "create_notebook_instance_lifecycle_config",
                    NotebookInstanceLifecycleConfigName=name,
                    OnStart=[{"Content": base64.b64encode(script).decode()}],
                    Tags=lab.tags,
                )
                self.scripts[name] = script
                lab.creating(Kind.NOTEBOOK, name)
                self._create_notebook(name, self._network_of(letter))
                created.append(name)
        except AwsError as error:
            self._miss([Need.NOTEBOOK, Need.PROBE, Need.NGROK, Need.ENDPOINT], f"no notebook could be created: {error}")
        lab.notebooks = tuple(created)
        self._say(f"creating {len(created)} notebooks")

    def _network_of(self, letter: str) -> dict[str, Any]:
        """The first notebook is in the VPC, the second in SageMaker's own network."""
        if letter != "a" or not self._vpc:
            return {}
        return {
            **self._network,
            "SecurityGroupIds": [self.lab.outputs["NotebookGroup"]],
            "DirectInternetAccess": "Enabled",
        }

    def _create_notebook(self, name: str, network: Mapping[str, Any]) -> None:
        """Raises AwsError. A role that is seconds old may be refused, since IAM is eventually consistent."""
        ends = time.monotonic() + ROLE_LIMIT_S
        while True:
            answer = self.lab.account.attempt(
                "sagemaker",
                "create_notebook_instance",
                NotebookInstanceName=name,
                InstanceType=self.settings.instance_type,
                RoleArn=self.lab.outputs["NotebookRole"],
                LifecycleConfigName=name,
                Tags=self.lab.tags,
                **network,
            )
            if not isinstance(answer, Refusal):
                return
            if "role" not in answer.message.lower() or time.monotonic() > ends:
                raise AwsError("sagemaker:CreateNotebookInstance", answer)
            time.sleep(3)

    def _create_stack(self) -> None:
        """Create the stack under test; where the account refuses an endpoint or a key, without them."""
        lab, run = self.lab, self.lab.run
        always = {"TagKey": run.tag_key, "DefaultLifecycleConfig": run.prefix, "SyncSeconds": "30", "SweepMinutes": "2"}
        # Whatever StartNotebookInstance checks of its caller, the stack may start them.
        always |= {"Dashboard": "false", "NotebookRoleArns": lab.outputs["NotebookRole"], **self.settings.parameters}
        endpoint: dict[str, str] = {}
        if Need.ENDPOINT not in self.unmet:
            endpoint = {"EndpointVpc": self._vpc, "EndpointSubnet": str(self._network["SubnetId"])}
        for more in ({"Certificates": "true", **endpoint}, {}):
            self._say("creating the stack under test" + ("" if more else ", without certificates and endpoint"))
            try:
                deployment.create_stack(lab, self.settings.release, {**always, **more})
                lab.stack = deployment.outputs_of(lab.account, run.prefix)
                break
            except (AwsError, DeploymentError) as error:
                why = f"the stack under test could not be created: {error}"
                self._say(why)
                self._miss([Need.ENDPOINT], why)
                resources.delete(lab, self._say)
        else:
            self._miss([Need.STACK, Need.NGROK], why)
            return
        lab.stack_name = run.prefix
        self._store_token()

    def _store_token(self) -> None:
        """Store ngrok's token in the stack's secret, if there is one."""
        if not self.settings.ngrok_token:
            self._miss([Need.NGROK], f"it needs {Need.NGROK.value}")
            return
        secret = {"SecretId": self.lab.stack["SecretArn"], "SecretString": self.settings.ngrok_token}
        try:
            self.lab.account.call("secretsmanager", "put_secret_value", **secret)
        except AwsError as error:
            self._miss([Need.NGROK], f"ngrok's token could not be stored: {error}")

    def _wait_for_notebooks(self) -> None:
        lab = self.lab
        self._say("waiting for the notebooks")
        names = lab.notebooks
        settled = {"InService", "Failed"}  # maintenance passes
        lab.wait(lambda: {lab.state(name) for name in names} <= settled, READY_LIMIT_S)
        ready = tuple(name for name in names if lab.state(name) == "InService")
        if len(ready) < len(names):
            why = "; ".join(self._failure(name) for name in names if name not in ready)
            self._miss([Need.NOTEBOOK, Need.PROBE, Need.NGROK, Need.ENDPOINT], why)
            lab.notebooks = ()
            return
        lab.probes = self._read_probes(names[0])

    def _failure(self, name: str) -> str:
        notebook = self.lab.describe_notebook(name)
        return f"{name} is {notebook['NotebookInstanceStatus']}: {notebook.get('FailureReason', 'without a reason')}"

    def _read_probes(self, name: str) -> probe.Probes:
        """What the first notebook's on-start script printed; it may take a while until CloudWatch Logs has it."""
        place: dict[str, Any] = {"logGroupName": LOG_GROUP, "logStreamName": f"{name}/LifecycleConfigOnStart"}

        def read() -> probe.Probes | None:
            answer = self.lab.account.attempt("logs", "get_log_events", startFromHead=True, **place)
            if isinstance(answer, Refusal):
                if answer.code != "ResourceNotFoundException":
                    raise AwsError("logs:GetLogEvents", answer)
                return None
            found = probe.parse(line for each in answer["events"] for line in each["message"].splitlines())
            return found if "end" in found.values else None

        try:
            found = self.lab.wait(read, LOG_LIMIT_S)
        except AwsError as error:
            self._miss([Need.PROBE], f"the log of the notebook's on-start script cannot be read: {error}")
            return probe.Probes()
        if found is None:
            self._miss([Need.PROBE], "the log of the notebook's on-start script is not there, or has no end")
        return found or probe.Probes()
