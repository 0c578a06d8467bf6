"""Each alarm of the template rings when what it is for comes about, and ends when its remedy is done (docs/operations.md).

The functions are real and say what they measure; AWS's own metrics are measured here as their pages define them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.alarms import MINUTE, Watch
from support.api_env import api_env
from support.bastion_env import bastion_env, failing
from support.builders import a_report
from support.notebook_env import NotebookEnv, notebook_env, user_client
from support.stack import PROJECT, Stack

from notebook_ssh.adapters.metrics import metrics
from notebook_ssh.errors import Problem, TerminalError
from notebook_ssh.model.record import NotebookState, Phase

pytestmark = pytest.mark.slow  # each makes many calls

RETRY_DELAY_S = 131
"""Seconds until a signal that failed is tried again: the queue's visibility timeout and the batch's window."""
SWEEP = 900
Scenario = Iterator[int]
"""It yields the time (epoch seconds) at which all is well, then when it is not, then when it was mended."""


@dataclass
class AlarmEnv:
    """patch, printed: of the test. stack: what the scenario opens ends with it."""

    watch: Watch
    patch: pytest.MonkeyPatch
    printed: Callable[[], str]
    stack: ExitStack

    def open(self, env: AbstractContextManager[Any]) -> Any:
        return self.stack.enter_context(env)

    def notebooks(self) -> NotebookEnv:
        """An account whose functions measure under the name of the stack that the alarms are of."""
        env: NotebookEnv = self.open(notebook_env(self.patch))
        self.patch.setattr(metrics, "service", "notebook-ssh")
        env.deaf = True
        return env

    def run(self, function: str, at: int, handle: Callable[[], object]) -> None:
        """Lambda counts a run that raises, and reads what it printed."""
        errors = 0
        try:
            handle()
        except (ClientError, TerminalError):
            errors = 1
        self.watch.measure("AWS/Lambda", "Errors", {"FunctionName": f"<{function}>"}, errors, at)
        self.watch.read(self.printed(), at)

    def sweep_for(self, seconds: int, env: NotebookEnv) -> int:
        """Sweeps on schedule; the time after them."""
        for _ in range(seconds // SWEEP):
            env.now += SWEEP
            self.run("Sweep", env.now, env.sweep)
        env.messages.clear()
        return env.now + MINUTE


def failed_signals(alarms: AlarmEnv) -> Scenario:
    """One notebook cannot be described, and the others of its batch can. The right comes back."""
    env = alarms.notebooks()
    names = ("box", "other")
    for name in names:
        env.notebook(name, ssh="ngrok")

    def look(tries: int) -> int:
        env.messages.clear()
        for name in names:
            env.look(name)
        for receives in range(1, tries + 1):
            env.now += RETRY_DELAY_S
            alarms.run("ReconcileNotebook", env.now, lambda n=receives: env.deliver(receives=n))  # type: ignore[misc]
        return env.now + MINUTE

    def denied(operation: str, given: dict[str, Any]) -> None:
        if given.get("NotebookInstanceName") == "box":
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "of a new kind"}}, operation)

    yield look(1)
    well, env.before_call = env.before_call, denied
    once = look(1)
    env.before_call = well
    for at in range(once, look(1) + SWEEP, MINUTE):
        assert not alarms.watch.rings("FailedRequestsAlarm", at), "it succeeded at the second try"
    env.now += SWEEP
    env.before_call = denied
    yield look(5)
    env.before_call = well
    yield look(1) + SWEEP


def reconcile_notebook(alarms: AlarmEnv) -> Scenario:
    """The function may no longer read the table, so that no run does anything. It may again."""
    env = alarms.notebooks()
    env.notebook("box", ssh="ngrok")

    def look(tries: int) -> int:
        for _ in range(tries):
            env.messages.clear()
            env.look("box")
            env.now += RETRY_DELAY_S
            alarms.run("ReconcileNotebook", env.now, env.deliver)
        return env.now + MINUTE

    yield look(1)
    with failing("BatchGetItem", "AccessDeniedException"):
        yield look(8)
    yield look(1) + SWEEP


def reconcile_rules(alarms: AlarmEnv) -> Scenario:
    """The rules cannot be read. The right comes back."""
    env = alarms.open(bastion_env(alarms.patch))
    record = env.notebook("nb", env.group("notebooks"))

    def look(tries: int) -> int:
        for _ in range(tries):
            env.now += RETRY_DELAY_S
            alarms.run("ReconcileRules", env.now, env.run)
        return int(env.now) + MINUTE

    yield look(1)
    env.change(record, state=NotebookState.STOPPING)
    with failing("DescribeSecurityGroupRules", "UnauthorizedOperation", status=403):
        yield look(8)
    yield look(1) + SWEEP


def answers(alarms: AlarmEnv) -> Scenario:
    """The lookup may not read the table; people ask twice a minute. It may again."""
    env = alarms.open(api_env(alarms.patch))

    def ask(minutes: int) -> int:
        for _ in range(2 * minutes):
            env.now += MINUTE // 2
            failed = env.get("/notebooks/{name}/ssh").status >= 500
            dimensions = {"ApiName": "notebook-ssh", "Stage": "v1"}
            alarms.watch.measure("AWS/ApiGateway", "5XXError", dimensions, failed, env.now)
        return int(env.now) + MINUTE

    yield ask(5)
    with failing("GetItem", "AccessDeniedException"):
        yield ask(16)
    yield ask(10)


def no_sweep(alarms: AlarmEnv) -> Scenario:
    """SageMaker's lists cannot be read, so that no sweep ends well. They can again."""
    env = alarms.notebooks()

    def denied(operation: str, given: dict[str, Any]) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, operation)

    yield alarms.sweep_for(4 * SWEEP, env)
    well, env.before_call = env.before_call, denied
    yield alarms.sweep_for(9 * SWEEP, env)
    env.before_call = well
    yield alarms.sweep_for(SWEEP, env)


