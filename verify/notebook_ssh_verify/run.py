"""A run from its beginning to its end: it creates, goes through the scenario, makes the experiments, and deletes everything.

What an account does not allow is told, and what does not depend on it goes on.
"""

from __future__ import annotations

import base64
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh_verify import deployment, probe, resources
from notebook_ssh_verify.account import Account, AwsError, Refusal
from notebook_ssh_verify.deployment import DeploymentError
from notebook_ssh_verify.experiments.base import Need
from notebook_ssh_verify.findings import Finding, Skipped, Step, Undecided, Verdict
from notebook_ssh_verify.journal import Journal, Place
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.laptop import Laptop
from notebook_ssh_verify.ownership import Kind, Run
from notebook_ssh_verify.plan import NOTEBOOKS, STACK, AnExperiment, Plan, unmet
from notebook_ssh_verify.register import Fact
from notebook_ssh_verify.resources import Left
from notebook_ssh_verify.scenario import Scenario

ROLE_LIMIT_S = 120.0
"""Seconds until SageMaker may assume a new role."""

READY_LIMIT_S = 1200.0
"""Seconds until a new notebook is InService."""

LOG_GROUP = "/aws/sagemaker/NotebookInstances"
LOG_LIMIT_S = 180.0

Say = Callable[[str], None]


class RefusedError(Exception):
    """The run does not begin; the message says why, and what to do."""


class TimeOverError(Exception):
    """The limit of time is reached."""


@dataclass(frozen=True)
class Settings:
    """What the user chose. subnet: of the first notebook, "" for one of the default VPC. parameters: of the stack."""

    minutes: float
    subnet: str = ""
    instance_type: str = "ml.t3.medium"
    ngrok_token: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)
    event_limit_s: float = 180.0
    release: Path = Path()


@dataclass
class Result:
    """What a run found out so far."""

    steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    stopped: str | None = None
    left: list[Left] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)


def new_run(now: float) -> Run:
    """Return a run with an id of its own that begins at `now` (epoch seconds)."""
    letters = string.ascii_lowercase + string.digits
    return Run("".join(secrets.choice(letters) for _ in range(8)), int(now))


def check_key_is_free(account: Account, run: Run) -> None:
    """Raise RefusedError if any notebook has a tag with the run's key, and AwsError if that cannot be read."""
    answer = account.call(
        "resourcegroupstaggingapi",
        "get_resources",
        TagFilters=[{"Key": run.tag_key}],
        ResourceTypeFilters=["sagemaker:notebook-instance"],
    )
    found = [each["ResourceARN"].rpartition("/")[2] for each in answer["ResourceTagMappingList"]]
    if found:
        raise RefusedError(
            f"the notebook {found[0]} has a tag {run.tag_key}, which is to be the run's own; begin another run"
        )


