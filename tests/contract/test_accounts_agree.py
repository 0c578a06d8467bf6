"""What the adapters are told by AWS, they are told alike by the three accounts that stand in for it.

The simulation, the functions' tests and the local run each rest on another account. Where one of them were kinder than
the others, its tests would show less than they seem to. Each case here is a fact of the services' documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError
from contract.accounts import ACCOUNTS, TABLE, Aws
from support.aws_clients import clients_made_by

from notebook_ssh.adapters import ec2, resource_tagging, sagemaker
from notebook_ssh.adapters.lease import LeaseHeldError, Leases
from notebook_ssh.adapters.table import Conflict, CountUp, Increment, Once, Table
from notebook_ssh.errors import InvalidStateError, NotFoundError
from notebook_ssh.model.network import Direction, Ec2Query, FoundRule, Rule
from notebook_ssh.planning.rules import AuthorizeRule, RevokeRule, RulePlan

STACK = "contract"
SCRIPT, OTHER = b"#!/bin/bash\necho one\n", b"#!/bin/bash\necho two\n"
LARGEST = b"#" * 12_288
"""The bytes that base64 makes the 16,384 characters of a hook's content of (NotebookInstanceLifecycleHook)."""

numbers = itertools.count(1)


@pytest.fixture(scope="module", params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Iterator[Aws]:
    with ACCOUNTS[request.param]() as account:
        yield account


@pytest.fixture
def aws(account: Aws) -> Iterator[Aws]:
    """An account, asked by the adapters."""
    made = {service: account.client(service) for service in ("sagemaker", "dynamodb", "ec2")}
    made["resourcegroupstaggingapi"] = account.client("resourcegroupstaggingapi")
    sagemaker.forget()
    with clients_made_by(made.__getitem__):
        yield account


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"Box-{next(numbers):03}"


def state(name: str) -> str:
    return str(sagemaker.describe_notebook(name).state)


# ---- notebooks ---------------------------------------------------------------------------------


def test_a_notebook_goes_from_status_to_status(aws: Aws, name: str) -> None:
    aws.make_notebook(name)
    assert state(name) == "InService"
    sagemaker.stop(name)
    aws.settle()
    assert state(name) == "Stopped"
    sagemaker.start(name)
    aws.settle()
    assert state(name) == "InService"


@pytest.mark.parametrize(
    ("stopped", "change"),
    [
        (False, sagemaker.start),
        (False, sagemaker.detach),
        (False, lambda name: sagemaker.attach(name, f"{name}-config")),
        (True, sagemaker.stop),
    ],
    ids=["start what runs", "detach while it runs", "attach while it runs", "stop what is stopped"],
)
def test_a_change_that_the_status_does_not_allow(
    aws: Aws, name: str, stopped: bool, change: Callable[[str], None]
) -> None:
    sagemaker.create_lifecycle_config(f"{name}-config", SCRIPT, SCRIPT, STACK)
    aws.make_notebook(name)
    if stopped:
        sagemaker.stop(name)
        aws.settle()
    before = sagemaker.describe_notebook(name)
    with pytest.raises(InvalidStateError):
        change(name)
    assert sagemaker.describe_notebook(name) == before


@pytest.mark.parametrize(
    "ask",
    [
        sagemaker.describe_notebook,
        sagemaker.start,
        sagemaker.stop,
        sagemaker.detach,
        sagemaker.describe_lifecycle_config,
    ],
    ids=["describe", "start", "stop", "detach", "configuration"],
)
@pytest.mark.usefixtures("aws")
def test_what_does_not_exist(ask: Callable[[str], object]) -> None:
    with pytest.raises(NotFoundError):
        ask("Nobody")


def test_an_attached_configuration_is_in_describe_and_in_lists(aws: Aws, name: str) -> None:
    config = f"{name}-config"
    sagemaker.create_lifecycle_config(config, SCRIPT, OTHER, STACK)
    aws.make_notebook(name)
    sagemaker.stop(name)
    aws.settle()
    sagemaker.attach(name, config)
    aws.settle()
    assert sagemaker.describe_notebook(name).lifecycle_config == config
    assert [line.name for line in sagemaker.users_of_lifecycle_config(config)] == [name]
    assert sagemaker.users_of_lifecycle_config(config[:-1]) == []
    sagemaker.detach(name)
    aws.settle()
    assert sagemaker.describe_notebook(name).lifecycle_config is None
    assert sagemaker.users_of_lifecycle_config(config) == []


def test_an_unknown_configuration_is_not_attached(aws: Aws, name: str) -> None:
    aws.make_notebook(name)
    sagemaker.stop(name)
    aws.settle()
    with pytest.raises(NotFoundError):
        sagemaker.attach(name, f"{name}-nothing")
    assert sagemaker.describe_notebook(name).lifecycle_config is None


def test_a_name_is_found_whatever_its_capitals(aws: Aws, name: str) -> None:
    aws.make_notebook(name)
    assert sagemaker.find_notebook(name.lower(), 0).name == name


def test_lists_go_on_over_their_pages(aws: Aws, name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        aws.make_notebook(each)
    assert [line.name for line in sagemaker.list_notebooks(NameContains=f"{name}-")] == names


# ---- configurations ----------------------------------------------------------------------------


@pytest.mark.usefixtures("aws")
def test_a_script_is_kept_byte_for_byte(name: str) -> None:
    every_byte = bytes(range(256))
    sagemaker.create_lifecycle_config(name, every_byte, SCRIPT, STACK)
    found = sagemaker.describe_lifecycle_config(name)
    assert (found.on_create, found.on_start) == (every_byte, SCRIPT)
    written = sagemaker.write_script(found, every_byte)
    assert (written.on_create, written.on_start) == (every_byte, every_byte)
    assert sagemaker.describe_lifecycle_config(name) == written


@pytest.mark.usefixtures("aws")
def test_the_largest_script_and_one_byte_more(name: str) -> None:
    sagemaker.create_lifecycle_config(name, SCRIPT, SCRIPT, STACK)
    largest = sagemaker.write_script(sagemaker.describe_lifecycle_config(name), LARGEST)
    with pytest.raises(ClientError, match="16384"):
        sagemaker.write_script(largest, LARGEST + b"#")
    assert sagemaker.describe_lifecycle_config(name) == largest


@pytest.mark.usefixtures("aws")
def test_a_configuration_that_is_there_stays_as_it_is(name: str) -> None:
    sagemaker.create_lifecycle_config(name, SCRIPT, SCRIPT, STACK)
    sagemaker.create_lifecycle_config(name, OTHER, OTHER, STACK)
    assert sagemaker.describe_lifecycle_config(name).on_start == SCRIPT


@pytest.mark.usefixtures("aws")
def test_a_script_is_cleared_and_the_other_hook_stays(name: str) -> None:
    sagemaker.create_lifecycle_config(name, SCRIPT, OTHER, STACK)
    cleared = sagemaker.write_script(sagemaker.describe_lifecycle_config(name), None)
    assert (cleared.on_create, cleared.on_start) == (SCRIPT, None)


@pytest.mark.usefixtures("aws")
def test_an_overtaken_write_is_noticed(name: str) -> None:
    sagemaker.create_lifecycle_config(name, SCRIPT, SCRIPT, STACK)
    read = sagemaker.describe_lifecycle_config(name)
    sagemaker.write_script(read, OTHER)
    with pytest.raises(sagemaker.ScriptConflictError):
        sagemaker.delete_lifecycle_config(read)
    sagemaker.delete_lifecycle_config(read._replace(on_start=OTHER))
    with pytest.raises(NotFoundError):
        sagemaker.describe_lifecycle_config(name)


def test_a_configuration_in_use_is_not_deleted(aws: Aws, name: str) -> None:
    sagemaker.create_lifecycle_config(name, SCRIPT, SCRIPT, STACK)
    aws.make_notebook(name, name)
    with pytest.raises(sagemaker.ScriptConflictError):
        sagemaker.delete_lifecycle_config(sagemaker.describe_lifecycle_config(name))
    assert sagemaker.describe_lifecycle_config(name).on_start == SCRIPT


# ---- tags --------------------------------------------------------------------------------------


def test_a_tag_has_one_value_and_one_that_is_not_there_may_be_removed(aws: Aws, name: str) -> None:
    aws.make_notebook(name, team="a")
    arn = sagemaker.describe_notebook(name).arn
    sagemaker.write_tags(arn, {"ssh": "ngrok"})
    sagemaker.write_tags(arn, {"ssh": "bastion"})
    assert sagemaker.read_tags(arn) == {"team": "a", "ssh": "bastion"}
    sagemaker.remove_tags(arn, "ssh", "never-there")
    assert sagemaker.read_tags(arn) == {"team": "a"}


def test_the_tagging_api_finds_by_key_whatever_the_value(aws: Aws, name: str) -> None:
    key = name.lower()
    for number in range(4):
        aws.make_notebook(f"{name}-{number}", **({key: "x" * number} if number else {}))
    found = dict(resource_tagging.tagged_notebooks(key))
    assert sorted(found) == sorted(sagemaker.describe_notebook(f"{name}-{number}").arn for number in (1, 2, 3))
    assert sorted(tags[key] for tags in found.values()) == ["x", "xx", "xxx"]


# ---- DynamoDB ----------------------------------------------------------------------------------


@pytest.fixture
def table(aws: Aws) -> Table:
    return Table(TABLE)


def test_an_update_creates_changes_and_removes(table: Table, name: str) -> None:
    assert table.item("a", name) is None
    table.update("a", name, set={"text": "x", "part": {"one": 1, "two": ["b", True]}})
    table.update("a", name, set={"part.one": 2, "count": 1}, remove=["text"])
    new = table.update("a", name, set={"count": Increment(2)}, returns="ALL_NEW")
    assert new == {"pk": "a", "sk": name, "part": {"one": 2, "two": ["b", True]}, "count": 3}
    assert table.item("a", name, consistent=True) == new


def test_a_value_is_kept_and_a_number_counts_from_nothing(table: Table, name: str) -> None:
    for number in (1, 2):
        table.update("a", name, set={"first": Once({"at": number}), "count": CountUp(number), "text": "x"})
    assert table.item("a", name, consistent=True) == {
        "pk": "a",
        "sk": name,
        "first": {"at": 1},
        "count": 3,
        "text": "x",
    }


def test_what_was_changed_is_returned_as_it_was(table: Table, name: str) -> None:
    table.update("a", name, set={"kept": 1, "changed": 1})
    assert table.update("a", name, set={"changed": 2, "new": 3}, returns="UPDATED_OLD") == {"changed": 1}


@pytest.mark.parametrize("change", [{"count": Increment(1)}, {"part.one": 1}], ids=["a number", "a part"])
def test_what_is_not_there_is_not_changed(table: Table, name: str, change: dict[str, object]) -> None:
    table.update("a", name, set={"text": "x"})
    with pytest.raises(ClientError, match="ValidationException"):
        table.update("a", name, set=change)
    assert table.item("a", name, consistent=True) == {"pk": "a", "sk": name, "text": "x"}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("#number = :three", True),
        ("#number <> :three", False),
        ("#number < :three OR #number >= :three", True),
        ("#number > :three AND #number <= :three", False),
        ("attribute_exists(#number)", True),
        ("attribute_exists(#nothing)", False),
        ("attribute_not_exists(#nothing)", True),
        ("#nothing = :three", False),
        ("#nothing <> :three", True),
        ("#part.#inner = :three", True),
        ("attribute_not_exists(#part.#nothing)", True),
        ("(#number = :three OR #nothing = :three) AND attribute_exists(#part)", True),
    ],
)
def test_a_condition(table: Table, name: str, condition: str, holds: bool) -> None:
    table.update("a", name, set={"number": 3, "part": {"inner": 3}})
    values = {"three": 3} if ":three" in condition else {}
    outcome = table.update("a", name, set={"written": True}, condition=condition, values=values)
    assert isinstance(outcome, Conflict) is not holds
    found = table.item("a", name, consistent=True)
    assert found is not None
    assert found.get("written", False) is holds
    if isinstance(outcome, Conflict):
        assert outcome.item == found, "the item that was in the way is told"


