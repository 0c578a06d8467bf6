"""Scenarios of mode eice, and of several modes, through the real handler on moto's EC2 and DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.bastion_env import NOW, STACK, STOPPED, BastionEnv, answering, bastion_env, failing

from notebook_ssh.adapters.clients import client
from notebook_ssh.errors import NotAllowedError, RetryableError
from notebook_ssh.model.record import OWNER_TAG, Route
from notebook_ssh.model.spec import Mode, NotebookSpec

pytestmark = pytest.mark.slow  # each makes many calls

EICE, BOTH = (Mode.EICE,), (Mode.EICE, Mode.BASTION)
OTHER_VPC = "vpc-0fffffffffffffff0"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[BastionEnv]:
    with bastion_env(monkeypatch) as env:
        yield env


def test_a_notebook_is_let_in_while_it_runs_and_no_longer(env: BastionEnv) -> None:
    group, gate = env.group("notebooks"), env.group("gate")
    endpoint = env.endpoint(gate)
    record = env.notebook("nb", group, modes=EICE)
    env.run()
    rule = env.only_rule(group)
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert rule["ReferencedGroupInfo"]["GroupId"] == gate
    assert rule["Tags"] == [{"Key": OWNER_TAG, "Value": STACK}]
    assert rule["Description"] == f"ssh through the endpoint, by stack {STACK}"
    route = env.route("nb", Mode.EICE)
    assert (route.open, route.since, route.problem) == (True, NOW, None)
    assert (route.private_ip or "").startswith("10.0.")
    assert route.endpoint is not None
    assert route.endpoint.id == endpoint
    assert route.endpoint.dns_name.startswith(f"{endpoint}.")
    assert env.rules(env.bastion) == {}

    env.change(record, state=STOPPED)
    env.now += 60
    env.run()
    assert env.rules(group) == {}
    assert env.route("nb", Mode.EICE) == Route(since=NOW + 60)


def test_an_endpoint_whose_egress_is_closed_gets_a_way_to_each_group(env: BastionEnv) -> None:
    group, gate = env.group("notebooks"), env.group("gate")
    client("ec2").revoke_security_group_egress(GroupId=gate, SecurityGroupRuleIds=list(env.rules(gate, egress=True)))
    env.endpoint(gate)
    record = env.notebook("nb", group, modes=EICE)
    env.run()
    assert env.only_rule(gate, egress=True)["ReferencedGroupInfo"]["GroupId"] == group
    env.change(record, spec=NotebookSpec((Mode.NGROK,)))
    env.run()
    assert env.rules(gate, egress=True) == env.rules(group) == {}


def test_of_two_ways_the_one_that_is_not_asked_for_any_more_is_closed(env: BastionEnv) -> None:
    group, gate = env.group("notebooks"), env.group("gate")
    env.endpoint(gate)
    record = env.notebook("nb", group, modes=BOTH)
    env.run()
    peers = {rule["ReferencedGroupInfo"]["GroupId"] for rule in env.rules(group).values()}
    assert peers == {gate, env.bastion}
    for left, peer in ((Mode.EICE, gate), (Mode.BASTION, env.bastion)):
        env.change(record, spec=NotebookSpec((left,)))
        env.run()
        assert env.only_rule(group)["ReferencedGroupInfo"]["GroupId"] == peer
        assert {mode: env.route("nb", mode).open for mode in BOTH} == {mode: mode is left for mode in BOTH}
    env.change(record, spec=NotebookSpec(BOTH))
    env.run()
    assert all(env.route("nb", mode).open for mode in BOTH)


def test_a_way_with_a_problem_leaves_the_other_open(env: BastionEnv) -> None:
    env.notebook("nb", env.group("notebooks"), modes=BOTH)
    env.run()
    assert env.route("nb").open
    assert_problem(env, "no-endpoint")


def test_a_foreign_rule_of_the_endpoints_group_stays(env: BastionEnv) -> None:
    group, gate = env.group("notebooks"), env.group("gate")
    env.endpoint(gate)
    env.write_rule(group, UserIdGroupPairs=[{"GroupId": gate}])
    before = env.rules(group)
    record = env.notebook("nb", group, modes=EICE)
    env.run()
    assert env.route("nb", Mode.EICE).open
    env.change(record, state=STOPPED)
    env.run()
    assert env.rules(group) == before


class TestObstacles:
    @pytest.mark.parametrize("endpoint", ["eice-0123456789abcdef0", "nonsense"])
    def test_an_endpoint_that_is_gone_closes_what_was_open(self, env: BastionEnv, endpoint: str) -> None:
        group = env.group("notebooks")
        env.endpoint()
        env.notebook("nb", group, modes=EICE)
        env.run()
        env.monkeypatch.setenv("ENDPOINT_ID", endpoint)
        env.run()
        assert env.rules(group) == {}
        assert_problem(env, "endpoint-gone", endpoint)

    def test_an_endpoint_of_another_vpc(self, env: BastionEnv) -> None:
        env.endpoint()
        env.notebook("nb", env.group("notebooks"), modes=EICE)
        env.monkeypatch.setenv("ENDPOINT_VPC", OTHER_VPC)
        env.run()
        assert_problem(env, "endpoint-gone", OTHER_VPC)

    def test_a_notebook_of_another_vpc(self, env: BastionEnv) -> None:
        env.endpoint()
        far = client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        env.notebook("nb", env.group("far", far), modes=EICE)
        env.run()
        assert_problem(env, "other-vpc", "use an endpoint in the notebook's VPC")

    def test_one_that_preserves_the_addresses_of_clients_is_named(self, env: BastionEnv) -> None:
        env.endpoint(PreserveClientIp=True)
        env.notebook("nb", env.group("notebooks"), modes=EICE)
        env.run()
        route = env.route("nb", Mode.EICE)
        assert route.open
        assert route.problem is not None
        assert route.problem.code == "endpoint-client-ip"


class TestPartialKnowledge:
    @pytest.mark.parametrize(
        ("code", "status", "error"),
        [("RequestLimitExceeded", 503, RetryableError), ("UnauthorizedOperation", 403, NotAllowedError)],
    )
    def test_an_endpoint_that_was_not_read_is_not_gone(
        self, env: BastionEnv, code: str, status: int, error: type[Exception]
    ) -> None:
        group = env.group("notebooks")
        env.endpoint()
        record = env.notebook("nb", group, modes=EICE)
        env.notebook("other", group, modes=EICE)
        env.run()
        before = env.rules(group), env.route("nb", Mode.EICE)
        env.change(record, state=STOPPED)
        with failing("DescribeInstanceConnectEndpoints", code, status=status), pytest.raises(error):
            env.run()
        assert (env.rules(group), env.route("nb", Mode.EICE)) == before
        env.run()
        assert not env.route("nb", Mode.EICE).open

    def test_an_endpoint_that_was_not_read_holds_up_nothing_else(self, env: BastionEnv) -> None:
        ended, mine, theirs, left = (env.group(name) for name in ("ended", "mine", "theirs", "left"))
        gate = env.group("gate")
        env.endpoint(gate)
        stopped = env.notebook("stopped", ended, modes=EICE)
        env.notebook("running", mine, modes=EICE)
        no_more = env.notebook("no-more", left, modes=BOTH)
        env.run()
        env.change(stopped, state=STOPPED)
        env.change(no_more, spec=NotebookSpec((Mode.EICE,)))
        env.notebook("behind-the-bastion", theirs)
        kept = env.rules(mine), env.rules(left)
        with (
            failing("DescribeInstanceConnectEndpoints", "UnauthorizedOperation", status=403),
            pytest.raises(NotAllowedError),
        ):
            env.run()
        assert env.route("behind-the-bastion").open
        assert env.rules(ended) == {}, "no endpoint has to be read to know that a stopped notebook needs no rule"
        assert (env.rules(mine), env.rules(left)) == kept
        assert env.route("running", Mode.EICE).open
        env.run()
        assert env.only_rule(left)["ReferencedGroupInfo"]["GroupId"] == gate

    def test_an_answer_without_the_endpoint_is_no_answer(self, env: BastionEnv) -> None:
        env.endpoint()
        env.notebook("nb", env.group("notebooks"), modes=EICE)
        env.run()
        before = env.route("nb", Mode.EICE)

        with (
            answering("DescribeInstanceConnectEndpoints", {"InstanceConnectEndpoints": []}),
            pytest.raises(RetryableError, match="does not say that there is none"),
        ):
            env.run()
        assert env.route("nb", Mode.EICE) == before


def test_pausing_closes_and_a_dry_run_opens_nothing(env: BastionEnv) -> None:
    group = env.group("notebooks")
    env.endpoint()
    env.notebook("nb", group, modes=EICE)
    env.monkeypatch.setenv("DRY_RUN", "true")
    env.run()
    assert env.rules(group) == {}
    env.monkeypatch.setenv("DRY_RUN", "false")
    env.run()
    assert env.route("nb", Mode.EICE).open
    env.monkeypatch.setenv("PAUSED", "true")
    env.run()
    assert env.rules(group) == {}
    assert not env.route("nb", Mode.EICE).open


def assert_problem(env: BastionEnv, code: str, named: str = "") -> None:
    route = env.route("nb", Mode.EICE)
    assert not route.open
    assert route.problem is not None
    assert route.problem.code == code
    assert named in route.problem.message
