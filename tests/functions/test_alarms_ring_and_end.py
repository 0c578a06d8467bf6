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
from support.api_world import api_world
from support.bastion_world import an_account, failing
from support.builders import a_report
from support.notebook_world import World, a_world, user_client
from support.stack import PROJECT, Stack

from notebook_ssh.adapters.metrics import metrics
from notebook_ssh.errors import Problem, TerminalError
from notebook_ssh.model.record import NotebookState, Phase

pytestmark = pytest.mark.slow  # each makes many calls

RETRY_DELAY_S = 131
"""Seconds until a signal that failed is tried again: the queue's visibility timeout and the batch's window."""
SWEEP = 900
Story = Iterator[int]
"""It yields the time (epoch seconds) at which all is well, then when it is not, then when it was mended."""


@dataclass
class Scene:
    """patch, printed: of the test. stack: what the story opens ends with it."""

    watch: Watch
    patch: pytest.MonkeyPatch
    printed: Callable[[], str]
    stack: ExitStack

    def open(self, world: AbstractContextManager[Any]) -> Any:
        return self.stack.enter_context(world)

    def notebooks(self) -> World:
        """An account whose functions measure under the name of the stack that the alarms are of."""
        world: World = self.open(a_world(self.patch))
        self.patch.setattr(metrics, "service", "notebook-ssh")
        world.deaf = True
        return world

    def run(self, function: str, at: int, handle: Callable[[], object]) -> None:
        """Lambda counts a run that raises, and reads what it printed."""
        errors = 0
        try:
            handle()
        except (ClientError, TerminalError):
            errors = 1
        self.watch.measure("AWS/Lambda", "Errors", {"FunctionName": f"<{function}>"}, errors, at)
        self.watch.read(self.printed(), at)

    def sweep_for(self, seconds: int, world: World) -> int:
        """Sweeps on schedule; the time after them."""
        for _ in range(seconds // SWEEP):
            world.now += SWEEP
            self.run("Sweep", world.now, world.sweep)
        world.messages.clear()
        return world.now + MINUTE


def failed_signals(scene: Scene) -> Story:
    """One notebook cannot be described, and the others of its batch can. The right comes back."""
    world = scene.notebooks()
    names = ("box", "other")
    for name in names:
        world.notebook(name, ssh="ngrok")

    def look(tries: int) -> int:
        world.messages.clear()
        for name in names:
            world.look(name)
        for receives in range(1, tries + 1):
            world.now += RETRY_DELAY_S
            scene.run("ReconcileNotebook", world.now, lambda n=receives: world.deliver(receives=n))  # type: ignore[misc]
        return world.now + MINUTE

    def denied(operation: str, given: dict[str, Any]) -> None:
        if given.get("NotebookInstanceName") == "box":
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "of a new kind"}}, operation)

    yield look(1)
    well, world.before_call = world.before_call, denied
    once = look(1)
    world.before_call = well
    for at in range(once, look(1) + SWEEP, MINUTE):
        assert not scene.watch.rings("FailedRequestsAlarm", at), "it succeeded at the second try"
    world.now += SWEEP
    world.before_call = denied
    yield look(5)
    world.before_call = well
    yield look(1) + SWEEP


def reconcile_notebook(scene: Scene) -> Story:
    """The function may no longer read the table, so that no run does anything. It may again."""
    world = scene.notebooks()
    world.notebook("box", ssh="ngrok")

    def look(tries: int) -> int:
        for _ in range(tries):
            world.messages.clear()
            world.look("box")
            world.now += RETRY_DELAY_S
            scene.run("ReconcileNotebook", world.now, world.deliver)
        return world.now + MINUTE

    yield look(1)
    with failing("BatchGetItem", "AccessDeniedException"):
        yield look(8)
    yield look(1) + SWEEP


def reconcile_bastion(scene: Scene) -> Story:
    """The rules cannot be read. The right comes back."""
    bench = scene.open(an_account(scene.patch))
    record = bench.notebook("nb", bench.group("notebooks"))

    def look(tries: int) -> int:
        for _ in range(tries):
            bench.now += RETRY_DELAY_S
            scene.run("ReconcileBastion", bench.now, bench.run)
        return int(bench.now) + MINUTE

    yield look(1)
    bench.change(record, state=NotebookState.STOPPING)
    with failing("DescribeSecurityGroupRules", "UnauthorizedOperation", status=403):
        yield look(8)
    yield look(1) + SWEEP


def answers(scene: Scene) -> Story:
    """The lookup may not read the table; people ask twice a minute. It may again."""
    world = scene.open(api_world(scene.patch))

    def ask(minutes: int) -> int:
        for _ in range(2 * minutes):
            world.now += MINUTE // 2
            failed = world.get("/notebooks/{name}/ssh").status >= 500
            dimensions = {"ApiName": "notebook-ssh", "Stage": "v1"}
            scene.watch.measure("AWS/ApiGateway", "5XXError", dimensions, failed, world.now)
        return int(world.now) + MINUTE

    yield ask(5)
    with failing("GetItem", "AccessDeniedException"):
        yield ask(16)
    yield ask(10)


def no_sweep(scene: Scene) -> Story:
    """SageMaker's lists cannot be read, so that no sweep ends well. They can again."""
    world = scene.notebooks()

    def denied(operation: str, given: dict[str, Any]) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, operation)

    yield scene.sweep_for(4 * SWEEP, world)
    well, world.before_call = world.before_call, denied
    yield scene.sweep_for(9 * SWEEP, world)
    world.before_call = well
    yield scene.sweep_for(SWEEP, world)


