"""A run from its beginning to its end: it creates, goes through the scenario, makes the experiments, and deletes everything.

What an account does not allow is told, and what does not depend on it goes on.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh_verify import resources
from notebook_ssh_verify.account import Account, AwsError
from notebook_ssh_verify.builder import LOG_GROUP, Builder, Say, Settings
from notebook_ssh_verify.deployment import DeploymentError
from notebook_ssh_verify.experiments.base import Need
from notebook_ssh_verify.findings import Finding, Skipped, Step, Undecided, Verdict
from notebook_ssh_verify.journal import Journal, Place
from notebook_ssh_verify.lab import Lab, TimeOverError
from notebook_ssh_verify.laptop import Laptop
from notebook_ssh_verify.ownership import Run
from notebook_ssh_verify.plan import AnExperiment, Plan, unmet
from notebook_ssh_verify.register import Fact
from notebook_ssh_verify.resources import Left
from notebook_ssh_verify.scenario import Scenario


class RefusedError(Exception):
    """The run does not begin; the message says why, and what to do."""


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
    ) -> None:
        self.lab, self.plan, self.facts, self.settings, self._say = lab, plan, facts, settings, say
        self.result = Result()
        lab.ends = time.monotonic() + settings.minutes * 60
        self._builder = Builder(lab, settings, say)

    def execute(self) -> Result:
        """Make the whole run."""
        journal = self.lab.journal
        with Laptop(self.lab.account, self.lab.environ, journal.folder if journal else None) as laptop:
            try:
                if self.plan.creates:
                    check_key_is_free(self.lab.account, self.lab.run)
                    self._builder.build(self.plan.creates, laptop.public_key)
                else:
                    self._builder.build_nothing()
                scenario = self._begin_scenario(laptop)
                self._experiment()
                self._end_scenario(scenario)
            except TimeOverError:
                self.result.stopped = f"the limit of {self.settings.minutes:g} minutes is reached (--minutes)"
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

    # ---- finding out ---------------------------------------------------------------------------

    def _begin_scenario(self, laptop: Laptop) -> Scenario | None:
        lab = self.lab
        if not self.plan.scenario:
            return None
        if not lab.stack or not lab.notebooks:
            why = self._builder.unmet.get(Need.STACK) or self._builder.unmet.get(Need.NOTEBOOK) or ""
            self.result.steps.append(Step("the scenario", why, skipped=True))
            return None
        scenario = Scenario(lab, laptop, self._mode(), self._builder.scripts, self._tell_step)
        scenario.until_report()
        scenario.again()
        return scenario

    def _mode(self) -> str:
        """The value of the scenario's tag: the user's choice, or what the account has; "" if it has neither."""
        has = {"eice": Need.ENDPOINT not in self._builder.unmet and bool(self.lab.stack.get("EndpointId"))}
        has |= {"ngrok": Need.NGROK not in self._builder.unmet}
        return next((mode for mode, there in has.items() if there and self.settings.mode in ("", mode)), "")

    def _end_scenario(self, scenario: Scenario | None) -> None:
        if scenario is None:
            return
        scenario.untag()
        scenario.tag_another()
        problem = resources.delete(self.lab, self._say)
        scenario.uninstalled(problem)

    def _tell_step(self, step: Step) -> None:
        self.result.steps.append(step)
        mark = "skipped" if step.skipped else "FAILED" if step.problem else "ok"
        self._say(f"{mark}: {step.what}: {step.problem or step.detail}")

    def _experiment(self) -> None:
        for experiment in self.plan.experiments:
            self.lab.check_time()
            self.lab.account.take_evidence()
            verdict = self._verdict(experiment)
            finding = Finding(self.facts[experiment.fact], verdict, self.lab.account.take_evidence())
            self.result.findings.append(finding)
            self._say(f"{type(verdict).__name__.lower()}: {experiment.fact}: {verdict[0]}")

    def _verdict(self, experiment: AnExperiment) -> Verdict:
        why = unmet(experiment.needs, self._builder.unmet)
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
