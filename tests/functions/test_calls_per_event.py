"""The calls of one event: every request to DynamoDB and SageMaker, scenario by scenario, and which are not omitted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from support.aws_clients import before_each_call, clients_made_by, listen
from support.builders import a_record
from support.notebook_env import OWNERS, NotebookEnv, a_block, notebook_env

from notebook_ssh.adapters import backups
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.record_cache import MAX_AGE_S, RecordCache
from notebook_ssh.adapters.table import Table
from notebook_ssh.controllers import requests
from notebook_ssh.controllers.observe import SCRIPT_CACHE_S
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.managed_block import Inserted, insert_block
from notebook_ssh.model.record import Restart, RestartStep
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.planning.facts import has_changed
from notebook_ssh.planning.observation import LifecycleConfigRecord

pytestmark = pytest.mark.slow  # each makes many calls


@dataclass
class Account:
    """calls, order: requests of the reconciler since `scenario` was last called, by operation and one after the other."""

    env: NotebookEnv
    calls: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    within: bool = False

    def settle(self) -> None:
        self.within = True
        self.env.settle(finish=False)
        self.within = False

    def scenario(self) -> Counter[str]:
        """Everything that is waiting happens, and is counted alone."""
        self.calls.clear()
        self.order.clear()
        self.settle()
        return Counter(self.calls)


@contextmanager
def an_account(
    monkeypatch: pytest.MonkeyPatch, services: tuple[str, ...] = ("dynamodb", "sagemaker"), **environment: str
) -> Iterator[Account]:
    """services: whose requests are counted. Without status tags, which the tests of single looks do without."""
    with notebook_env(monkeypatch, **environment) as env:
        account = Account(env)

        def note(model: Any, **_: Any) -> None:
            account.calls[model.name] += account.within
            account.order += [model.name] * account.within

        for service in services:
            listen(cast("Any", client)(service), "before-call", note)
        yield account


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with an_account(monkeypatch) as account:
        yield account


def fleet(account: Account, notebooks: int, *, shared: bool = False, **tags: Any) -> None:
    for number in range(notebooks):
        if number == 0 or not shared:
            account.env.lifecycle_config(f"team-{number}")
        account.env.notebook(f"box-{number}", "team-0" if shared else f"team-{number}", **tags)
    account.env.settle(rounds=40)


def tag(account: Account, notebooks: int) -> None:
    for number in range(notebooks):
        account.env.tag(f"box-{number}", ssh="ngrok")


def look(account: Account, notebooks: int) -> None:
    for number in range(notebooks):
        account.env.look(f"box-{number}")


@pytest.mark.parametrize(("new", "reads"), [(False, 1), (True, 2)])
def test_nothing_to_do_costs_the_three_reads_of_sagemaker_and_one_of_the_table(
    account: Account, new: bool, reads: int
) -> None:
    """Two in a process that has not looked at the notebook before, and so cannot know which configuration it uses."""
    fleet(account, 1, ssh="ngrok")
    look(account, 1)
    if new:
        requests.forget()
    assert account.scenario() == {
        "BatchGetItem": reads,
        "DescribeNotebookInstance": 1,
        "ListTags": 1,
        "DescribeNotebookInstanceLifecycleConfig": 1,
    }


def test_a_script_that_was_in_place_within_the_last_minute_is_not_read_again(account: Account) -> None:
    fleet(account, 10, shared=True, ssh="ngrok")
    look(account, 10)
    assert account.scenario()["DescribeNotebookInstanceLifecycleConfig"] == 1
    account.env.now += SCRIPT_CACHE_S - 10
    look(account, 1)
    assert account.scenario() == {"BatchGetItem": 1, "DescribeNotebookInstance": 1, "ListTags": 1}
    account.env.now += SCRIPT_CACHE_S
    look(account, 1)
    assert account.scenario()["DescribeNotebookInstanceLifecycleConfig"] == 1


def test_a_batch_shares_its_reads_of_the_table(account: Account) -> None:
    fleet(account, 10, ssh="ngrok")
    look(account, 10)
    assert account.scenario() == {
        "BatchGetItem": 1,
        "DescribeNotebookInstance": 10,
        "ListTags": 10,
        "DescribeNotebookInstanceLifecycleConfig": 10,
    }


@pytest.mark.parametrize(
    ("new", "more"), [(False, {}), (True, {"GetItem": 1, "DescribeNotebookInstanceLifecycleConfig": 1})]
)
def test_a_tag_where_the_block_is_in_already_costs_four(account: Account, new: bool, more: dict[str, int]) -> None:
    fleet(account, 2, shared=True)
    tag(account, 1)
    account.settle()
    account.env.tag("box-1", ssh="ngrok")
    if new:
        requests.forget()
    assert account.scenario() == more | {
        "BatchGetItem": 1,
        "DescribeNotebookInstance": 1,
        "ListTags": 1,
        "UpdateItem": 1,
    }


def documented_calls() -> list[str]:
    """The calls in the table of docs/performance.md, in their order."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text("utf-8")
    return re.findall(r"^\| `(\w+)` \| (?:table|SageMaker|EventBridge) \| \S", text, re.MULTILINE)