def queue(alarms: AlarmEnv) -> Scenario:
    """The function is not given the signals for an hour, and then it is."""
    env = alarms.notebooks()
    env.notebook("box")

    def wait(minutes: int, *, taken: bool) -> int:
        for _ in range(minutes):
            env.now += MINUTE
            if taken:
                env.deliver()
            ages = [env.now - sent for _, sent, _ in env.messages]
            dimensions = {"QueueName": "<NotebookQueue.QueueName>"}
            alarms.watch.measure("AWS/SQS", "ApproximateAgeOfOldestMessage", dimensions, max(ages, default=0), env.now)
        return env.now

    env.look("box")
    yield wait(5, taken=True)
    env.look("box")
    yield wait(60, taken=False)
    yield wait(10, taken=True)


def reported(env: NotebookEnv, sequence: int, problem: Problem | None = None) -> None:
    """The agent of `box` reports, a minute before the next sweep."""
    record, at = env.record("box"), env.now + SWEEP - MINUTE
    phase = Phase.FAILED if problem else Phase.CONNECTED
    report = a_report(sequence=sequence, received_at=at, phase=phase, problem=problem, phase_since=at)
    assert env.table.replace_report("box", record.role, report, record.report).written


def a_connected_notebook(alarms: AlarmEnv) -> NotebookEnv:
    env = alarms.notebooks()
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.look("box")
    env.settle()
    reported(env, 1)
    return env


def needs_admin(alarms: AlarmEnv) -> Scenario:
    """A record of another version cannot be read, for two hours; then that version is deployed."""
    env = a_connected_notebook(alarms)
    yield alarms.sweep_for(SWEEP, env)
    env.table.update("notebook", "box", set={"spec": {"mode": "tailscale"}})
    yield alarms.sweep_for(8 * SWEEP, env)
    env.table.update("notebook", "box", set={"spec": {"mode": "ngrok"}})
    yield alarms.sweep_for(8 * SWEEP, env)


def stale(alarms: AlarmEnv) -> Scenario:
    """An agent falls silent for two hours, and speaks again."""
    env = a_connected_notebook(alarms)
    yield alarms.sweep_for(SWEEP, env)
    yield alarms.sweep_for(8 * SWEEP, env)
    reported(env, 2)
    yield alarms.sweep_for(SWEEP, env)


def token(alarms: AlarmEnv) -> Scenario:
    """ngrok refuses the token, and a sweep sees it. A new one is put, the agent reports, and one more sweep runs."""
    env = a_connected_notebook(alarms)
    yield alarms.sweep_for(SWEEP, env)
    reported(env, 2, Problem("ngrok-token-invalid", "ngrok refuses the token."))
    yield alarms.sweep_for(SWEEP, env) + 10 * MINUTE
    reported(env, 3)
    yield alarms.sweep_for(SWEEP, env)


