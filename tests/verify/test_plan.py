"""What a run will do: which experiments, what for them is created, what that costs."""

from __future__ import annotations

import pytest
from notebook_ssh_verify import register
from notebook_ssh_verify.experiments import ALL, Need
from notebook_ssh_verify.plan import (
    ENDPOINT,
    LAB,
    NOTEBOOKS,
    SCENARIO,
    STACK,
    Item,
    UnknownFactError,
    choose,
    reading_run,
    unmet,
    whole_run,
)


def test_every_fact_has_one_experiment() -> None:
    assert sorted(each.fact for each in ALL) == sorted(register.read())


def test_a_whole_run_creates_everything_and_makes_every_experiment() -> None:
    plan = whole_run(ALL, [])
    assert (plan.experiments, plan.scenario, plan.creates) == (ALL, True, (LAB, NOTEBOOKS, STACK, ENDPOINT))
    assert plan.dollars(60) < 1
    assert plan.dollars(120) == pytest.approx(2 * plan.dollars(60))
    assert plan.dollars(1) == plan.dollars(60), "an hour that has begun is paid"


@pytest.mark.parametrize(
    ("fact", "creates"),
    [
        ("name-case", ()),
        ("fifo-rate", (LAB,)),
        ("sshd-runs", (LAB, NOTEBOOKS)),
        ("eice-interface", (LAB, NOTEBOOKS, STACK, ENDPOINT)),
    ],
)
def test_one_fact_alone_creates_what_it_needs(fact: str, creates: tuple[Item, ...]) -> None:
    plan = whole_run(ALL, [fact])
    assert [each.fact for each in plan.experiments] == [fact]
    assert (plan.creates, plan.scenario) == (creates, False)


def test_the_scenario_alone_creates_everything_and_makes_no_experiment() -> None:
    plan = whole_run(ALL, [SCENARIO])
    assert (plan.experiments, plan.scenario, plan.creates) == ((), True, (LAB, NOTEBOOKS, STACK, ENDPOINT))
    with_a_fact = whole_run(ALL, ["name-case", SCENARIO])
    assert ([each.fact for each in with_a_fact.experiments], with_a_fact.scenario) == (["name-case"], True)


def test_a_run_that_reads_has_no_scenario() -> None:
    with pytest.raises(UnknownFactError, match="the scenario creates a stack and notebooks"):
        reading_run(ALL, [SCENARIO])


def test_a_run_that_reads_creates_nothing() -> None:
    plan = reading_run(ALL, [])
    assert (plan.creates, plan.scenario, plan.dollars(600)) == ((), False, 0)
    assert any(each.only_reads for each in plan.experiments)


def test_a_fact_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownFactError, match=r"there is no fact nonsense; there are .*name-case"):
        choose(ALL, ["name-case", "nonsense"])


def test_the_first_need_that_is_not_met_is_the_reason() -> None:
    reasons = {Need.NOTEBOOK: "no notebook", Need.LAB: "no lab"}
    assert unmet([Need.NOTEBOOK, Need.LAB], reasons) == "no lab"
    assert unmet([Need.STACK], reasons) is None
    assert unmet([], reasons) is None


def test_sentences_are_ready_to_be_told() -> None:
    for each in ALL:
        assert each.how == each.how.strip()
        assert not each.how.endswith(".")
    for need in Need:
        assert not need.value.endswith(".")
