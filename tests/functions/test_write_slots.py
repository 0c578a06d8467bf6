"""Write slots and leases, for several workers at once, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, strategies as st
from support.aws_clients import clients_made_by, forget_listeners
from support.examples import examples
from support.notebook_env import NotebookEnv, notebook_env

from notebook_ssh.adapters import resource_tagging, sqs
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.lease import LeaseHeldError, Leases
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.write_slots import (
    MIN_INTERVAL_MS,
    SHUTDOWN_MARGIN_MS,
    SlotUnavailableError,
    WriteSlots,
)
from notebook_ssh.errors import RetryableError


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


class Worker:
    """One worker's clock, in milliseconds, and the moments at which it wrote."""

    def __init__(self, env: NotebookEnv, starts: int, lasts: int = 120_000) -> None:
        self.clock, self.end = starts, starts + lasts
        self.writes: list[int] = []
        self.slots = WriteSlots(env.table, lambda: self.end - self.clock, lambda: self.clock, self.sleep)
        self.leases = Leases(env.table, lambda: self.end - self.clock, lambda: self.clock)

    def sleep(self, seconds: float) -> None:
        self.clock += round(seconds * 1000)

    def write(self) -> None:
        self.slots.wait_for(None)
        self.writes.append(self.clock)


@given(starts=st.lists(st.integers(0, 5_000), min_size=1, max_size=3), order=st.lists(st.integers(0, 2), max_size=25))
@examples(25, HealthCheck.function_scoped_fixture)
def test_all_workers_together_write_once_a_second(env: NotebookEnv, starts: list[int], order: list[int]) -> None:
    env.table.delete("coordination", "sagemaker-writes")
    workers = [Worker(env, 1_000_000 + start) for start in starts]
    for number in order:
        workers[number % len(workers)].write()
    writes = sorted(moment for worker in workers for moment in worker.writes)
    assert all(later - earlier >= MIN_INTERVAL_MS for earlier, later in pairwise(writes))
    # Nor is a slot wasted while a worker waits.
    assert len(writes) < 2 or writes[-1] <= max(starts) + 1_000_000 + MIN_INTERVAL_MS * len(writes)


def test_a_slot_that_comes_too_late_is_not_taken(env: NotebookEnv) -> None:
    patient, hasty = Worker(env, 0), Worker(env, 0, lasts=SHUTDOWN_MARGIN_MS + 2_500)
    for _ in range(5):
        patient.slots.reserve()
    with pytest.raises(SlotUnavailableError) as refused:
        hasty.write()
    assert refused.value.retry_after == 5
    assert patient.slots.reserve() == 5 * MIN_INTERVAL_MS


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_slot_that_is_asked_for_ahead_comes_so_much_later_and_puts_nobody_off(env: NotebookEnv, waiting: int) -> None:
    """ahead: time to prepare. A worker that has to wait longer than that anyway gets the very next slot."""
    worker = Worker(env, 1_000_000)
    for _ in range(waiting):
        worker.slots.reserve()
    assert worker.slots.reserve(ahead=300) == 1_000_000 + max(300, waiting * MIN_INTERVAL_MS)
    assert worker.slots.reserve() == 1_000_000 + max(300, waiting * MIN_INTERVAL_MS) + MIN_INTERVAL_MS


def test_a_slot_that_is_asked_for_ahead_must_come_in_time_as_well(env: NotebookEnv) -> None:
    worker = Worker(env, 0, lasts=SHUTDOWN_MARGIN_MS + 500)
    assert worker.slots.reserve(ahead=500) == 500
    env.table.delete("coordination", "sagemaker-writes")
    with pytest.raises(SlotUnavailableError):
        worker.slots.reserve(ahead=501)
    assert env.table.item("coordination", "sagemaker-writes") is None


def test_at_the_end_of_an_invocation_nothing_is_begun(env: NotebookEnv) -> None:
    with pytest.raises(SlotUnavailableError):
        Worker(env, 0, lasts=SHUTDOWN_MARGIN_MS - 1).write()