def dead_letters(queue: str, letters: str) -> Callable[[AlarmEnv], Scenario]:
    """A signal is received as often as its queue allows and never answered. Moved back, it is answered."""

    def scenario(alarms: AlarmEnv) -> Scenario:
        alarms.open(notebook_env(alarms.patch))
        sqs, now = user_client("sqs"), 1_800_000_000
        template = Stack().of_type("AWS::SQS::Queue")
        fifo: dict[Any, str] = {"FifoQueue": "true"} if "FifoQueue" in template[letters] else {}
        suffix = ".fifo" if fifo else ""
        ended = sqs.create_queue(QueueName=f"ended{suffix}", Attributes=fifo)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=ended, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        tries = int(template[queue]["RedrivePolicy"]["maxReceiveCount"])
        redrive: dict[Any, str] = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": tries})}
        source = sqs.create_queue(QueueName=f"source{suffix}", Attributes={**fifo, **redrive})["QueueUrl"]

        def send(identifier: str) -> None:
            unique: dict[str, Any] = {"MessageGroupId": "all", "MessageDeduplicationId": identifier} if fifo else {}
            sqs.send_message(QueueUrl=source, MessageBody="{}", **unique)

        def measure() -> int:
            nonlocal now
            now += 5 * MINUTE
            attributes = sqs.get_queue_attributes(QueueUrl=ended, AttributeNames=["ApproximateNumberOfMessages"])
            dimensions = {"QueueName": f"<{letters}.QueueName>"}
            count = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
            alarms.watch.measure("AWS/SQS", "ApproximateNumberOfMessagesVisible", dimensions, count, now)
            return now

        send("1")
        for _ in range(tries):
            sqs.receive_message(QueueUrl=source, VisibilityTimeout=0)
        yield measure()
        sqs.receive_message(QueueUrl=source, VisibilityTimeout=0)
        yield measure()
        (letter,) = sqs.receive_message(QueueUrl=ended)["Messages"]
        send("2")
        sqs.delete_message(QueueUrl=ended, ReceiptHandle=letter["ReceiptHandle"])
        yield measure()

    return scenario


def undelivered_events(alarms: AlarmEnv) -> Scenario:
    """EventBridge put an event aside. It is thrown away, as the sweep has seen what it told of."""
    alarms.open(notebook_env(alarms.patch))
    sqs, now = user_client("sqs"), 1_800_000_000
    letters = sqs.create_queue(QueueName="signals")["QueueUrl"]

    def measure() -> int:
        nonlocal now
        now += 5 * MINUTE
        attributes = sqs.get_queue_attributes(QueueUrl=letters, AttributeNames=["ApproximateNumberOfMessages"])
        count = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
        dimensions = {"QueueName": "<EventDeadLetterQueue.QueueName>"}
        alarms.watch.measure("AWS/SQS", "ApproximateNumberOfMessagesVisible", dimensions, count, now)
        return now

    yield measure()
    sqs.send_message(QueueUrl=letters, MessageBody="{}")
    yield measure()
    sqs.purge_queue(QueueUrl=letters)
    yield measure()


SCENARIOS: dict[str, Callable[[AlarmEnv], Scenario]] = {
    "NotebookDeadLetterQueueAlarm": dead_letters("NotebookQueue", "NotebookDeadLetterQueue"),
    "RuleDeadLetterQueueAlarm": dead_letters("RuleQueue", "RuleDeadLetterQueue"),
    "EventDeadLetterQueueAlarm": undelivered_events,
    "ReconcileNotebookAlarm": reconcile_notebook,
    "FailedRequestsAlarm": failed_signals,
    "ReconcileRulesAlarm": reconcile_rules,
    "AnswersAlarm": answers,
    "SweepAlarm": no_sweep,
    "QueueAlarm": queue,
    "NeedsAdminAlarm": needs_admin,
    "StaleAlarm": stale,
    "TokenAlarm": token,
}


@pytest.mark.parametrize("alarm", SCENARIOS)
def test_the_alarm_rings_and_ends(
    alarm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    with ExitStack() as stack:
        scenario = SCENARIOS[alarm](AlarmEnv(watch, monkeypatch, lambda: capsys.readouterr().out, stack))
        assert not watch.rings(alarm, next(scenario)), "all is well"
        assert watch.rings(alarm, next(scenario))
        assert not watch.rings(alarm, next(scenario)), "it was mended"


def test_every_alarm_has_its_scenario_and_its_row_in_the_table_of_what_to_do() -> None:
    section = (PROJECT / "docs/operations.md").read_text("utf-8").partition("\n## Alarms\n")[2].partition("\n## ")[0]
    rows = {
        name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+Alarm)`", line)
    }
    assert set(SCENARIOS) == set(Watch().alarms) == rows