def queue(scene: Scene) -> Story:
    """The function is not given the signals for an hour, and then it is."""
    world = scene.notebooks()
    world.notebook("box")

    def wait(minutes: int, *, taken: bool) -> int:
        for _ in range(minutes):
            world.now += MINUTE
            if taken:
                world.deliver()
            ages = [world.now - sent for _, sent, _ in world.messages]
            dimensions = {"QueueName": "<NotebookQueue.QueueName>"}
            scene.watch.measure("AWS/SQS", "ApproximateAgeOfOldestMessage", dimensions, max(ages, default=0), world.now)
        return world.now

    world.look("box")
    yield wait(5, taken=True)
    world.look("box")
    yield wait(60, taken=False)
    yield wait(10, taken=True)


def reported(world: World, sequence: int, problem: Problem | None = None) -> None:
    """The agent of `box` reports, a minute before the next sweep."""
    record, at = world.record("box"), world.now + SWEEP - MINUTE
    phase = Phase.FAILED if problem else Phase.CONNECTED
    report = a_report(sequence=sequence, received_at=at, phase=phase, problem=problem, phase_since=at)
    assert world.table.replace_report("box", record.role, report, record.report).written


def a_connected_notebook(scene: Scene) -> World:
    world = scene.notebooks()
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.look("box")
    world.settle()
    reported(world, 1)
    return world


def needs_admin(scene: Scene) -> Story:
    """A record of another version cannot be read, for two hours; then that version is deployed."""
    world = a_connected_notebook(scene)
    yield scene.sweep_for(SWEEP, world)
    world.table.update("notebook", "box", set={"spec": {"mode": "tailscale"}})
    yield scene.sweep_for(8 * SWEEP, world)
    world.table.update("notebook", "box", set={"spec": {"mode": "ngrok"}})
    yield scene.sweep_for(8 * SWEEP, world)


def stale(scene: Scene) -> Story:
    """An agent falls silent for two hours, and speaks again."""
    world = a_connected_notebook(scene)
    yield scene.sweep_for(SWEEP, world)
    yield scene.sweep_for(8 * SWEEP, world)
    reported(world, 2)
    yield scene.sweep_for(SWEEP, world)


def token(scene: Scene) -> Story:
    """ngrok refuses the token, and a sweep sees it. A new one is put, the agent reports, and one more sweep runs."""
    world = a_connected_notebook(scene)
    yield scene.sweep_for(SWEEP, world)
    reported(world, 2, Problem("ngrok-token-invalid", "ngrok refuses the token."))
    yield scene.sweep_for(SWEEP, world) + 10 * MINUTE
    reported(world, 3)
    yield scene.sweep_for(SWEEP, world)


def dead_letters(queue: str, letters: str) -> Callable[[Scene], Story]:
    """A signal is received as often as its queue allows and never answered. Moved back, it is answered."""

    def story(scene: Scene) -> Story:
        scene.open(a_world(scene.patch))
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
            scene.watch.measure("AWS/SQS", "ApproximateNumberOfMessagesVisible", dimensions, count, now)
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

    return story


def undelivered_events(scene: Scene) -> Story:
    """EventBridge put an event aside. It is thrown away, as the sweep has seen what it told of."""
    scene.open(a_world(scene.patch))
    sqs, now = user_client("sqs"), 1_800_000_000
    letters = sqs.create_queue(QueueName="signals")["QueueUrl"]

    def measure() -> int:
        nonlocal now
        now += 5 * MINUTE
        attributes = sqs.get_queue_attributes(QueueUrl=letters, AttributeNames=["ApproximateNumberOfMessages"])
        count = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
        dimensions = {"QueueName": "<EventDeadLetterQueue.QueueName>"}
        scene.watch.measure("AWS/SQS", "ApproximateNumberOfMessagesVisible", dimensions, count, now)
        return now

    yield measure()
    sqs.send_message(QueueUrl=letters, MessageBody="{}")
    yield measure()
    sqs.purge_queue(QueueUrl=letters)
    yield measure()


STORIES: dict[str, Callable[[Scene], Story]] = {
    "NotebookDeadLetterQueueAlarm": dead_letters("NotebookQueue", "NotebookDeadLetterQueue"),
    "BastionDeadLetterQueueAlarm": dead_letters("BastionQueue", "BastionDeadLetterQueue"),
    "EventDeadLetterQueueAlarm": undelivered_events,
    "ReconcileNotebookAlarm": reconcile_notebook,
    "FailedRequestsAlarm": failed_signals,
    "ReconcileBastionAlarm": reconcile_bastion,
    "AnswersAlarm": answers,
    "SweepAlarm": no_sweep,
    "QueueAlarm": queue,
    "NeedsAdminAlarm": needs_admin,
    "StaleAlarm": stale,
    "TokenAlarm": token,
}


@pytest.mark.parametrize("alarm", STORIES)
def test_the_alarm_rings_and_ends(
    alarm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    with ExitStack() as stack:
        story = STORIES[alarm](Scene(watch, monkeypatch, lambda: capsys.readouterr().out, stack))
        assert not watch.rings(alarm, next(story)), "all is well"
        assert watch.rings(alarm, next(story))
        assert not watch.rings(alarm, next(story)), "it was mended"


def test_every_alarm_has_its_story_and_its_row_in_the_table_of_what_to_do() -> None:
    section = (PROJECT / "docs/operations.md").read_text("utf-8").partition("\n## Alarms\n")[2].partition("\n## ")[0]
    rows = {
        name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+Alarm)`", line)
    }
    assert set(STORIES) == set(Watch().alarms) == rows
