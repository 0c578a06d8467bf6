"""Scenarios of bastion mode through the real handler, on moto's EC2 and DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from support.bastion_env import (
    NOW,
    RUNNING,
    STACK,
    STOPPED,
    BastionEnv,
    bastion_env,
    counted,
    failing,
    forgetful_filters,
    once,
    one_item_a_page,
    pages_as_in_ec2,
)
from support.stack import source

from notebook_ssh.adapters.attributes import key, to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import encode_record
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.record import OWNER_TAG, Network, NotebookState, Phase, Record, Report, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import Code, status_of

pytestmark = pytest.mark.slow  # each makes many calls

READS = {"DescribeSecurityGroups", "DescribeSecurityGroupRules", "DescribeNetworkInterfaces", "Query", "GetItem"}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[BastionEnv]:
    with bastion_env(monkeypatch) as env:
        yield env


class TestOneNotebook:
    def test_is_let_in_while_it_runs_and_no_longer(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        record = env.notebook("Ana-1", group)

        env.run()
        rule = env.only_rule(group)
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
        assert rule["ReferencedGroupInfo"]["GroupId"] == env.bastion
        assert rule["Tags"] == [{"Key": OWNER_TAG, "Value": STACK}]
        route = env.route("Ana-1")
        assert route.open
        assert route.since == NOW
        assert route.private_ip is not None
        assert route.private_ip.startswith("10.0.")

        env.change(record, state=NotebookState.STOPPING)
        env.now += 60
        env.run()
        assert env.rules(group) == {}
        assert env.route("ana-1") == Route(since=NOW + 60)

    @pytest.mark.parametrize(
        "parts",
        [
            {"state": STOPPED},
            {"state": NotebookState.FAILED},
            {"state": NotebookState.DELETING},
            {"spec": NotebookSpec()},
            {"spec": NotebookSpec((Mode.NGROK,))},
            {"spec": NotebookSpec((Mode.BASTION,), until=NOW)},
        ],
    )
    def test_every_end_closes(self, env: BastionEnv, parts: dict[str, Any]) -> None:
        group = env.group("notebooks")
        record = env.notebook("nb", group)
        env.run()
        env.change(record, **parts)
        env.run()
        assert env.rules(group) == {}
        assert not env.route("nb").open

    def test_a_deleted_record_closes(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.run()
        env.table.delete("notebook", "nb")
        env.run()
        assert env.rules(group) == {}
        assert env.table.record("nb") is None

    def test_leaves_a_shared_group_open_for_the_other(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        first = env.notebook("one", group)
        env.notebook("two", group)
        env.run()
        (rule_id,) = env.rules(group)
        env.change(first, state=STOPPED)
        env.run()
        assert list(env.rules(group)) == [rule_id]
        assert (env.route("one").open, env.route("two").open) == (False, True)

    def test_whose_interface_is_not_there_yet_is_open_without_an_address(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        record = env.notebook("nb", group, state=NotebookState.PENDING)
        env.change(record, network=record.network._replace(interface=None))
        env.run()
        assert env.route("nb") == Route(True, None, NOW)


class TestBastionsGroup:
    def test_admits_clients_of_every_kind_while_anybody_needs_it(self, env: BastionEnv) -> None:
        prefix_list = client("ec2").create_managed_prefix_list(
            PrefixListName="offices", MaxEntries=5, AddressFamily="IPv4", Entries=[{"Cidr": "198.51.100.0/24"}]
        )["PrefixList"]["PrefixListId"]
        env.monkeypatch.setenv("BASTION_CLIENT_CIDRS", f"203.0.113.0/24,2001:db8::/32 {prefix_list}")
        record = env.notebook("nb", env.group("notebooks"))
        env.run()
        peers = {
            rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("PrefixListId")
            for rule in env.rules(env.bastion).values()
        }
        assert peers == {"203.0.113.0/24", "2001:db8::/32", prefix_list}

        with counted() as calls:
            env.run()
        assert not calls.keys() - READS - {"UpdateItem"}
        assert calls["UpdateItem"] == 1  # when the look began

        env.change(record, state=STOPPED)
        env.run()
        assert env.rules(env.bastion) == {}

    def test_gets_a_way_out_only_where_egress_is_not_open(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        record = env.notebook("nb", group)
        env.run()
        assert len(env.rules(env.bastion, egress=True)) == 1  # EC2's own, to everywhere
        env.close_egress()
        env.run()
        assert env.only_rule(env.bastion, egress=True)["ReferencedGroupInfo"]["GroupId"] == group
        env.change(record, state=STOPPED)
        env.run()
        assert env.rules(env.bastion, egress=True) == {}


class TestOthersRules:
    def test_an_equal_rule_made_by_hand_serves_and_stays(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.write_rule(group, UserIdGroupPairs=[{"GroupId": env.bastion}])
        before = env.rules(group)
        record = env.notebook("nb", group)
        env.run()
        assert env.rules(group) == before
        assert env.route("nb").open
        env.change(record, state=STOPPED)
        env.run()
        assert env.rules(group) == before

    def test_another_stacks_rules_stay(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        record = env.notebook("nb", group)
        env.monkeypatch.setenv("STACK_NAME", "other-stack")
        env.run()
        theirs = env.rules(group)
        env.monkeypatch.setenv("STACK_NAME", STACK)
        env.change(record, state=STOPPED)
        env.run()
        assert env.rules(group) == theirs

    def test_ours_edited_by_hand_stays_and_the_right_one_is_made(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.run()
        (rule_id,) = env.rules(group)
        client("ec2").modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[
                {
                    "SecurityGroupRuleId": rule_id,
                    "SecurityGroupRule": {
                        "IpProtocol": "tcp",
                        "FromPort": 0,
                        "ToPort": 65535,
                        "ReferencedGroupId": env.bastion,
                    },
                }
            ],
        )
        assert env.only_rule(group)["ToPort"] == 65535
        env.run()
        assert {(rule["FromPort"], rule["ToPort"]) for rule in env.rules(group).values()} == {(22, 22), (0, 65535)}
        assert len(env.table.needs_admin(NOW)) == 1

    def test_a_rule_disowned_between_plan_and_revoke_stays(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        record = env.notebook("nb", group)
        env.run()
        (rule_id,) = env.rules(group)
        env.change(record, state=STOPPED)

        def disowned(request: dict[str, Any]) -> bool:
            """The rules of the plan are read once more before they are revoked: it is disowned before that."""
            if request["body"]["Filter.1.Name"] == "security-group-rule-id":
                client("ec2").delete_tags(Resources=[rule_id], Tags=[{"Key": OWNER_TAG}])
            return False

        with failing("DescribeSecurityGroupRules", "", when=disowned):
            env.run()
        assert list(env.rules(group)) == [rule_id]


class TestObstacles:
    def test_no_bastion_in_the_stack(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.run()
        env.monkeypatch.setenv("BASTION_SECURITY_GROUP", "")
        env.run()
        assert env.rules(group) == {}
        self.assert_problem(env, "nb", "no-bastion")

    @pytest.mark.parametrize("group", ["sg-0123456789abcdef0", "sg-nonsense"])
    def test_a_bastion_that_is_gone_is_a_status_not_a_crash(self, env: BastionEnv, group: str) -> None:
        env.notebook("nb", env.group("notebooks"))
        env.monkeypatch.setenv("BASTION_SECURITY_GROUP", group)
        env.run()
        self.assert_problem(env, "nb", "bastion-gone", group)

    def test_a_notebook_in_another_vpc(self, env: BastionEnv) -> None:
        far = client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        group = env.group("far", far)
        env.notebook("nb", group)
        env.run()
        assert env.rules(group) == {}
        self.assert_problem(env, "nb", "other-vpc", far)

    def test_a_notebook_in_no_vpc(self, env: BastionEnv) -> None:
        env.table.save_observed(Record("nb", spec=NotebookSpec((Mode.BASTION,)), state=RUNNING, observed_at=NOW), None)
        env.run()
        self.assert_problem(env, "nb", "not-in-vpc")

    def test_a_full_group_is_named_and_the_others_are_served(self, env: BastionEnv) -> None:
        full, roomy = env.group("full"), env.group("roomy")
        env.limit(full)
        env.notebook("unlucky", full)
        env.notebook("lucky", roomy)
        env.run()
        self.assert_problem(env, "unlucky", "rule-limit", full)
        assert env.route("lucky").open
        assert env.route("lucky").problem is None

    def test_a_full_group_in_which_our_own_rule_makes_room(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.run()
        (rule_id,) = env.rules(group)
        edit: Any = {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "ReferencedGroupId": env.group("former bastion"),
        }
        client("ec2").modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": edit}],
        )
        env.limit(group)
        env.run()
        assert env.route("nb").open
        assert env.route("nb").problem is None
        peers = [each["ReferencedGroupInfo"] for each in env.rules(group).values() if "ReferencedGroupInfo" in each]
        assert [each["GroupId"] for each in peers] == [env.bastion]

    def test_a_rule_that_iam_denies_is_reported_and_the_others_are_created(self, env: BastionEnv) -> None:
        is_tearing_down, roomy = env.group("closed"), env.group("roomy")
        env.notebook("nb", is_tearing_down)
        env.notebook("lucky", roomy)
        with failing(
            "AuthorizeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == is_tearing_down,
        ):
            env.run()
        self.assert_problem(env, "nb", "not-allowed", "ec2:AuthorizeSecurityGroupIngress")
        assert env.route("lucky").open

    def test_goes_away_with_its_cause(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        with failing("AuthorizeSecurityGroupIngress", "UnauthorizedOperation", status=403):
            env.run()
        env.run()
        assert env.route("nb").open
        assert env.route("nb").problem is None

    def assert_problem(self, env: BastionEnv, name: str, code: str, named: str = "") -> None:
        route = env.route(name)
        assert not route.open
        assert route.problem is not None
        assert route.problem.code == code
        assert named in route.problem.message


class TestPartialKnowledge:
    @pytest.mark.parametrize(
        "operation", ["DescribeSecurityGroups", "DescribeSecurityGroupRules", "DescribeNetworkInterfaces", "Query"]
    )
    def test_a_failed_read_takes_nothing_away(self, env: BastionEnv, operation: str) -> None:
        group, other = env.group("notebooks"), env.group("others")
        stopped = env.notebook("stopped", group)
        env.notebook("running", other)
        env.run()
        before = env.rules(group)
        env.change(stopped, state=STOPPED)
        with failing(operation, "RequestLimitExceeded"), pytest.raises(RetryableError):
            env.run()
        assert env.rules(group) == before
        env.run()
        assert env.rules(group) == {}

    def test_a_group_is_absent_only_when_ec2_names_it_as_missing(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.run()
        before = env.rules(group)
        with forgetful_filters():
            env.run()
        assert env.rules(group) == before
        assert env.route("nb").open

    def test_a_fleet_read_halfway_is_served_as_far_as_it_is_known(self, env: BastionEnv) -> None:
        known, unknown = env.group("known"), env.group("unknown")
        env.notebook("z-running", unknown)
        env.run()
        env.notebook("a-running", known)
        one_item_a_page(env)
        with (
            failing("Query", "ThrottlingException", when=lambda params: b"ExclusiveStartKey" in params["body"]),
            pytest.raises(RetryableError, match="nothing was revoked"),
        ):
            env.run()
        assert len(env.rules(known)) == len(env.rules(unknown)) == 1
        assert env.route("a-running").open

    def test_with_a_record_of_a_newer_version_its_own_rules_stay(self, env: BastionEnv) -> None:
        groups = [env.group(f"group-{number}") for number in range(3)]
        records = [env.notebook(f"nb-{number}", group) for number, group in enumerate(groups[:2])]
        env.run()
        env.change(records[0], state=NotebookState.STOPPED)
        env.table.update("notebook", "nb-1", set={"spec": {"mode": "tailscale"}})
        env.notebook("nb-2", groups[2])
        env.run()
        assert [len(env.rules(group)) for group in groups] == [0, 1, 1]
        env.table.update("notebook", "nb-1", set={"spec": {"mode": "bastion"}})
        env.run()
        assert [len(env.rules(group)) for group in groups] == [0, 1, 1]

    def test_a_write_that_must_wait_is_finished_by_the_next_run(self, env: BastionEnv) -> None:
        groups = [env.group(f"group-{number}") for number in range(3)]
        for number, group in enumerate(groups):
            env.notebook(f"nb-{number}", group)
        late = max(groups)
        with (
            failing(
                "AuthorizeSecurityGroupIngress",
                "RequestLimitExceeded",
                status=503,
                when=lambda params: params["body"]["GroupId"] == late,
            ),
            pytest.raises(RetryableError),
        ):
            env.run()
        assert env.table.last_rule_sync() is None
        env.run()
        assert all(len(env.rules(group)) == 1 for group in groups)

    def test_a_rule_that_cannot_be_taken_away_is_recorded_and_the_others_go(self, env: BastionEnv) -> None:
        groups = [env.group(f"group-{number}") for number in range(2)]
        records = [env.notebook(f"nb-{number}", group) for number, group in enumerate(groups)]
        env.run()
        for record in records:
            env.change(record, state=STOPPED)
        with failing(
            "RevokeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == groups[0],
        ):
            env.run()
        problem = env.route("nb-0").problem
        assert problem is not None
        assert (problem.code, "ec2:RevokeSecurityGroupIngress" in problem.message) == ("rule-stuck", True)
        assert env.route("nb-1").problem is None
        assert len(env.table.needs_admin(NOW)) == 1
        assert len(env.rules(groups[0])) == 1
        assert env.rules(groups[1]) == {}


class TestOneBadThing:
    """What the stack may not or cannot do about one rule or record holds up nothing else."""

    def test_a_rule_of_the_stack_in_another_vpc_stays_and_is_recorded(self, env: BastionEnv) -> None:
        other = client("ec2").create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        foreign, group = env.group("foreign", other), env.group("notebooks")
        self.make_rule(foreign, PrefixListIds=[{"PrefixListId": "pl-1"}])
        record = env.notebook("nb", group)
        env.run()
        env.change(record, state=STOPPED)
        with failing(
            "RevokeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == foreign,
        ):
            env.run()
        assert env.rules(group) == {}
        assert len(env.rules(foreign)) == 1
        (reason,) = env.table.needs_admin(NOW)
        assert foreign in reason

    def test_the_tag_alone_makes_no_rule_the_stacks(self, env: BastionEnv) -> None:
        """`ec2:CreateTags` is all that a user needs to put the tag on a colleague's rule."""
        group = env.group("notebooks")
        env.write_rule(group, UserIdGroupPairs=[{"GroupId": env.bastion, "Description": "the colleague's"}])
        env.write_rule(group, IpRanges=[{"CidrIp": "192.0.2.0/24"}])
        client("ec2").create_tags(
            Resources=list(env.rules(group)), Tags=[{"Key": "notebook-ssh:stack", "Value": STACK}]
        )
        env.run()
        assert len(env.rules(group)) == 2

    def test_a_rule_such_as_the_stack_never_makes_stays_and_is_recorded(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        self.make_rule(group, FromPort=443, ToPort=443, IpRanges=[{"CidrIp": "192.0.2.0/24"}])
        env.run()
        assert len(env.rules(group)) == 1
        assert len(env.table.needs_admin(NOW)) == 1

    @pytest.mark.parametrize("groups_are_known", [True, False])
    def test_a_record_that_cannot_be_read_keeps_what_it_may_need_and_nothing_else(
        self, env: BastionEnv, *, groups_are_known: bool
    ) -> None:
        mine, theirs = env.group("mine"), env.group("theirs")
        record = env.notebook("known", mine)
        env.notebook("odd", theirs)
        env.run()
        broken: dict[str, Any] = {"spec": {"mode": "tailscale"}}
        env.table.update("notebook", "odd", set=broken if groups_are_known else broken | {"network": "?"})
        env.change(record, state=STOPPED)
        env.run()
        assert env.rules(mine) == {}
        assert len(env.rules(theirs)) == 1

    def test_a_group_that_is_shared_with_an_unreadable_record_stays_open(self, env: BastionEnv) -> None:
        shared = env.group("shared")
        record = env.notebook("known", shared)
        env.notebook("odd", shared)
        env.run()
        env.table.update("notebook", "odd", set={"spec": {"mode": "tailscale"}})
        env.change(record, state=STOPPED)
        env.run()
        assert len(env.rules(shared)) == 1

    def make_rule(self, group: str, **permission: Any) -> None:
        """A rule with the stack's tag and description."""
        for peers in permission.values():
            for peer in peers if isinstance(peers, list) else ():
                peer["Description"] = f"ssh through the bastion, by stack {STACK}"
        tcp_22: Any = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **permission}
        client("ec2").authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[tcp_22],
            TagSpecifications=[
                {"ResourceType": "security-group-rule", "Tags": [{"Key": "notebook-ssh:stack", "Value": STACK}]}
            ],
        )