class VerificationRun:
    """One run. `execute` returns its result, whatever happens; what was created is deleted then, or listed."""

    def __init__(
        self,
        lab: Lab,
        plan: Plan,
        facts: Mapping[str, Fact],
        settings: Settings,
        say: Say,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lab, self.plan, self.facts, self.settings, self._say, self._clock = lab, plan, facts, settings, say, clock
        self.result = Result()
        self._unmet: dict[Need, str] = {}
        self._scripts: dict[str, bytes] = {}
        self._network: dict[str, Any] = {}
        self._vpc, self._ends = "", clock() + settings.minutes * 60

    def execute(self) -> Result:
        """Make the whole run."""
        journal = self.lab.journal
        with Laptop(self.lab.account, self.lab.environ, journal.folder if journal else None) as laptop:
            try:
                if self.plan.creates:
                    check_key_is_free(self.lab.account, self.lab.run)
                    self._build(laptop)
                else:
                    self._unmet |= {
                        need: f"it needs {need.value}" for need in Need if need is not Need.STACK or not self.lab.stack
                    }
                scenario = self._begin_scenario(laptop)
                self._experiment()
                self._end_scenario(scenario)
            except TimeOverError:
                self.result.stopped = f"the limit of {self.settings.minutes:.0f} minutes is reached (--minutes)"
            except KeyboardInterrupt:
                self.result.stopped = "it was interrupted"
            except (AwsError, DeploymentError) as error:
                self.result.stopped = str(error)
            except (ClientError, BotoCoreError) as error:
                self.result.stopped = f"{type(error).__name__}: {error}"
            finally:
                self._clean_up()
        self._skip_the_rest()
        order = list(self.facts)
        self.result.findings.sort(key=lambda finding: order.index(finding.fact.id))
        return self.result

    # ---- building ------------------------------------------------------------------------------

    def _build(self, laptop: Laptop) -> None:
        """Create what the plan needs. What an account refuses becomes the reason why experiments are skipped."""
        self._choose_network()
        lab, creates = self.lab, self.plan.creates
        with_notebooks = NOTEBOOKS in creates
        with_stack = STACK in creates
        self._say("creating the lab's stack")
        try:
            deployment.create_lab_stack(lab, self._vpc)
            lab.outputs = deployment.outputs_of(lab.account, lab.run.name("lab"))
        except (AwsError, DeploymentError) as error:
            self._miss(Need, f"the lab's stack could not be created: {error}")
            return
        if with_notebooks:
            self._create_notebooks(laptop)
        else:
            self._miss([Need.NOTEBOOK, Need.PROBE], "no notebook was needed")
        if with_stack:
            self._create_stack()
        else:
            self._miss([Need.STACK, Need.NGROK, Need.ENDPOINT], "no stack was needed")
        if lab.notebooks:
            self._wait_for_notebooks()

    def _miss(self, needs: Sequence[Need] | type[Need], why: str) -> None:
        for need in needs:
            self._unmet.setdefault(need, why)

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

    def _create_notebooks(self, laptop: Laptop) -> None:
        """Begin to create both notebooks. Raises TimeOverError."""
        lab, created = self.lab, []
        try:
            for letter in ("a", "b"):
                name = lab.run.name(letter)
                script = probe.script(lab.run.prefix, laptop.public_key)
                lab.creating(Kind.LIFECYCLE_CONFIG, name)
                lab.account.call(
                    "sagemaker",
                    "create_notebook_instance_lifecycle_config",
                    NotebookInstanceLifecycleConfigName=name,
                    OnStart=[{"Content": base64.b64encode(script).decode()}],
                    Tags=lab.tags,
                )
                self._scripts[name] = script
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
        ends = self._clock() + ROLE_LIMIT_S
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
            if "role" not in answer.message.lower() or self._clock() > ends:
                raise AwsError("sagemaker:CreateNotebookInstance", answer)
            time.sleep(3)

    def _create_stack(self) -> None:
        """Create the stack under test; where the account refuses an endpoint or a key, without them."""
        lab, run = self.lab, self.lab.run
        always = {"TagKey": run.tag_key, "DefaultLifecycleConfig": run.prefix, "SyncSeconds": "30", "SweepMinutes": "2"}
        always |= {"Dashboard": "false", **self.settings.parameters}
        endpoint: dict[str, str] = {}
        if Need.ENDPOINT not in self._unmet:
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
                resources.delete(lab.account, self._journal, run.prefix, self._say)
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
        lab.wait(lambda: {self._state(name) for name in names} <= settled, self._left(READY_LIMIT_S))
        ready = tuple(name for name in names if self._state(name) == "InService")
        if len(ready) < len(names):
            reasons = {name: lab.describe_notebook(name).get("FailureReason") for name in names if name not in ready}
            self._miss(
                [Need.NOTEBOOK, Need.PROBE, Need.NGROK, Need.ENDPOINT], f"a notebook is not InService: {reasons}"
            )
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
            found = self.lab.wait(read, self._left(LOG_LIMIT_S))
        except AwsError as error:
            self._miss([Need.PROBE], f"the log of the notebook's on-start script cannot be read: {error}")
            return probe.Probes()
        if found is None:
            self._miss([Need.PROBE], "the log of the notebook's on-start script is not there, or has no end")
        return found or probe.Probes()

    # ---- finding out ---------------------------------------------------------------------------

    def _begin_scenario(self, laptop: Laptop) -> Scenario | None:
        lab = self.lab
        if not self.plan.scenario:
            return None
        if not lab.stack or not lab.notebooks:
            why = self._unmet.get(Need.STACK) or self._unmet.get(Need.NOTEBOOK) or ""
            self.result.steps.append(Step("the scenario", why, skipped=True))
            return None
        mode = "" if Need.NGROK in self._unmet else "ngrok"
        mode = mode if Need.ENDPOINT in self._unmet or not lab.stack.get("EndpointId") else "eice"
        scenario = Scenario(lab, laptop, mode, self._scripts, self._tell_step)
        scenario.until_report()
        scenario.again()
        return scenario

    def _end_scenario(self, scenario: Scenario | None) -> None:
        if scenario is None:
            return
        scenario.untag()
        if len(self.lab.notebooks) > 1:
            scenario.tag(self.lab.notebooks[1])  # so that the uninstallation has something to undo
        problem = resources.delete(self.lab.account, self._journal, self.lab.run.prefix, self._say)
        scenario.uninstalled(problem)

    def _tell_step(self, step: Step) -> None:
        self.result.steps.append(step)
        mark = "skipped" if step.skipped else "FAILED" if step.problem else "ok"
        self._say(f"{mark}: {step.what}: {step.problem or step.detail}")

    def _experiment(self) -> None:
        for experiment in self.plan.experiments:
            self._left(1)
            self.lab.account.take_evidence()
            verdict = self._verdict(experiment)
            finding = Finding(self.facts[experiment.fact], verdict, self.lab.account.take_evidence())
            self.result.findings.append(finding)
            self._say(f"{type(verdict).__name__.lower()}: {experiment.fact}: {verdict[0]}")

    def _verdict(self, experiment: AnExperiment) -> Verdict:
        why = unmet(experiment.needs, self._unmet)
        return Skipped(why) if why else outcome(experiment, self.lab)

    def _skip_the_rest(self) -> None:
        """So that every fact of the plan is in the report."""
        seen = {finding.fact.id for finding in self.result.findings}
        why = f"the run stopped before it: {self.result.stopped}"
        self.result.findings += [
            Finding(self.facts[each.fact], Skipped(why)) for each in self.plan.experiments if each.fact not in seen
        ]

    # ---- cleaning up ---------------------------------------------------------------------------

    def _clean_up(self) -> None:
        if self.lab.journal is None:
            return
        self._say("deleting what the run created")
        try:
            self.result.left = resources.delete_all(self.lab.account, self.lab.journal, self._say)
        except KeyboardInterrupt:
            self.result.stopped = (
                "it was interrupted while it deleted what it had created; the next run goes on with that"
            )
        self.result.remains = [
            f"aws logs delete-log-stream --log-group-name {LOG_GROUP} --log-stream-name {name}/LifecycleConfigOnStart"
            for name in self.lab.notebooks
        ]

    @property
    def _journal(self) -> Journal:
        if self.lab.journal is None:
            raise RuntimeError("this run creates nothing")
        return self.lab.journal

    def _left(self, most: float) -> float:
        """Return how many seconds of `most` the limit of time leaves. Raises TimeOverError."""
        left = self._ends - self._clock()
        if left <= 0:
            raise TimeOverError
        return min(most, left)

    def _state(self, name: str) -> str:
        return str(self.lab.describe_notebook(name)["NotebookInstanceStatus"])


def outcome(experiment: AnExperiment, lab: Lab) -> Verdict:
    """Return what an experiment shows; a call that this principal may not make decides nothing."""
    try:
        return experiment.run(lab)
    except AwsError as error:
        return Undecided(f"{error.call} was refused: {error.refusal.code}")
    except ClientError as error:
        return Undecided(f"{error.operation_name} was refused: {error.response.get('Error', {}).get('Code')}")
    except BotoCoreError as error:
        return Undecided(f"AWS did not answer: {error}")


def clean_up_earlier(account: Account, journals: Sequence[Journal], place: Place, say: Say) -> list[Left]:
    """Delete what earlier runs in this place left. Returns what is still there."""
    left = []
    for journal in journals:
        if journal.place != place:
            say(
                f"run {journal.run.id} in account {journal.place.account}, {journal.place.region}, is not cleaned up: sign in there"
            )
            continue
        say(f"run {journal.run.id} did not delete everything; deleting it now")
        left += resources.delete_all(account, journal, say)
    return left