def test_as_deployed_a_tag_that_installs_the_block_costs_what_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call with its reason, in its order; the event of the write, which the same process knows, included."""
    with an_account(monkeypatch, ("dynamodb", "sagemaker", "events"), STATUS_TAGS="true") as account:
        fleet(account, 1)
        tag(account, 1)
        account.scenario()
        assert len(account.order) == 16
        assert account.order == documented_calls()
        assert account.env.has_block("team-0")


@pytest.mark.parametrize(
    ("tags", "to_bastion", "at_end"),
    [
        ({"ssh": "ngrok"}, 0, 0),
        ({"ssh": "bastion"}, 1, 0),
        ({"ssh": "ngrok", "ssh_until": "2030-01-01T00:00Z"}, 0, 1),
    ],
    ids=["ngrok", "bastion", "until"],
)
def test_a_message_to_the_bastion_or_at_an_end_is_sent_once(
    account: Account, tags: dict[str, str], to_bastion: int, at_end: int
) -> None:
    fleet(account, 1)
    account.env.tag("box-0", **tags)
    account.env.deliver()
    assert account.env.has_block("team-0")
    assert account.env.bastion == to_bastion
    assert sum("its time ends" in body for _, _, body in account.env.messages) == at_end


def test_in_another_process_the_event_of_a_write_costs_one_read(account: Account) -> None:
    fleet(account, 1)
    tag(account, 1)
    account.env.deliver()
    requests.forget()
    assert account.scenario() == {"BatchGetItem": 1}


def test_the_event_of_a_write_that_was_not_recorded_is_reconciled(account: Account) -> None:
    """A process knows its own write only once the configuration's record has it."""
    fleet(account, 1)
    tag(account, 1)
    block_ref = {"S": account.env.policy().block_ref}

    def fails(operation: str, given: dict[str, Any]) -> None:
        if operation == "update_item" and block_ref in given.get("ExpressionAttributeValues", {}).values():
            raise RetryableError("throttled")

    recover = before_each_call(client("dynamodb"), fails)
    assert account.env.deliver()["batchItemFailures"]
    assert account.env.has_block("team-0")
    recover()
    account.env.messages = [message for message in account.env.messages if "Lifecycle Config" in message[2]]
    assert account.env.messages
    account.settle()
    recorded = RecordCache(account.env.table, account.env.now).config_record("team-0")
    assert recorded
    assert recorded.block == account.env.policy().block_ref


def test_as_deployed_the_status_costs_a_tag_and_an_event_and_no_second_save(monkeypatch: pytest.MonkeyPatch) -> None:
    with an_account(monkeypatch, ("dynamodb", "sagemaker", "events"), STATUS_TAGS="true") as account:
        fleet(account, 2, shared=True)
        tag(account, 1)
        account.settle()
        account.env.tag("box-1", ssh="ngrok")
        assert account.scenario() == {
            "BatchGetItem": 1,
            "DescribeNotebookInstance": 1,
            "ListTags": 1,
            "UpdateItem": 1,
            "PutEvents": 1,
            "AddTags": 1,
            "GetItem": 1,  # has another reconciliation saved the record before the tag was written?
        }


def test_the_block_in_a_script_that_five_share_is_written_once(account: Account) -> None:
    fleet(account, 5, shared=True)
    tag(account, 5)
    calls = account.scenario()
    assert calls["UpdateNotebookInstanceLifecycleConfig"] == 1
    assert calls["PutItem"] == 1  # the backup
    assert calls.total() <= 17 + 4 * 4


# ---- what is not saved on ----------------------------------------------------------------------


def another_worker_saw_a_change(env: NotebookEnv) -> None:
    config_record = RecordCache(env.table, env.now).config_record("team-0")
    assert config_record
    backups.save_config_record(env.table, config_record._replace(modified=config_record.modified + 1))


def the_stack_has_another_block(env: NotebookEnv) -> None:
    env.block = a_block("2.0.0")


def a_restart_is_asked_for(env: NotebookEnv) -> None:
    env.tag("box-0", ssh_restart="now")


def a_restart_is_under_way(env: NotebookEnv) -> None:
    before = env.record("box-0")
    assert env.table.save_observed(replace(before, restart=Restart(RestartStep.START, before.state_since, 1)), before)