class TestRaces:
    def test_a_rule_that_a_user_makes_concurrently_serves(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)

        def beaten(params: dict[str, Any]) -> bool:
            if not env.rules(group):
                env.write_rule(group, UserIdGroupPairs=[{"GroupId": env.bastion}])
            return "TagSpecification.1.ResourceType" in params["body"]

        with failing("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate", when=once(beaten)):
            env.run()
        assert "Tags" not in env.only_rule(group) or env.only_rule(group)["Tags"] == []
        assert env.route("nb").open

    def test_a_duplicate_that_cannot_be_read_is_tried_again(self, env: BastionEnv) -> None:
        env.notebook("nb", env.group("notebooks"))
        with (
            failing("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate"),
            pytest.raises(RetryableError, match="does not list it yet"),
        ):
            env.run()

    @pytest.mark.parametrize("code", ["InvalidSecurityGroupRuleId.NotFound", "InvalidPermission.NotFound"])
    def test_a_rule_that_is_gone_already_was_to_go(self, env: BastionEnv, code: str) -> None:
        record = env.notebook("nb", env.group("notebooks"))
        env.run()
        env.change(record, state=STOPPED)
        with failing("RevokeSecurityGroupIngress", code):
            env.run()
        assert not env.route("nb").open

    def test_a_group_deleted_concurrently_is_a_status(self, env: BastionEnv) -> None:
        env.notebook("nb", env.group("notebooks"))
        with failing("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"):
            env.run()
        problem = env.route("nb").problem
        assert problem is not None
        assert problem.code == "group-gone"


