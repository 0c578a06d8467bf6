"""Stories of bastion mode through the real handler, on moto's EC2 and DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from support.bastion_world import (
    NOW,
    RUNNING,
    STACK,
    STOPPED,
    Bench,
    an_account,
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
from notebook_ssh.model.record import OWNER_TAG, BastionRoute, Network, NotebookState, Phase, Record, Report
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import Code, status_of

pytestmark = pytest.mark.slow  # each makes many calls

READS = {"DescribeSecurityGroups", "DescribeSecurityGroupRules", "DescribeNetworkInterfaces", "Query", "GetItem"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with an_account(monkeypatch) as bench:
        yield bench


class TestOneNotebook:
    def test_is_let_in_while_it_runs_and_no_longer(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("Ana-1", group)

        bench.run()
        rule = bench.only_rule(group)
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
        assert rule["ReferencedGroupInfo"]["GroupId"] == bench.bastion
        assert rule["Tags"] == [{"Key": OWNER_TAG, "Value": STACK}]
        route = bench.route("Ana-1")
        assert route.open
        assert route.since == NOW
        assert route.private_ip is not None
        assert route.private_ip.startswith("10.0.")

        bench.change(record, state=NotebookState.STOPPING)
        bench.now += 60
        bench.run()
        assert bench.rules(group) == {}
        assert bench.route("ana-1") == BastionRoute(since=NOW + 60)

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
    def test_every_end_closes(self, bench: Bench, parts: dict[str, Any]) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("nb", group)
        bench.run()
        bench.change(record, **parts)
        bench.run()
        assert bench.rules(group) == {}
        assert not bench.route("nb").open

    def test_a_deleted_record_closes(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.run()
        bench.table.delete("notebook", "nb")
        bench.run()
        assert bench.rules(group) == {}
        assert bench.table.record("nb") is None

    def test_leaves_a_shared_group_open_for_the_other(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        first = bench.notebook("one", group)
        bench.notebook("two", group)
        bench.run()
        (rule_id,) = bench.rules(group)
        bench.change(first, state=STOPPED)
        bench.run()
        assert list(bench.rules(group)) == [rule_id]
        assert (bench.route("one").open, bench.route("two").open) == (False, True)

    def test_whose_interface_is_not_there_yet_is_open_without_an_address(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("nb", group, state=NotebookState.PENDING)
        bench.change(record, network=replace(record.network, interface=None))
        bench.run()
        assert bench.route("nb") == BastionRoute(True, None, NOW)


class TestBastionsGroup:
    def test_admits_clients_of_every_kind_while_anybody_needs_it(self, bench: Bench) -> None:
        prefix_list = client("ec2").create_managed_prefix_list(
            PrefixListName="offices", MaxEntries=5, AddressFamily="IPv4", Entries=[{"Cidr": "198.51.100.0/24"}]
        )["PrefixList"]["PrefixListId"]
        bench.monkeypatch.setenv("BASTION_CLIENT_CIDRS", f"203.0.113.0/24,2001:db8::/32 {prefix_list}")
        record = bench.notebook("nb", bench.group("notebooks"))
        bench.run()
        peers = {
            rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("PrefixListId")
            for rule in bench.rules(bench.bastion).values()
        }
        assert peers == {"203.0.113.0/24", "2001:db8::/32", prefix_list}

        with counted() as calls:
            bench.run()
        assert not calls.keys() - READS - {"UpdateItem"}
        assert calls["UpdateItem"] == 1  # when the look began

        bench.change(record, state=STOPPED)
        bench.run()
        assert bench.rules(bench.bastion) == {}

    def test_gets_a_way_out_only_where_egress_is_not_open(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("nb", group)
        bench.run()
        assert len(bench.rules(bench.bastion, egress=True)) == 1  # EC2's own, to everywhere
        bench.close_egress()
        bench.run()
        assert bench.only_rule(bench.bastion, egress=True)["ReferencedGroupInfo"]["GroupId"] == group
        bench.change(record, state=STOPPED)
        bench.run()
        assert bench.rules(bench.bastion, egress=True) == {}


class TestOthersRules:
    def test_an_equal_rule_made_by_hand_serves_and_stays(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.write_rule(group, UserIdGroupPairs=[{"GroupId": bench.bastion}])
        before = bench.rules(group)
        record = bench.notebook("nb", group)
        bench.run()
        assert bench.rules(group) == before
        assert bench.route("nb").open
        bench.change(record, state=STOPPED)
        bench.run()
        assert bench.rules(group) == before

    def test_another_stacks_rules_stay(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("nb", group)
        bench.monkeypatch.setenv("STACK_NAME", "other-stack")
        bench.run()
        theirs = bench.rules(group)
        bench.monkeypatch.setenv("STACK_NAME", STACK)
        bench.change(record, state=STOPPED)
        bench.run()
        assert bench.rules(group) == theirs

    def test_ours_edited_by_hand_stays_and_the_right_one_is_made(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.run()
        (rule_id,) = bench.rules(group)
        client("ec2").modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[
                {
                    "SecurityGroupRuleId": rule_id,
                    "SecurityGroupRule": {
                        "IpProtocol": "tcp",
                        "FromPort": 0,
                        "ToPort": 65535,
                        "ReferencedGroupId": bench.bastion,
                    },
                }
            ],
        )
        assert bench.only_rule(group)["ToPort"] == 65535
        bench.run()
        assert {(rule["FromPort"], rule["ToPort"]) for rule in bench.rules(group).values()} == {(22, 22), (0, 65535)}
        assert len(bench.table.needs_admin(NOW)) == 1

    def test_a_rule_disowned_between_plan_and_revoke_stays(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        record = bench.notebook("nb", group)
        bench.run()
        (rule_id,) = bench.rules(group)
        bench.change(record, state=STOPPED)

        def disowned(request: dict[str, Any]) -> bool:
            """The rules of the plan are read once more before they are revoked: it is disowned before that."""
            if request["body"]["Filter.1.Name"] == "security-group-rule-id":
                client("ec2").delete_tags(Resources=[rule_id], Tags=[{"Key": OWNER_TAG}])
            return False

        with failing("DescribeSecurityGroupRules", "", when=disowned):
            bench.run()
        assert list(bench.rules(group)) == [rule_id]


class TestObstacles:
    def test_no_bastion_in_the_stack(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.run()
        bench.monkeypatch.setenv("BASTION_SECURITY_GROUP", "")
        bench.run()
        assert bench.rules(group) == {}
        self.assert_problem(bench, "nb", "no-bastion")

    @pytest.mark.parametrize("group", ["sg-0123456789abcdef0", "sg-nonsense"])
    def test_a_bastion_that_is_gone_is_a_status_not_a_crash(self, bench: Bench, group: str) -> None:
        bench.notebook("nb", bench.group("notebooks"))
        bench.monkeypatch.setenv("BASTION_SECURITY_GROUP", group)
        bench.run()
        self.assert_problem(bench, "nb", "bastion-gone", group)

    def test_a_notebook_in_another_vpc(self, bench: Bench) -> None:
        far = client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        group = bench.group("far", far)
        bench.notebook("nb", group)
        bench.run()
        assert bench.rules(group) == {}
        self.assert_problem(bench, "nb", "other-vpc", far)

    def test_a_notebook_in_no_vpc(self, bench: Bench) -> None:
        bench.table.save_observed(
            Record("nb", spec=NotebookSpec((Mode.BASTION,)), state=RUNNING, observed_at=NOW), None
        )
        bench.run()
        self.assert_problem(bench, "nb", "not-in-vpc")

    def test_a_full_group_is_named_and_the_others_are_served(self, bench: Bench) -> None:
        full, roomy = bench.group("full"), bench.group("roomy")
        bench.limit(full)
        bench.notebook("unlucky", full)
        bench.notebook("lucky", roomy)
        bench.run()
        self.assert_problem(bench, "unlucky", "rule-limit", full)
        assert bench.route("lucky").open
        assert bench.route("lucky").problem is None

    def test_a_full_group_in_which_our_own_rule_makes_room(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.run()
        (rule_id,) = bench.rules(group)
        edit: Any = {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "ReferencedGroupId": bench.group("former bastion"),
        }
        client("ec2").modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": edit}],
        )
        bench.limit(group)
        bench.run()
        assert bench.route("nb").open
        assert bench.route("nb").problem is None
        peers = [each["ReferencedGroupInfo"] for each in bench.rules(group).values() if "ReferencedGroupInfo" in each]
        assert [each["GroupId"] for each in peers] == [bench.bastion]

    def test_a_rule_that_iam_forbids_is_told_and_the_others_are_made(self, bench: Bench) -> None:
        is_tearing_down, roomy = bench.group("closed"), bench.group("roomy")
        bench.notebook("nb", is_tearing_down)
        bench.notebook("lucky", roomy)
        with failing(
            "AuthorizeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == is_tearing_down,
        ):
            bench.run()
        self.assert_problem(bench, "nb", "not-allowed", "ec2:AuthorizeSecurityGroupIngress")
        assert bench.route("lucky").open

    def test_goes_away_with_its_cause(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        with failing("AuthorizeSecurityGroupIngress", "UnauthorizedOperation", status=403):
            bench.run()
        bench.run()
        assert bench.route("nb").open
        assert bench.route("nb").problem is None

    def assert_problem(self, bench: Bench, name: str, code: str, named: str = "") -> None:
        route = bench.route(name)
        assert not route.open
        assert route.problem is not None
        assert route.problem.code == code
        assert named in route.problem.message


class TestPartialKnowledge:
    @pytest.mark.parametrize(
        "operation", ["DescribeSecurityGroups", "DescribeSecurityGroupRules", "DescribeNetworkInterfaces", "Query"]
    )
    def test_a_failed_read_takes_nothing_away(self, bench: Bench, operation: str) -> None:
        group, other = bench.group("notebooks"), bench.group("others")
        stopped = bench.notebook("stopped", group)
        bench.notebook("running", other)
        bench.run()
        before = bench.rules(group)
        bench.change(stopped, state=STOPPED)
        with failing(operation, "RequestLimitExceeded"), pytest.raises(RetryableError):
            bench.run()
        assert bench.rules(group) == before
        bench.run()
        assert bench.rules(group) == {}

    def test_a_group_is_gone_only_when_ec2_says_so_by_name(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.run()
        before = bench.rules(group)
        with forgetful_filters():
            bench.run()
        assert bench.rules(group) == before
        assert bench.route("nb").open

    def test_a_fleet_read_halfway_is_served_as_far_as_it_is_known(self, bench: Bench) -> None:
        known, unknown = bench.group("known"), bench.group("unknown")
        bench.notebook("z-running", unknown)
        bench.run()
        bench.notebook("a-running", known)
        one_item_a_page(bench)
        with (
            failing("Query", "ThrottlingException", when=lambda params: b"ExclusiveStartKey" in params["body"]),
            pytest.raises(RetryableError, match="nothing was revoked"),
        ):
            bench.run()
        assert len(bench.rules(known)) == len(bench.rules(unknown)) == 1
        assert bench.route("a-running").open

    def test_with_a_record_of_a_newer_version_its_own_rules_stay(self, bench: Bench) -> None:
        groups = [bench.group(f"group-{number}") for number in range(3)]
        records = [bench.notebook(f"nb-{number}", group) for number, group in enumerate(groups[:2])]
        bench.run()
        bench.change(records[0], state=NotebookState.STOPPED)
        bench.table.update("notebook", "nb-1", set={"spec": {"mode": "tailscale"}})
        bench.notebook("nb-2", groups[2])
        bench.run()
        assert [len(bench.rules(group)) for group in groups] == [0, 1, 1]
        bench.table.update("notebook", "nb-1", set={"spec": {"mode": "bastion"}})
        bench.run()
        assert [len(bench.rules(group)) for group in groups] == [0, 1, 1]

    def test_a_write_that_must_wait_is_finished_by_the_next_run(self, bench: Bench) -> None:
        groups = [bench.group(f"group-{number}") for number in range(3)]
        for number, group in enumerate(groups):
            bench.notebook(f"nb-{number}", group)
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
            bench.run()
        assert bench.table.last_bastion_sync() is None
        bench.run()
        assert all(len(bench.rules(group)) == 1 for group in groups)

    def test_a_rule_that_cannot_be_taken_away_is_recorded_and_the_others_go(self, bench: Bench) -> None:
        groups = [bench.group(f"group-{number}") for number in range(2)]
        records = [bench.notebook(f"nb-{number}", group) for number, group in enumerate(groups)]
        bench.run()
        for record in records:
            bench.change(record, state=STOPPED)
        with failing(
            "RevokeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == groups[0],
        ):
            bench.run()
        problem = bench.route("nb-0").problem
        assert problem is not None
        assert (problem.code, "ec2:RevokeSecurityGroupIngress" in problem.message) == ("rule-stuck", True)
        assert bench.route("nb-1").problem is None
        assert len(bench.table.needs_admin(NOW)) == 1
        assert len(bench.rules(groups[0])) == 1
        assert bench.rules(groups[1]) == {}


class TestOneBadThing:
    """What the stack may not or cannot do about one rule or record holds up nothing else."""

    def test_a_rule_of_the_stack_in_another_vpc_stays_and_is_recorded(self, bench: Bench) -> None:
        other = client("ec2").create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        foreign, group = bench.group("foreign", other), bench.group("notebooks")
        self.make_rule(foreign, PrefixListIds=[{"PrefixListId": "pl-1"}])
        record = bench.notebook("nb", group)
        bench.run()
        bench.change(record, state=STOPPED)
        with failing(
            "RevokeSecurityGroupIngress",
            "UnauthorizedOperation",
            status=403,
            when=lambda params: params["body"]["GroupId"] == foreign,
        ):
            bench.run()
        assert bench.rules(group) == {}
        assert len(bench.rules(foreign)) == 1
        (reason,) = bench.table.needs_admin(NOW)
        assert foreign in reason

    def test_the_tag_alone_makes_no_rule_the_stacks(self, bench: Bench) -> None:
        """`ec2:CreateTags` is all that a user needs to put the tag on a colleague's rule."""
        group = bench.group("notebooks")
        bench.write_rule(group, UserIdGroupPairs=[{"GroupId": bench.bastion, "Description": "the colleague's"}])
        bench.write_rule(group, IpRanges=[{"CidrIp": "192.0.2.0/24"}])
        client("ec2").create_tags(
            Resources=list(bench.rules(group)), Tags=[{"Key": "notebook-ssh:stack", "Value": STACK}]
        )
        bench.run()
        assert len(bench.rules(group)) == 2

    def test_a_rule_such_as_the_stack_never_makes_stays_and_is_recorded(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        self.make_rule(group, FromPort=443, ToPort=443, IpRanges=[{"CidrIp": "192.0.2.0/24"}])
        bench.run()
        assert len(bench.rules(group)) == 1
        assert len(bench.table.needs_admin(NOW)) == 1

    @pytest.mark.parametrize("groups_are_known", [True, False])
    def test_a_record_that_cannot_be_read_keeps_what_it_may_need_and_nothing_else(
        self, bench: Bench, *, groups_are_known: bool
    ) -> None:
        mine, theirs = bench.group("mine"), bench.group("theirs")
        record = bench.notebook("known", mine)
        bench.notebook("odd", theirs)
        bench.run()
        broken: dict[str, Any] = {"spec": {"mode": "tailscale"}}
        bench.table.update("notebook", "odd", set=broken if groups_are_known else broken | {"network": "?"})
        bench.change(record, state=STOPPED)
        bench.run()
        assert bench.rules(mine) == {}
        assert len(bench.rules(theirs)) == 1

    def test_a_group_that_is_shared_with_an_unreadable_record_stays_open(self, bench: Bench) -> None:
        shared = bench.group("shared")
        record = bench.notebook("known", shared)
        bench.notebook("odd", shared)
        bench.run()
        bench.table.update("notebook", "odd", set={"spec": {"mode": "tailscale"}})
        bench.change(record, state=STOPPED)
        bench.run()
        assert len(bench.rules(shared)) == 1

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
    def test_a_rule_that_somebody_makes_meanwhile_serves(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)

        def beaten(params: dict[str, Any]) -> bool:
            if not bench.rules(group):
                bench.write_rule(group, UserIdGroupPairs=[{"GroupId": bench.bastion}])
            return "TagSpecification.1.ResourceType" in params["body"]

        with failing("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate", when=once(beaten)):
            bench.run()
        assert "Tags" not in bench.only_rule(group) or bench.only_rule(group)["Tags"] == []
        assert bench.route("nb").open

    def test_a_duplicate_that_cannot_be_seen_is_tried_again(self, bench: Bench) -> None:
        bench.notebook("nb", bench.group("notebooks"))
        with (
            failing("AuthorizeSecurityGroupIngress", "InvalidPermission.Duplicate"),
            pytest.raises(RetryableError, match="does not list it yet"),
        ):
            bench.run()

    @pytest.mark.parametrize("code", ["InvalidSecurityGroupRuleId.NotFound", "InvalidPermission.NotFound"])
    def test_a_rule_that_is_gone_already_was_to_go(self, bench: Bench, code: str) -> None:
        record = bench.notebook("nb", bench.group("notebooks"))
        bench.run()
        bench.change(record, state=STOPPED)
        with failing("RevokeSecurityGroupIngress", code):
            bench.run()
        assert not bench.route("nb").open

    def test_a_group_deleted_meanwhile_is_a_status(self, bench: Bench) -> None:
        bench.notebook("nb", bench.group("notebooks"))
        with failing("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"):
            bench.run()
        problem = bench.route("nb").problem
        assert problem is not None
        assert problem.code == "group-gone"


def test_a_way_that_opens_under_a_waiting_agent_is_news(bench: Bench) -> None:
    record = bench.notebook("nb", bench.group("notebooks"))
    report = Report(
        "boot-1", NOW - 60, 1, NOW - 5, (Mode.BASTION,), Phase.CONNECTED, keys_own=1, connected_since=NOW - 5
    )
    bench.table.replace_report("nb", record.role, report, None)
    queue = client("sqs").create_queue(QueueName="notebooks")["QueueUrl"]
    bench.monkeypatch.setenv("NOTEBOOK_QUEUE", queue)
    bench.run()
    bench.run()
    sent = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    messages = [json.loads(message["Body"]) for message in sent]
    assert [(message["request"], message["reason"]) for message in messages] == [({"notebook": "nb"}, "status")]


def test_a_client_that_was_not_admitted_shuts_out_nobody_else(bench: Bench) -> None:
    bench.monkeypatch.setenv("BASTION_CLIENT_CIDRS", "203.0.113.0/24")
    bench.limit(bench.bastion)
    record = bench.notebook("nb", bench.group("notebooks"))
    report = Report(
        "boot-1", NOW - 60, 1, NOW - 5, (Mode.BASTION,), Phase.CONNECTED, keys_own=1, connected_since=NOW - 5
    )
    bench.table.replace_report("nb", record.role, report, None)
    bench.run()
    now = bench.table.record("nb")
    assert now is not None
    status = status_of(now, NOW, 300)
    assert status.code is Code.CONNECTED
    assert status.problem is not None
    assert status.problem.code == "rule-limit"
    assert bench.bastion in status.problem.message


def test_a_dry_run_plans_and_changes_no_rule(bench: Bench) -> None:
    bench.monkeypatch.setenv("DRY_RUN", "true")
    group = bench.group("notebooks")
    bench.notebook("nb", group)
    bench.run()
    assert bench.rules(group) == {}
    assert not bench.route("nb").open


class TestSignals:
    def test_messages_from_before_the_last_look_cost_one_read(self, bench: Bench) -> None:
        bench.run(NOW * 1000)
        bench.now += 30
        bench.run(NOW * 1000)
        with counted() as calls:
            bench.run(NOW * 1000, (NOW + 1) * 1000)
        assert calls == {"GetItem": 1}

    def test_a_look_that_failed_does_not_count(self, bench: Bench) -> None:
        group = bench.group("notebooks")
        bench.notebook("nb", group)
        bench.now += 30
        with failing("DescribeSecurityGroups", "RequestLimitExceeded"), pytest.raises(RetryableError):
            bench.run(NOW * 1000)
        bench.run(NOW * 1000)
        assert len(bench.rules(group)) == 1

    @pytest.mark.parametrize(("per_second", "most_runs"), [(5, 10), (200, 2)], ids=["at SageMaker's pace", "at once"])
    def test_a_thousand_notebooks_at_nine_make_a_handful_of_runs(
        self, bench: Bench, per_second: int, most_runs: int
    ) -> None:
        """The queue shows messages ten at a time, after its delay, to one run at a time."""
        delay, took = source()["Resources"]["BastionQueue"]["Properties"]["DelaySeconds"], 5
        waiting = [NOW * 1000 + number * 1000 // per_second for number in range(1000)]
        with counted() as calls:
            while waiting:
                bench.now = max(bench.now, -(-waiting[0] // 1000) + delay)
                visible = [sent for sent in waiting[:10] if sent <= (bench.now - delay) * 1000]
                runs = calls["Query"]
                bench.run(*visible)
                bench.now += took if calls["Query"] > runs else 0
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
    bench: Bench, count: int, interface_pages: int
) -> None:
    pages_as_in_ec2(bench)
    groups = [bench.group(f"group-{number:03}") for number in range(200)]
    records = many_notebooks(bench, groups, count)

    with counted() as first:
        bench.run()
    assert first["AuthorizeSecurityGroupIngress"] == 200
    assert first["UpdateItem"] == count + 1
    assert all(record.route and record.route.open and record.route.private_ip for record in bench.table.records())

    with counted() as steady:
        bench.run()
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
        bench.change(record, state=STOPPED)
    with counted() as evening:
        bench.run()
    assert evening["UpdateItem"] == len(records[::200]) + 1
    assert evening["RevokeSecurityGroupIngress"] == 1, "the one group that has no running notebook any more"


def many_notebooks(bench: Bench, groups: list[str], count: int) -> list[Record]:
    """Running notebooks, evenly in `groups`. Past moto's front door, which takes 20 ms for each."""
    ec2: Any = ec2_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]  # moto's own types are not what it takes
    subnet = ec2.get_subnet(bench.subnet)
    records = []
    for number in range(count):
        group = groups[number % len(groups)]
        interface = ec2.create_network_interface(subnet, f"10.0.{number // 250}.{number % 250}", [group])
        network = Network(bench.subnet, (group,), interface.id)
        records.append(Record(f"nb-{number:04}", spec=NotebookSpec((Mode.BASTION,)), state=RUNNING, network=network))
    for start in range(0, len(records), 25):
        puts: list[Any] = [
            {"PutRequest": {"Item": {**key("notebook", record.name), **to_attribute(encode_record(record))["M"]}}}
            for record in records[start : start + 25]
        ]
        client("dynamodb").batch_write_item(RequestItems={"records": puts})
    return records


def test_rules_are_read_page_by_page(bench: Bench) -> None:
    """A group's equal hand-made rule on the third page is still found."""
    pages_as_in_ec2(bench, size=25)
    group = bench.group("notebooks")
    bench.limit(group, leave=1)
    bench.write_rule(group, UserIdGroupPairs=[{"GroupId": bench.bastion}])
    bench.notebook("nb", group)
    with counted() as calls:
        bench.run()
    assert calls["DescribeSecurityGroupRules"] >= 3
    assert calls["AuthorizeSecurityGroupIngress"] == 0
    assert bench.route("nb").open