def ssh_is_off(env: NotebookEnv) -> None:
    env.tag("box-0", ssh="off")


@pytest.mark.parametrize(
    "happens",
    [
        another_worker_saw_a_change,
        the_stack_has_another_block,
        a_restart_is_asked_for,
        a_restart_is_under_way,
        ssh_is_off,
    ],
)
def test_a_script_is_read_again_however_soon_when_more_hangs_on_it(
    account: Account, happens: Callable[[NotebookEnv], None]
) -> None:
    fleet(account, 2, shared=True, ssh="ngrok")
    look(account, 1)
    account.settle()
    happens(account.env)
    look(account, 1)
    account.calls.clear()
    account.within = True
    account.env.deliver()
    compared = 2 * account.calls["UpdateNotebookInstanceLifecycleConfig"]  # right before and right after
    assert account.calls["DescribeNotebookInstanceLifecycleConfig"] > compared


def test_what_was_read_for_a_batch_is_read_again_when_it_is_old(account: Account) -> None:
    fleet(account, 3, ssh="ngrok")

    def slow(operation: str, given: dict[str, Any]) -> None:
        if operation == "describe_notebook_instance":
            account.env.now += MAX_AGE_S + 1

    account.env.before_call = slow
    look(account, 3)
    assert account.scenario()["BatchGetItem"] == 3


def test_a_stack_that_is_closed_during_a_batch_is_left_alone(account: Account) -> None:
    fleet(account, 2, ssh="ngrok")
    described: list[str] = []

    def closing(operation: str, given: dict[str, Any]) -> None:
        described.append(operation)
        client("dynamodb").put_item(
            TableName="records",
            Item={"pk": {"S": "coordination"}, "sk": {"S": "sagemaker-writes"}, "tearing_down": {"BOOL": True}},
        )
        account.env.now += MAX_AGE_S + 1

    account.env.before_call = closing
    look(account, 2)
    account.settle()
    assert described.count("describe_notebook_instance") == 1


def test_a_reconcile_with_a_newer_record_undoes_nothing_and_is_repeated(account: Account) -> None:
    fleet(account, 1)
    env = account.env
    tag(account, 1)

    def another(operation: str, given: dict[str, Any]) -> None:
        """Another worker's look begins and ends between our reading of the table and our saving."""
        if operation == "list_tags":
            env.before_call = lambda operation, given: None
            theirs = a_record(name="box-0", observed_at=env.now, observed_hash="theirs", attached_config="by them")
            assert env.table.save_observed(theirs, None)

    env.before_call = another
    env.deliver()
    assert env.record("box-0").attached_config == "by them"
    assert env.on_start("team-0") == OWNERS
    env.now += 5
    account.settle()
    assert env.has_block("team-0")
    assert env.record("box-0").observed_hash not in ("", "theirs")


def test_a_record_is_saved_over_the_one_it_was_made_from_and_twice_by_the_same_hand(account: Account) -> None:
    table = account.env.table
    first, second = a_record(observed_at=100, observed_hash="a"), a_record(observed_at=100, observed_hash="b")
    assert table.save_observed(first, None)
    assert table.save_observed(first, None)  # botocore had lost the answer
    assert not table.save_observed(second, None)
    assert not table.save_observed(second, replace(first, observed_hash="c"))
    assert not table.save_observed(second, replace(first, observed_at=99))
    assert table.record("demo") == first
    assert table.save_observed(second, first)
    assert table.record("demo") == second


def test_a_block_that_another_worker_installed_first_is_not_written_again(account: Account) -> None:
    """Installing takes no lease: the script is compared right before the write, and reconciled again a second later."""
    fleet(account, 2, shared=True)
    env = account.env
    tag(account, 2)
    inserted = insert_block(OWNERS, env.block)
    assert isinstance(inserted, Inserted)
    described: list[str] = []

    def another(operation: str, given: dict[str, Any]) -> None:
        if operation == "describe_notebook_instance_lifecycle_config":
            described.append(operation)
            if len(described) == 2:
                env.edit("team-0", inserted.script)

    env.before_call = another
    assert not env.deliver()["batchItemFailures"]
    account.settle()
    env.now += 2
    account.settle()
    assert env.on_start("team-0") == inserted.script
    assert env.calls["update_notebook_instance_lifecycle_config"] == 0
    assert env.record("box-0").block_since == env.record("box-1").block_since


def test_a_restart_that_another_reconcile_began_is_not_repeated(account: Account) -> None:
    """Stopping is looked at twice, and noted only over the record of the second look."""
    env = account.env
    env.notebook("box")
    env.settle()
    env.now += 2000
    env.tag("box", ssh="ngrok", ssh_restart="now")
    looks: list[str] = []

    def before(operation: str, given: dict[str, Any]) -> None:
        if operation == "describe_notebook_instance":
            looks.append(operation)
            if len(looks) == 2:
                env.table.save_observed(a_record(name="box", observed_at=env.now, observed_hash="x"), None)

    env.before_call = before
    env.deliver()
    assert len(looks) == 2
    assert env.calls["stop_notebook_instance"] == 0