def test_a_condition_on_what_does_not_exist(table: Table, name: str) -> None:
    outcome = table.update("a", name, set={"x": 1}, condition="attribute_exists(#pk)")
    assert outcome == Conflict(None)
    assert table.item("a", name, consistent=True) is None


def test_an_item_is_deleted_only_where_the_condition_holds(table: Table, name: str) -> None:
    table.put("a", name, {"holder": "me"})
    table.delete("a", name, condition="#holder = :holder", values={"holder": "another"})
    assert table.item("a", name, consistent=True) == {"pk": "a", "sk": name, "holder": "me"}
    table.delete("a", name, condition="#holder = :holder", values={"holder": "me"})
    table.delete("a", name)
    assert table.item("a", name, consistent=True) is None


def test_a_partition_is_read_in_order_and_whole_and_keys_in_any(table: Table, name: str) -> None:
    for number in (2, 0, 1):
        table.put(name, f"{number}", {"number": number, "large": "x" * 1_000})
    assert [item["number"] for item in table.items(name, consistent=True)] == [0, 1, 2]
    assert [item["number"] for item in table.items(name, only=["number"])] == [0, 1, 2]
    assert list(table.items(f"{name}-nothing")) == []
    found = table.items_at([(name, "2"), (name, "nothing")])
    assert found[name, "nothing"] is None
    assert (found[name, "2"] or {})["number"] == 2