def test_a_way_that_opens_under_a_waiting_agent_is_news(env: BastionEnv) -> None:
    record = env.notebook("nb", env.group("notebooks"))
    report = Report(
        "boot-1", NOW - 60, 1, NOW - 5, (Mode.BASTION,), Phase.CONNECTED, keys_own=1, connected_since=NOW - 5
    )
    env.table.replace_report("nb", record.role, report, None)
    queue = client("sqs").create_queue(QueueName="notebooks")["QueueUrl"]
    env.monkeypatch.setenv("NOTEBOOK_QUEUE", queue)
    env.run()
    env.run()
    sent = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    messages = [json.loads(message["Body"]) for message in sent]
    assert [(message["request"], message["reason"]) for message in messages] == [({"notebook": "nb"}, "status")]


def test_a_client_that_was_not_admitted_does_not_block_others(env: BastionEnv) -> None:
    env.monkeypatch.setenv("BASTION_CLIENT_CIDRS", "203.0.113.0/24")
    env.limit(env.bastion)
    record = env.notebook("nb", env.group("notebooks"))
    report = Report(
        "boot-1", NOW - 60, 1, NOW - 5, (Mode.BASTION,), Phase.CONNECTED, keys_own=1, connected_since=NOW - 5
    )
    env.table.replace_report("nb", record.role, report, None)
    env.run()
    now = env.table.record("nb")
    assert now is not None
    status = status_of(now, NOW, 300)
    assert status.code is Code.CONNECTED
    assert status.problem is not None
    assert status.problem.code == "rule-limit"
    assert env.bastion in status.problem.message