def test_a_configuration_attached_concurrently_is_not_replaced(account: Account) -> None:
    env = account.env
    env.lifecycle_config("theirs")
    env.notebook("box", running=False)
    env.settle()
    env.tag("box", ssh="ngrok")

    def before(operation: str, given: dict[str, Any]) -> None:
        if operation == "create_notebook_instance_lifecycle_config":
            env.before_call = lambda operation, given: None
            env.attach("box", "theirs")
            env.finish()

    env.before_call = before
    env.deliver()
    assert env.attached_config("box") == "theirs"


def test_a_reconcile_that_found_no_change_is_remembered_in_the_process_alone(account: Account) -> None:
    fleet(account, 1, ssh="ngrok")
    before = account.env.record("box-0")
    account.env.now += 100
    look(account, 1)
    late = list(account.env.messages)
    account.settle()
    assert account.env.record("box-0") == before
    account.env.now += 1
    account.env.messages += late
    assert account.scenario() == {"BatchGetItem": 1}
    requests.forget()
    account.env.messages += late
    assert account.scenario()["DescribeNotebookInstance"] == 1


def test_what_is_known_of_a_configuration_that_another_worker_is_about_to_make_is_not_forgotten(
    account: Account,
) -> None:
    env = account.env
    backups.save_config_record(env.table, LifecycleConfigRecord("team"))
    elsewhere = Leases(env.table, lambda: 60_000, lambda: env.now * 1000)
    with elsewhere.lease("configuration/team"):
        env.send("", [({"request": {"lifecycle_config": "team"}, "reason": "the scenario"}, 0)])
        env.deliver()
        assert env.table.item("lifecycle_config", "team")
    env.now += 5
    account.settle()
    assert env.table.item("lifecycle_config", "team") is None


@pytest.mark.parametrize("edited", [False, True])
def test_the_event_of_our_own_write_is_reconciled_only_if_it_may_hide_another_change(
    account: Account, edited: bool
) -> None:
    fleet(account, 1)
    env = account.env
    tag(account, 1)
    env.deliver()
    assert env.has_block("team-0")
    if edited:
        env.edit("team-0", OWNERS)
    calls = account.scenario()
    assert env.has_block("team-0")
    assert calls["UpdateNotebookInstanceLifecycleConfig"] == edited
    assert bool(calls["DescribeNotebookInstanceLifecycleConfig"]) is edited


def test_an_event_of_a_configuration_that_is_delivered_again_is_reconciled(account: Account) -> None:
    fleet(account, 1)
    tag(account, 1)
    account.env.deliver()
    account.within = True
    account.env.deliver(receives=2)
    assert account.calls["DescribeNotebookInstanceLifecycleConfig"] == 1


def test_the_end_of_access_is_news_once() -> None:
    before = a_record(spec=NotebookSpec((Mode.NGROK,), until=1_000), observed_at=900)
    assert not has_changed(before, replace(before, observed_at=999))
    assert has_changed(before, replace(before, observed_at=1_000))
    assert not has_changed(replace(before, observed_at=1_000), replace(before, observed_at=1_001))
    assert has_changed(None, before)
    assert has_changed(before, replace(before, observed_hash="other"))


# ---- reading many ------------------------------------------------------------------------------


class Forgetful:
    """DynamoDB that reads `at_once` keys of each request and leaves out the rest."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.asked = at_once, 0

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        self.asked += 1
        keys = RequestItems["records"]["Keys"]
        assert RequestItems["records"]["ConsistentRead"]
        assert len(keys) <= 100
        left = keys[self.at_once :]
        return {
            "Responses": {"records": keys[: self.at_once]},
            "UnprocessedKeys": {"records": {"Keys": left, "ConsistentRead": True}} if left else {},
        }


def test_keys_that_were_left_out_are_asked_for_again() -> None:
    service = Forgetful(60)
    keys = [("notebook", f"box-{number}") for number in range(150)]
    with clients_made_by(lambda name: service):
        found = Table("records").items_at([*keys, keys[0]])
    assert {key for key, item in found.items() if item} == set(keys)
    assert service.asked == 2 + 1


def test_what_stays_left_out_is_no_absence() -> None:
    service = Forgetful(0)
    unread = pytest.raises(RetryableError, match="2 of 2 keys were not read")
    with clients_made_by(lambda name: service), unread:
        RecordCache(Table("records"), 0).prefetch([], [])