def test_of_two_workers_one_has_the_lease(table: Table, name: str) -> None:
    leases = Leases(table, remaining=lambda: 60_000, clock=lambda: 1_800_000_000_000)
    with leases.lease(name):
        with pytest.raises(LeaseHeldError), leases.lease(name):
            pytest.fail("both have it")
        with leases.lease(f"{name}-other"):
            pass
    with leases.lease(name):
        pass


# ---- security groups ---------------------------------------------------------------------------


def rules(group: str) -> tuple[FoundRule, ...]:
    """The group's rules of ingress."""
    found = ec2.observe(STACK, Ec2Query((group,))).rules
    return tuple(each for each in found if (each.rule.group, each.rule.direction) == (group, Direction.INGRESS))


def authorize(*wanted: Rule) -> RulePlan:
    return RulePlan(authorizations=tuple(AuthorizeRule(rule, "a test", "bastion") for rule in wanted))


def test_a_rule_is_made_once_and_known_as_ours(aws: Aws, name: str) -> None:
    group, bastion = aws.make_group(name), aws.make_group(f"{name}-bastion")
    wanted = Rule(group, Direction.INGRESS, bastion)
    for _ in range(2):
        outcome = ec2.apply(authorize(wanted), STACK)
        assert outcome.in_effect == {wanted}
        assert outcome.refused == {}
        (found,) = rules(group)
        assert (found.rule, found.stack) == (wanted, STACK)
    assert ec2.observe("another", Ec2Query((group,))).vpc_of.keys() == {group}