def test_a_dry_run_plans_and_changes_no_rule(env: BastionEnv) -> None:
    env.monkeypatch.setenv("DRY_RUN", "true")
    group = env.group("notebooks")
    env.notebook("nb", group)
    env.run()
    assert env.rules(group) == {}
    assert not env.route("nb").open


class TestSignals:
    def test_messages_from_before_the_last_read_cost_one_read(self, env: BastionEnv) -> None:
        env.run(NOW * 1000)
        env.now += 30
        env.run(NOW * 1000)
        with counted() as calls:
            env.run(NOW * 1000, (NOW + 1) * 1000)
        assert calls == {"GetItem": 1}

    def test_a_reconcile_that_failed_does_not_count(self, env: BastionEnv) -> None:
        group = env.group("notebooks")
        env.notebook("nb", group)
        env.now += 30
        with failing("DescribeSecurityGroups", "RequestLimitExceeded"), pytest.raises(RetryableError):
            env.run(NOW * 1000)
        env.run(NOW * 1000)
        assert len(env.rules(group)) == 1

    @pytest.mark.parametrize(("per_second", "most_runs"), [(5, 10), (200, 2)], ids=["at SageMaker's pace", "at once"])
    def test_a_thousand_notebooks_at_nine_make_a_handful_of_runs(
        self, env: BastionEnv, per_second: int, most_runs: int
    ) -> None:
        """The queue shows messages ten at a time, after its delay, to one run at a time."""
        delay, took = source()["Resources"]["RuleQueue"]["Properties"]["DelaySeconds"], 5
        waiting = [NOW * 1000 + number * 1000 // per_second for number in range(1000)]
        with counted() as calls:
            while waiting:
                env.now = max(env.now, -(-waiting[0] // 1000) + delay)
                visible = [sent for sent in waiting[:10] if sent <= (env.now - delay) * 1000]
                runs = calls["Query"]
                env.run(*visible)
                env.now += took if calls["Query"] > runs else 0
                waiting = waiting[len(visible) :]
        assert 1 <= calls["Query"] <= most_runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "interface_pages"),
    [
        (250, 2),
        pytest.param(
            1_000, 5, marks=pytest.mark.nightly(sibling="test_hundreds_of_notebooks_in_two_hundred_groups_are_one_run")
        ),
    ],
)
def test_hundreds_of_notebooks_in_two_hundred_groups_are_one_run(
    env: BastionEnv, count: int, interface_pages: int
) -> None:
    pages_as_in_ec2(env)
    groups = [env.group(f"group-{number:03}") for number in range(200)]
    records = many_notebooks(env, groups, count)

    with counted() as first:
        env.run()
    assert first["AuthorizeSecurityGroupIngress"] == 200
    assert first["UpdateItem"] == count + 1
    assert all((route := env.route(record.name)).open and route.private_ip for record in env.table.records())

    with counted() as steady:
        env.run()
    assert steady.pop("Query") <= 2
    # 201 groups are two filters of at most 200, and so are their rules; the tagged rules are one more request.
    assert steady == {
        "GetItem": 1,
        "DescribeSecurityGroups": 2,
        "DescribeSecurityGroupRules": 3,
        "DescribeNetworkInterfaces": interface_pages,
        "UpdateItem": 1,
    }

    for record in records[::200]:
        env.change(record, state=STOPPED)
    with counted() as evening:
        env.run()
    assert evening["UpdateItem"] == len(records[::200]) + 1
    assert evening["RevokeSecurityGroupIngress"] == 1, "the one group that has no running notebook any more"


def many_notebooks(env: BastionEnv, groups: list[str], count: int) -> list[Record]:
    """Running notebooks, evenly in `groups`. Past moto's front door, which takes 20 ms for each."""
    ec2: Any = ec2_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]  # moto's own types are not what it takes
    subnet = ec2.get_subnet(env.subnet)
    records = []
    for number in range(count):
        group = groups[number % len(groups)]
        interface = ec2.create_network_interface(subnet, f"10.0.{number // 250}.{number % 250}", [group])
        network = Network(env.subnet, (group,), interface.id)
        records.append(Record(f"nb-{number:04}", spec=NotebookSpec((Mode.BASTION,)), state=RUNNING, network=network))
    for start in range(0, len(records), 25):
        puts: list[Any] = [
            {"PutRequest": {"Item": {**key("notebook", record.name), **to_attribute(encode_record(record))["M"]}}}
            for record in records[start : start + 25]
        ]
        client("dynamodb").batch_write_item(RequestItems={"records": puts})
    return records


def test_rules_are_read_page_by_page(env: BastionEnv) -> None:
    """A group's equal hand-made rule on the third page is still found."""
    pages_as_in_ec2(env, size=25)
    group = env.group("notebooks")
    env.limit(group, leave=1)
    env.write_rule(group, UserIdGroupPairs=[{"GroupId": env.bastion}])
    env.notebook("nb", group)
    with counted() as calls:
        env.run()
    assert calls["DescribeSecurityGroupRules"] >= 3
    assert calls["AuthorizeSecurityGroupIngress"] == 0
    assert env.route("nb").open
