"""Which rules the bastion needs: tables of cases, and properties that hold for any fleet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from notebook_ssh.errors import Problem
from notebook_ssh.model.network import Direction, FoundEndpoint, FoundRule, NetworkState, Rule, canonical_peer
from notebook_ssh.model.record import ROUTED, Network, NotebookState, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.stack import Bastion, EndpointSettings
from notebook_ssh.planning.entrances import Entrance, bastion_entrance, endpoint_entrance, entrances
from notebook_ssh.planning.routes import CLOCK_SKEW, changed_routes, covered_by_last_sync
from notebook_ssh.planning.rules import Desired, Outcome, RulePlan, desired_rules, plan_rules
from notebook_ssh.triggers.requests import SAVE_DELAY

NOW = 1_800_000_000
STACK = "team-ssh"
GATE = "sg-bastion"
VPC = "vpc-1"
BASTION = Bastion("bastion.example.com", "ec2-user", GATE, VPC)
OPEN_EGRESS = FoundRule("sgr-open", Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "-1", -1, -1))

RUNNING = NotebookState.IN_SERVICE
NOT_ADMITTED = [state for state in NotebookState if state not in (NotebookState.PENDING, RUNNING)]


def notebook(
    name: str = "nb",
    *groups: str,
    state: NotebookState = RUNNING,
    spec: NotebookSpec = NotebookSpec((Mode.BASTION,)),  # noqa: B008 (frozen)
    route: Route | None = None,
    started_at: int | None = None,
) -> Record:
    network = Network("subnet-1", groups or ("sg-a",), f"eni-{name}")
    return Record(
        name,
        spec=spec,
        state=state,
        network=network,
        routes={Mode.BASTION: route} if route else {},
        started_at=started_at,
    )


def entrance(group: str) -> Rule:
    return Rule(group, Direction.INGRESS, GATE)


def exit_to(group: str) -> Rule:
    return Rule(GATE, Direction.EGRESS, group)


def client_of(peer: str) -> Rule:
    return Rule(GATE, Direction.INGRESS, peer)


def around(*rules: FoundRule, vpc_of: dict[str, str] | None = None, egress: bool = True) -> NetworkState:
    known = dict.fromkeys((GATE, "sg-a", "sg-b", "sg-c"), VPC)
    return NetworkState(
        vpc_of=known if vpc_of is None else vpc_of,
        address_of={"eni-nb": "10.0.0.7"},
        rules=(OPEN_EGRESS, *rules) if egress else rules,
    )


def desired(
    fleet: Iterable[Record], surroundings: NetworkState | None = None, bastion: Bastion | None = BASTION, now: int = NOW
) -> Desired:
    return desired_rules(fleet, bastion_entrance(bastion), surroundings or around(), STACK, now)


class TestWhoIsAdmitted:
    @pytest.mark.parametrize("state", [NotebookState.PENDING, RUNNING])
    def test_a_starting_or_running_notebook_is(self, state: NotebookState) -> None:
        assert set(desired([notebook(state=state)]).rules) == {entrance("sg-a")}

    @pytest.mark.parametrize("state", NOT_ADMITTED)
    def test_no_other_state_is(self, state: NotebookState) -> None:
        assert desired([notebook(state=state)]) == Desired()

    @pytest.mark.parametrize("word", ["PendingMaintenance", "InMaintenance", "Hibernating"])
    def test_one_that_ran_is_until_something_else_is_shown(self, word: str) -> None:
        ran = notebook(state=NotebookState(word), started_at=NOW - 900)
        stood = notebook(state=NotebookState(word), started_at=None)
        assert set(desired([ran]).rules) == {entrance("sg-a")}
        assert desired([stood]) == Desired()

    @pytest.mark.parametrize("modes", [(), (Mode.NGROK,)])
    def test_no_other_mode_is(self, modes: tuple[Mode, ...]) -> None:
        assert desired([notebook(spec=NotebookSpec(modes))]) == Desired()

    def test_access_ends_in_the_second_that_the_tag_names(self) -> None:
        fleet = [notebook(spec=NotebookSpec((Mode.BASTION,), until=NOW))]
        assert set(desired(fleet, now=NOW - 1).rules) == {entrance("sg-a")}
        assert desired(fleet, now=NOW).rules == {}

    def test_two_notebooks_of_one_group_share_a_rule(self) -> None:
        wanted = desired([notebook("one"), notebook("two")])
        assert set(wanted.rules) == {entrance("sg-a")}
        assert set(wanted.needs) == {"one", "two"}


class TestWhichGroup:
    @pytest.mark.parametrize(
        ("rules", "chosen"),
        [
            ([], "sg-a"),
            ([FoundRule("sgr-1", entrance("sg-b"), STACK)], "sg-b"),
            ([FoundRule("sgr-1", entrance("sg-b"))], "sg-b"),
            ([FoundRule("sgr-1", entrance("sg-b")), FoundRule("sgr-2", entrance("sg-c"), STACK)], "sg-c"),
            ([FoundRule("sgr-1", entrance("sg-b"), STACK), FoundRule("sgr-2", entrance("sg-c"), STACK)], "sg-b"),
            ([FoundRule("sgr-1", replace(entrance("sg-b"), last_port=2222), STACK)], "sg-a"),
        ],
        ids=["first by id", "ours", "hand-made", "ours before hand-made", "ours, first by id", "not an equal rule"],
    )
    def test_one_that_serves_already_and_else_the_first(self, rules: list[FoundRule], chosen: str) -> None:
        wanted = desired([notebook("nb", "sg-c", "sg-b", "sg-a")], around(*rules))
        assert wanted.needs == {"nb": (entrance(chosen),)}

    def test_the_bastions_own_group_only_when_there_is_no_other(self) -> None:
        vpc_of = {GATE: VPC, "sg-z": VPC}
        assert desired([notebook("nb", GATE, "sg-z")], around(vpc_of=vpc_of)).needs == {"nb": (entrance("sg-z"),)}
        assert desired([notebook("nb", GATE)], around(vpc_of=vpc_of)).needs == {"nb": (entrance(GATE),)}

    def test_a_group_that_does_not_exist_is_passed_over(self) -> None:
        vpc_of = {GATE: VPC, "sg-b": VPC}
        assert desired([notebook("nb", "sg-a", "sg-b")], around(vpc_of=vpc_of)).needs == {"nb": (entrance("sg-b"),)}


class TestWayOut:
    @pytest.mark.parametrize(
        ("rule", "stack", "is_open"),
        [
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "-1", -1, -1), None, True),
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "tcp", 22, 22), None, True),
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "tcp", 0, 65535), "other-stack", True),
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "tcp", 443, 443), None, False),
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "udp", 0, 65535), None, False),
            (Rule(GATE, Direction.EGRESS, "10.0.0.0/8", "-1", -1, -1), None, False),
            (Rule(GATE, Direction.EGRESS, "::/0", "-1", -1, -1), None, False),
            (Rule("sg-a", Direction.EGRESS, "0.0.0.0/0", "-1", -1, -1), None, False),
            (Rule(GATE, Direction.INGRESS, "0.0.0.0/0", "-1", -1, -1), None, False),
            (Rule(GATE, Direction.EGRESS, "0.0.0.0/0", "-1", -1, -1), STACK, False),
        ],
    )
    def test_a_rule_to_the_notebook_only_where_egress_is_not_open(
        self, rule: Rule, stack: str | None, is_open: bool
    ) -> None:
        wanted = desired([notebook()], around(FoundRule("sgr-1", rule, stack), egress=False))
        assert (exit_to("sg-a") not in wanted.rules) is is_open
        assert (exit_to("sg-a") not in wanted.needs["nb"]) is is_open


class TestClients:
    @pytest.mark.parametrize(
        ("text", "peer"),
        [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.9", "203.0.113.9/32"),
            ("203.0.113.9/24", "203.0.113.0/24"),
            ("2001:DB8:0:0::/32", "2001:db8::/32"),
            ("pl-0123456789abcdef0", "pl-0123456789abcdef0"),
        ],
    )
    def test_each_kind_is_admitted_to_the_bastion(self, text: str, peer: str) -> None:
        wanted = desired([notebook()], bastion=replace(BASTION, client_cidrs=(text,)))
        assert wanted.clients == (client_of(peer),)
        assert client_of(peer) in wanted.rules
        assert wanted.config_problem is None

    def test_no_user_is_while_no_notebook_is(self) -> None:
        assert desired([], bastion=replace(BASTION, client_cidrs=("203.0.113.0/24",))).rules == {}

    def test_a_wrong_one_is_named_and_does_not_block_others(self) -> None:
        wanted = desired([notebook()], bastion=replace(BASTION, client_cidrs=("300.1.1.1/8", "203.0.113.0/24")))
        assert set(wanted.rules) == {entrance("sg-a"), client_of("203.0.113.0/24")}
        assert wanted.config_problem is not None
        assert wanted.config_problem.code == "client-cidr-invalid"
        assert "300.1.1.1/8" in wanted.config_problem.message

    @pytest.mark.parametrize("text", ["", "everyone", "10.0.0.0/33", "1.2.3"])
    def test_what_is_no_network_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="does not appear"):
            canonical_peer(text)


class TestObstacles:
    @pytest.mark.parametrize(
        ("bastion", "groups", "vpc_of", "code", "named"),
        [
            (None, ("sg-a",), {"sg-a": VPC}, "no-bastion", "the tag to ngrok"),
            (BASTION, ("sg-a",), {"sg-a": VPC}, "bastion-gone", GATE),
            (BASTION, ("sg-a",), {"sg-a": VPC, GATE: "vpc-2"}, "bastion-gone", "vpc-2"),
            (BASTION, (), {GATE: VPC}, "not-in-vpc", "nb"),
            (BASTION, ("sg-a",), {GATE: VPC}, "group-gone", "sg-a"),
            (BASTION, ("sg-a",), {GATE: VPC, "sg-a": "vpc-2"}, "other-vpc", "vpc-2"),
        ],
    )
    @pytest.mark.parametrize("state", [RUNNING, NotebookState.STOPPED])
    def test_is_said_with_what_to_do_and_opens_nothing(
        self,
        bastion: Bastion | None,
        groups: tuple[str, ...],
        vpc_of: dict[str, str],
        code: str,
        named: str,
        state: NotebookState,
    ) -> None:
        record = replace(notebook(state=state), network=Network(security_groups=groups))
        wanted = desired([record], around(vpc_of=vpc_of), bastion)
        assert wanted.rules == {}
        assert wanted.blockers["nb"].code == code
        assert named in wanted.blockers["nb"].message

    def test_of_one_notebook_does_not_stand_in_anothers_way(self) -> None:
        astray = notebook("astray", "sg-far")
        wanted = desired([astray, notebook()], around(vpc_of={GATE: VPC, "sg-a": VPC, "sg-far": "vpc-2"}))
        assert set(wanted.blockers) == {"astray"}
        assert set(wanted.needs) == {"nb"}


class TestPlan:
    @pytest.mark.parametrize("stack", [None, "other-stack", STACK])
    def test_an_equal_rule_of_any_origin_satisfies(self, stack: str | None) -> None:
        rules = (FoundRule("sgr-1", entrance("sg-a"), stack),)
        assert plan_rules([desired([notebook()])], rules, STACK, complete=True) == RulePlan(
            satisfied=frozenset({entrance("sg-a")})
        )

    def test_a_rule_without_need_is_revoked_only_when_it_is_ours(self) -> None:
        rules = (
            FoundRule("sgr-1", entrance("sg-a"), None),
            FoundRule("sgr-2", entrance("sg-b"), "other-stack"),
            FoundRule("sgr-3", entrance("sg-c"), STACK),
        )
        assert [revoke.found.id for revoke in plan_rules([desired([])], rules, STACK, complete=True).revocations] == [
            "sgr-3"
        ]

    @pytest.mark.parametrize(
        "edited",
        [
            replace(entrance("sg-a"), last_port=65535),
            replace(entrance("sg-a"), peer="0.0.0.0/0"),
            replace(entrance("sg-a"), protocol="-1", first_port=-1, last_port=-1),
        ],
    )
    def test_ours_edited_by_hand_is_put_right(self, edited: Rule) -> None:
        existing = around(FoundRule("sgr-1", edited, STACK))
        changes = plan_rules([desired([notebook()], existing)], existing.rules, STACK, complete=True)
        assert [grant.rule for grant in changes.authorizations] == [entrance("sg-a")]
        assert [revoke.found.rule for revoke in changes.revocations] == [edited]

    def test_with_a_part_of_the_fleet_only_grants(self) -> None:
        rules = (FoundRule("sgr-1", entrance("sg-b"), STACK),)
        changes = plan_rules([desired([notebook()])], rules, STACK, complete=False)
        assert [grant.rule for grant in changes.authorizations] == [entrance("sg-a")]
        assert changes.revocations == ()

    def test_every_change_says_why(self) -> None:
        rules = (FoundRule("sgr-1", entrance("sg-b"), STACK),)
        changes = plan_rules([desired([notebook()])], rules, STACK, complete=True)
        assert [grant.reason for grant in changes.authorizations] == ["notebook nb is InService"]
        assert [revoke.reason for revoke in changes.revocations] == ["no notebook needs it"]


class TestWays:
    def routes(self, record: Record, outcome: Outcome, bastion: Bastion | None = BASTION) -> dict[str, Route]:
        wanted = desired([record], bastion=bastion)
        return changed_routes([record], bastion_entrance(bastion), wanted, outcome, around(), NOW)

    def test_open_with_its_address_once_the_rule_stands(self) -> None:
        in_effect = Outcome(in_effect=frozenset({entrance("sg-a")}))
        assert self.routes(notebook(), in_effect) == {"nb": Route(True, "10.0.0.7", NOW)}

    def test_not_open_before(self) -> None:
        assert self.routes(notebook(), Outcome()) == {"nb": Route(False, "10.0.0.7", NOW)}

    def test_not_written_again_while_nothing_changes(self) -> None:
        in_effect = Outcome(in_effect=frozenset({entrance("sg-a")}))
        assert self.routes(notebook(route=Route(True, "10.0.0.7", NOW - 99)), in_effect) == {}

    @pytest.mark.parametrize(
        "record",
        [
            notebook(state=NotebookState.STOPPED, route=Route(True, "10.0.0.7", 5)),
            notebook(state=NotebookState.DELETING, route=Route(True, "10.0.0.7", 5)),
            notebook(spec=NotebookSpec((Mode.NGROK,)), route=Route(True, "10.0.0.7", 5)),
            notebook(spec=NotebookSpec(), route=Route(True, "10.0.0.7", 5)),
            notebook(spec=NotebookSpec((Mode.BASTION,), until=NOW), route=Route(True, "10.0.0.7", 5)),
        ],
    )
    def test_closed_and_without_address_when_it_ends(self, record: Record) -> None:
        assert self.routes(record, Outcome()) == {"nb": Route(since=NOW)}

    def test_a_refusal_is_the_notebooks_problem(self) -> None:
        full = Problem("rule-limit", "full")
        assert self.routes(notebook(), Outcome(refused={entrance("sg-a"): full}))["nb"].problem == full

    def test_a_client_that_was_not_admitted_leaves_the_tunnel_open_and_reports_it(self) -> None:
        full = Problem("rule-limit", "full")
        outcome = Outcome(frozenset({entrance("sg-a")}), {client_of("203.0.113.0/24"): full})
        bastion = replace(BASTION, client_cidrs=("203.0.113.0/24",))
        assert self.routes(notebook(), outcome, bastion) == {"nb": Route(True, "10.0.0.7", NOW, full)}

    def test_another_notebooks_refusal_is_not_ours(self) -> None:
        outcome = Outcome(frozenset({entrance("sg-a")}), {entrance("sg-b"): Problem("rule-limit", "full")})
        assert self.routes(notebook(), outcome)["nb"].problem is None

    def test_a_problem_is_reported_even_while_the_notebook_is_stopped(self) -> None:
        route = self.routes(notebook(state=NotebookState.STOPPED), Outcome(), bastion=None)["nb"]
        assert route.problem is not None
        assert route.problem.code == "no-bastion"


def test_every_mode_that_needs_one_has_an_entrance() -> None:
    assert {entrance.mode for entrance in entrances(None, None, None)} == set(ROUTED)


@pytest.mark.parametrize(
    ("sent_ms", "observed_from", "seen"),
    [
        ([], NOW, False),
        ([0], None, False),
        ([(NOW - SAVE_DELAY - CLOCK_SKEW) * 1000 - 1], NOW, True),
        ([(NOW - SAVE_DELAY - CLOCK_SKEW) * 1000], NOW, False),
        ([0, NOW * 1000], NOW, False),
    ],
)
def test_only_messages_surely_sent_before_the_last_read_are_skipped(
    sent_ms: list[int], observed_from: int | None, seen: bool
) -> None:
    assert covered_by_last_sync(sent_ms, observed_from, NOW) is seen


# Properties, over small environments in which groups collide often.

groups = st.sampled_from([GATE, "sg-a", "sg-b", "sg-c"])
peers = st.sampled_from([GATE, "sg-a", "sg-b", "sg-c", "0.0.0.0/0", "203.0.113.0/24", "pl-1"])
ports = st.sampled_from([(22, 22), (0, 65535), (443, 443)])
anyones_rules = st.builds(
    lambda group, direction, peer, span: Rule(group, direction, peer, "tcp", *span),
    groups,
    st.sampled_from(Direction),
    peers,
    ports,
)
owners = st.sampled_from([None, "other-stack", STACK])
existing_rules = st.dictionaries(anyones_rules, owners, max_size=12).map(
    lambda found: tuple(FoundRule(f"sgr-{number}", *each) for number, each in enumerate(found.items()))
)
specs = st.builds(
    NotebookSpec,
    modes=st.sampled_from([(), *((mode,) for mode in Mode)]),
    until=st.sampled_from([None, NOW - 1, NOW + 1]),
)
fleets = st.lists(
    st.builds(
        lambda name, held, state, spec: notebook(name, *held, state=state, spec=spec),
        st.sampled_from([f"nb-{number}" for number in range(6)]),
        st.lists(groups, min_size=1, max_size=3, unique=True),
        st.sampled_from(NotebookState),
        specs,
    ),
    unique_by=lambda record: record.name,
    max_size=6,
)
bastions = (
    st.builds(
        lambda cidrs: replace(BASTION, client_cidrs=tuple(cidrs)),
        st.lists(st.sampled_from(["203.0.113.0/24", "2001:db8::/32", "pl-1", "junk"]), unique=True),
    )
    | st.none()
)


def step(
    fleet: Iterable[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None, *, complete: bool = True
) -> tuple[RulePlan, tuple[FoundRule, ...]]:
    """One run against rules kept in memory: the plan, and the rules afterwards."""
    seen = around(*rules, egress=False)
    changes = plan_rules([desired(fleet, seen, bastion)], rules, STACK, complete=complete)
    made = tuple(
        FoundRule(f"new-{len(rules)}-{n}", grant.rule, STACK) for n, grant in enumerate(changes.authorizations)
    )
    taken = {revoke.found for revoke in changes.revocations}
    return changes, tuple(rule for rule in rules if rule not in taken) + made


BEHIND = NotebookSpec(modes=(Mode.BASTION,))


def foreign(rules: Iterable[FoundRule]) -> set[FoundRule]:
    return {found for found in rules if found.stack != STACK}


@given(fleets, existing_rules, bastions)
def test_rules_of_others_never_change(
    fleet: list[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None
) -> None:
    _, after = step(fleet, rules, bastion)
    assert foreign(after) == foreign(rules)


@given(fleets, existing_rules, bastions)
@example(
    # The first makes us open the bastion's own group, where the second one can be let in as well.
    [notebook("nb-0", GATE, spec=BEHIND), notebook("nb-1", GATE, "sg-b", spec=BEHIND)],
    (FoundRule("sgr-0", Rule("sg-b", Direction.INGRESS, GATE)),),
    BASTION,
)
@example(
    [notebook("nb-0", "sg-a", spec=BEHIND), notebook("nb-1", "sg-a", "sg-c", spec=BEHIND)],
    (FoundRule("sgr-0", Rule("sg-c", Direction.INGRESS, GATE), STACK),),
    BASTION,
)
def test_a_plan_carried_out_leaves_nothing_to_do(
    fleet: list[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None
) -> None:
    _, after = step(fleet, rules, bastion)
    again, _ = step(fleet, after, bastion)
    assert (again.authorizations, again.revocations) == ((), ())


@given(fleets, existing_rules, bastions)
def test_afterwards_every_need_is_met_and_ours_are_all_needed(
    fleet: list[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None
) -> None:
    _, after = step(fleet, rules, bastion)
    wanted = desired(fleet, around(*after, egress=False), bastion)
    in_effect = {found.rule for found in after}
    assert {rule for needs in wanted.needs.values() for rule in needs} <= in_effect
    assert {found.rule for found in after if found.stack == STACK} <= wanted.rules.keys()
    assert len(in_effect) == len(after), "EC2 would have refused a duplicate"


@given(fleets, existing_rules, bastions)
def test_a_part_of_the_fleet_never_revokes(
    fleet: list[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None
) -> None:
    _, after = step(fleet, rules, bastion, complete=False)
    assert set(rules) <= set(after)


@given(fleets, existing_rules, bastions, st.randoms(use_true_random=False))
def test_the_order_of_what_was_read_does_not_matter(
    fleet: list[Record], rules: tuple[FoundRule, ...], bastion: Bastion | None, random: Random
) -> None:
    shuffled_fleet, shuffled_rules = fleet.copy(), list(rules)
    random.shuffle(shuffled_fleet)
    random.shuffle(shuffled_rules)
    straight, _ = step(fleet, rules, bastion)
    shuffled, _ = step(shuffled_fleet, tuple(shuffled_rules), bastion)
    assert {grant.rule for grant in straight.authorizations} == {grant.rule for grant in shuffled.authorizations}
    assert straight.revocations == shuffled.revocations


@given(st.lists(fleets, max_size=4), fleets, existing_rules)
def test_whatever_happened_before_the_end_is_right_for_the_last_fleet(
    history: list[list[Record]], last: list[Record], rules: tuple[FoundRule, ...]
) -> None:
    """Late, repeated or misordered events only mean other fleets seen on the way."""
    after = rules
    for fleet in [*history, last]:
        _, after = step(fleet, after, BASTION)
    wanted = desired(last, around(*after, egress=False))
    ours = {found.rule for found in after if found.stack == STACK}
    assert ours <= wanted.rules.keys() <= {found.rule for found in after}
    assert foreign(after) == foreign(rules)


# Both entrances at once.

ENDPOINT_GATE = "sg-endpoint"
ENDPOINT = endpoint_entrance(
    EndpointSettings("eice-1", VPC),
    FoundEndpoint("eice-1", "create-complete", VPC, (ENDPOINT_GATE,), "eice-1.example.com"),
)
ENTRANCES = (bastion_entrance(BASTION), ENDPOINT)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({}, ""),
        ({"state": "update-complete"}, ""),
        ({"state": "resting"}, ""),
        ({"state": "create-in-progress"}, "create-in-progress"),
        ({"state": "delete-failed"}, "delete-failed"),
        ({"vpc": "vpc-2"}, "vpc-2"),
        ({"groups": ()}, "no security group"),
        ({"dns_name": ""}, "no DNS name"),
    ],
)
def test_an_endpoint_serves_unless_ec2_says_that_it_does_not(parts: dict[str, Any], named: str) -> None:
    found = FoundEndpoint("eice-1", "create-complete", VPC, (ENDPOINT_GATE,), "eice-1.example.com")
    entrance = endpoint_entrance(EndpointSettings("eice-1", VPC), replace(found, **parts))
    assert (entrance.problem is None) is (named == "")
    if entrance.problem:
        assert entrance.problem.code == "endpoint-gone"
        assert named in entrance.problem.message


several = st.builds(
    NotebookSpec,
    modes=st.lists(st.sampled_from(Mode), unique=True).map(tuple),
    until=st.sampled_from([None, NOW - 1, NOW + 1]),
)
busy_fleets = st.lists(
    st.builds(
        lambda name, held, state, spec: notebook(name, *held, state=state, spec=spec),
        st.sampled_from([f"nb-{number}" for number in range(6)]),
        st.lists(st.sampled_from([GATE, ENDPOINT_GATE, "sg-a", "sg-b"]), min_size=1, max_size=3, unique=True),
        st.sampled_from(NotebookState),
        several,
    ),
    unique_by=lambda record: record.name,
    max_size=6,
)


def both(
    fleet: Iterable[Record], rules: tuple[FoundRule, ...]
) -> tuple[RulePlan, tuple[FoundRule, ...], tuple[Desired, ...]]:
    """One run for both entrances: the plan, the rules afterwards, and what was desired."""
    known = dict.fromkeys((GATE, ENDPOINT_GATE, "sg-a", "sg-b", "sg-c"), VPC)
    network = around(*rules, egress=False, vpc_of=known)
    wanted = tuple(desired_rules(fleet, entrance, network, STACK, NOW) for entrance in ENTRANCES)
    plan = plan_rules(wanted, rules, STACK, complete=True)
    made = tuple(FoundRule(f"new-{len(rules)}-{n}", each.rule, STACK) for n, each in enumerate(plan.authorizations))
    taken = {each.found for each in plan.revocations}
    return plan, tuple(rule for rule in rules if rule not in taken) + made, wanted


@given(busy_fleets, existing_rules)
def test_every_way_that_is_asked_for_is_open_and_no_rule_of_ours_is_of_no_use(
    fleet: list[Record], rules: tuple[FoundRule, ...]
) -> None:
    _, after, wanted = both(fleet, rules)
    in_effect = {found.rule for found in after}
    needed = {rule for each in wanted for rule in each.rules}
    assert needed <= in_effect
    assert {found.rule for found in after if found.stack == STACK} <= needed
    assert foreign(after) == foreign(rules)
    assert len(in_effect) == len(after), "EC2 would have refused a duplicate"
    again, _, _ = both(fleet, after)
    assert (again.authorizations, again.revocations) == ((), ())


@given(busy_fleets, st.sampled_from(ENTRANCES))
def test_a_word_that_leaves_every_tag_takes_its_rules_along_and_no_others(
    fleet: list[Record], dropped: Entrance
) -> None:
    _, before, _ = both(fleet, ())
    less = [
        replace(
            each, spec=replace(each.spec, modes=tuple(mode for mode in each.spec.modes if mode is not dropped.mode))
        )
        for each in fleet
    ]
    _, after, wanted = both(less, before)
    (other,) = (entrance for entrance in ENTRANCES if entrance is not dropped)
    assert {found.rule for found in after} == {rule for each in wanted for rule in each.rules}
    assert all(other.group in (found.rule.group, found.rule.peer) for found in after)