def test_a_revoked_rule_is_gone_and_may_be_revoked_again(aws: Aws, name: str) -> None:
    group, bastion = aws.make_group(name), aws.make_group(f"{name}-bastion")
    ec2.apply(authorize(Rule(group, Direction.INGRESS, bastion)), STACK)
    (found,) = rules(group)
    for _ in range(2):
        outcome = ec2.apply(RulePlan(revocations=(RevokeRule(found, "a test"),)), STACK)
        assert outcome.not_revoked == {}
        assert rules(group) == ()


def test_a_group_that_does_not_exist_is_a_problem_of_its_rule_alone(aws: Aws, name: str) -> None:
    group, bastion = aws.make_group(name), aws.make_group(f"{name}-bastion")
    here, nowhere = (Rule(each, Direction.INGRESS, bastion) for each in (group, "sg-0123456789abcdef0"))
    outcome = ec2.apply(authorize(nowhere, here), STACK)
    assert outcome.in_effect == {here}
    assert outcome.refused.keys() == {nowhere}
    known = ec2.observe(STACK, Ec2Query(("sg-0123456789abcdef0", group))).vpc_of
    assert group in known
    assert "sg-0123456789abcdef0" not in known


# ---- EC2 Instance Connect Endpoints ------------------------------------------------------------


def test_an_endpoint_is_described_until_it_is_deleted(aws: Aws, name: str) -> None:
    endpoint = aws.make_endpoint(name)
    found = ec2.observe_endpoint(endpoint)
    assert found is not None
    assert (found.id, found.state, found.preserves_client_ip) == (endpoint, "create-complete", False)
    assert len(found.groups) == 1
    assert found.groups[0].startswith("sg-")
    assert ec2.observe("another", Ec2Query(found.groups)).vpc_of == {found.groups[0]: found.vpc}
    assert found.dns_name  # of the local run: where its stand-in listens
    aws.delete_endpoint(endpoint)
    assert ec2.observe_endpoint(endpoint) is None


def test_an_endpoint_that_never_was_is_none(aws: Aws) -> None:
    assert ec2.observe_endpoint("eice-0fffffffffffffff0") is None