def test_a_closed_stack_gives_turns_to_its_end_alone(env: NotebookEnv) -> None:
    worker = Worker(env, 0)
    last = WriteSlots(env.table, lambda: 60_000, lambda: 0, lambda seconds: None, is_teardown=True)
    last.begin_teardown()
    assert RecordCache(env.table, 0).is_tearing_down()
    with pytest.raises(SlotUnavailableError):
        worker.write()
    last.wait_for(None)
    last.cancel_teardown()
    worker.write()
    assert len(worker.writes) == 1


def test_what_one_holds_no_other_gets_until_it_lets_go(env: NotebookEnv) -> None:
    one, other = Worker(env, 0), Worker(env, 0)
    with one.leases.lease("configuration/a", "notebook/b"):
        with pytest.raises(LeaseHeldError), other.leases.lease("notebook/b"):
            raise AssertionError("held twice")
        with other.leases.lease("configuration/c"):
            pass
    with other.leases.lease("configuration/a", "notebook/b"):
        pass


def test_a_claim_whose_answer_was_lost_is_ours(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore sends it again, and it meets itself."""
    write = client("dynamodb").update_item
    monkeypatch.setattr(client("dynamodb"), "update_item", lambda **given: (write(**given), write(**given))[1])
    with Worker(env, 0).leases.lease("configuration/a"):
        pass
    assert env.table.item("coordination", "lease/configuration/a") is None


def test_a_holder_that_was_late_does_not_let_go_of_anothers(env: NotebookEnv) -> None:
    late, next_one, third = Worker(env, 0, lasts=100), Worker(env, 200), Worker(env, 300)
    with late.leases.lease("configuration/a"):
        held = next_one.leases.lease("configuration/a")
        held.__enter__()
    with pytest.raises(LeaseHeldError), third.leases.lease("configuration/a"):
        raise AssertionError("held twice")
    held.__exit__(None, None, None)


# ---- the queue and the tagging API -------------------------------------------------------------


@pytest.fixture
def account(env: NotebookEnv) -> str:
    forget_listeners()
    return client("sqs").create_queue(QueueName="notebooks")["QueueUrl"]


def test_messages_go_by_tens(account: str) -> None:
    assert sqs.send(account, (({"number": number}, 0) for number in range(23))) == 23
    found = client("sqs").get_queue_attributes(QueueUrl=account, AttributeNames=["ApproximateNumberOfMessages"])
    assert found["Attributes"]["ApproximateNumberOfMessages"] == "23"
    assert sqs.send(account, []) == 0


def test_a_delay_longer_than_the_queue_allows_is_the_longest(account: str) -> None:
    assert sqs.send(account, [({"number": 1}, 5_000), ({"number": 2}, -3)]) == 2


def test_a_message_that_was_not_taken_is_a_failure(account: str) -> None:
    class Refusing:
        def send_message_batch(self, **given: object) -> dict[str, object]:
            return {"Failed": [{"Code": "InternalError"}]}

    with clients_made_by(lambda service: Refusing()), pytest.raises(RetryableError):
        sqs.send(account, [({}, 0)])


def test_the_bastion_hears_every_change(account: str) -> None:
    fifo = client("sqs").create_queue(QueueName="bastion.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sqs.request_rule_sync(fifo, "box", "event-1")
    sqs.request_rule_sync(fifo, "box", "event-1")
    found = client("sqs").get_queue_attributes(QueueUrl=fifo, AttributeNames=["ApproximateNumberOfMessages"])
    assert found["Attributes"]["ApproximateNumberOfMessages"] == "2"


def test_only_an_empty_token_ends_the_list_of_tags() -> None:
    box = {
        "ResourceARN": "arn:aws:sagemaker:eu-west-1:1:notebook-instance/Box",
        "Tags": [{"Key": "ssh", "Value": "ngrok"}],
    }
    pages: dict[str, dict[str, object]] = {
        "": {"ResourceTagMappingList": [], "PaginationToken": "1"},
        "1": {"ResourceTagMappingList": [box], "PaginationToken": "2"},
        "2": {"ResourceTagMappingList": [], "PaginationToken": ""},
    }

    class Paged:
        def get_resources(self, **given: str) -> dict[str, object]:
            return pages[given["PaginationToken"]]

    with clients_made_by(lambda service: Paged()):
        found = dict(resource_tagging.tagged_notebooks("ssh"))
    assert found == {"arn:aws:sagemaker:eu-west-1:1:notebook-instance/box": {"ssh": "ngrok"}}
